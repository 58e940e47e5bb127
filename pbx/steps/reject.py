from __future__ import annotations

from typing import Literal

from pydantic import Field

from pbx.leg import Cause
from pbx.step import Run
from pbx.step import Step

Reason = Literal["busy", "refused", "no answer", "unavailable", "unknown number"]

_CAUSES: dict[Reason, int] = {
    "busy": Cause.BUSY,
    "refused": Cause.REJECTED,
    "no answer": Cause.NO_ANSWER,
    "unavailable": Cause.SUBSCRIBER_ABSENT,
    "unknown number": Cause.UNALLOCATED,
}


class Reject(Step):
    """Refuses the call, with a reason.

    ```yaml
    - reject: busy
    ```

    A call that was not answered ends unanswered, and costs nothing: the caller hears the busy tone, or what his own
    network makes of the reason. One that was answered is hung up. Nothing comes after this step.
    """

    word = "reject"
    short = "reason"

    reason: Reason = Field("refused", description="What the caller's network is told")

    @property
    def goes_on(self) -> bool:
        return False

    async def run(self, run: Run) -> None:
        await run.call.reject(_CAUSES[self.reason])
