from __future__ import annotations

from pbx.step import Run
from pbx.step import Step


class Answer(Step):
    """Takes the call.

    ```yaml
    - answer
    ```

    The caller hears the ringing stop, and from here on pays for the call. Steps that speak or listen to the caller
    answer by themselves, so this is for taking a call sooner, or before a `ring`.
    """

    word = "answer"

    @property
    def answers(self) -> bool:
        return True

    async def run(self, run: Run) -> None:
        """The run has answered already."""
