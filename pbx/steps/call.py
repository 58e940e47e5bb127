from __future__ import annotations

from pydantic import Field

from pbx.step import Run
from pbx.step import Step
from pbx.tenant import FlowRef


class CallFlow(Step):
    """Does another flow, then goes on here.

    ```yaml
    - call: greeting
    - dial: sales
    ```

    The caller hears what that flow lets him hear. Variables that it sets are set here as well. It comes back at its
    end, but not when it ends with `hangup`, `reject` or `goto`.
    """

    word = "call"
    short = "flow"

    flow: FlowRef = Field(description="The name of a flow of this plan")

    @property
    def leads_to(self) -> FlowRef | None:
        return self.flow

    async def run(self, run: Run) -> None:
        await run.subflow(run.plan.flows[self.flow])
