from __future__ import annotations

from typing import Self

from pydantic import Field
from pydantic import model_validator

from pbx.step import Run
from pbx.step import Step
from pbx.step import Steps
from pbx.tenant import HoursRef


class WhenOpen(Step):
    """Decides by the opening hours.

    ```yaml
    - hours:
        in: office
        then: {say: "Bonjour."}
        else: [{say: "Nos bureaux sont fermés."}, {voicemail: accueil}]
    ```

    `then` is done during the hours (see `hours:` of the plan), `else` outside them and on holidays, by the tenant's
    own clock; then the next step follows. The caller hears nothing of it.
    """

    word = "hours"

    in_: HoursRef = Field(description="Which hours of the plan")
    then: Steps | None = Field(None, description="While it is open")
    else_: Steps | None = Field(None, description="While it is closed")

    @model_validator(mode="after")
    def _one_branch(self) -> Self:
        if self.then is None and self.else_ is None:
            raise ValueError('needs "then", "else" or both')
        return self

    @property
    def exhaustive(self) -> bool:
        return self.then is not None and self.else_ is not None

    async def run(self, run: Run) -> None:
        moment = run.call.clock.now().astimezone(run.plan.zone)
        is_open = run.plan.hours[self.in_].open_at(moment)
        run.call.note("hours", hours=self.in_, open=is_open, local=moment.isoformat(timespec="minutes"))
        branch = self.then if is_open else self.else_
        if branch:
            await run.steps(branch)
