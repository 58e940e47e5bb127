from __future__ import annotations

from pbx.step import Run
from pbx.step import Step


class Hangup(Step):
    """Ends the call.

    ```yaml
    - hangup
    ```

    Nothing comes after this step; the end of a flow ends the call all the same.
    """

    word = "hangup"

    @property
    def goes_on(self) -> bool:
        return False

    async def run(self, run: Run) -> None:
        await run.call.hangup()
