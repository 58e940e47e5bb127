from __future__ import annotations

from pydantic import Field

from pbx.step import Run
from pbx.step import Step
from pbx.tenant import FlowRef


class Goto(Step):
    """Goes on with another flow, and does not come back.

    ```yaml
    - goto: support
    ```

    The caller hears nothing of it. Flows that have called this one are left as well. To come back here, use `call`.
    """

    word = "goto"
    short = "flow"

    flow: FlowRef = Field(description="The name of a flow of this plan")

    @property
    def goes_on(self) -> bool:
        return False

    @property
    def leads_to(self) -> FlowRef | None:
        return self.flow

    async def run(self, run: Run) -> None:
        run.goto(self.flow)
