from __future__ import annotations

from pydantic import Field

from pbx.step import Run
from pbx.step import Step
from pbx.yamlfile import Milliseconds


class Wait(Step):
    """Waits.

    ```yaml
    - wait: 2s
    ```

    The caller hears silence, or the ringing that was there before.
    """

    word = "wait"
    short = "for"
    takes_time = True

    for_: Milliseconds = Field(ge=100, le=3_600_000, description="How long")

    async def run(self, run: Run) -> None:
        await run.call.wait(self.for_)
