from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from pbx.step import Question
from pbx.step import Run
from pbx.step import Steps
from pbx.tenant import Form
from pbx.yamlfile import Text


Keys = Annotated[Text, Form(r"[0-9*#]{1,20}", "keys are digits, * and #")]


class Menu(Question):
    """Lets the caller choose by a key.

    ```yaml
    - menu:
        prompt: "Pour le service commercial, tapez 1. Pour le support, tapez 2."
        keys:
          "1": {dial: sales}
          "2": [{dial: "102"}, {voicemail: "102"}]
        timeout: "Vous n'avez rien tapé."
        otherwise: {dial: "101"}
    ```

    The caller hears the prompt, and the first key cuts it short; one who knows the way may type through several menus
    without hearing any. After nothing, or a key that is not there, the prompt comes again. What a key leads to is done,
    and then the step after the menu follows. The keys typed are in `{digits}`. A key may be several digits long
    ("12"); if another one begins like it ("1"), the shorter one waits for `between` before it counts.
    """

    word = "menu"

    keys: Annotated[dict[Keys, Steps], Field(min_length=1, description="What each key does")]

    @property
    def sets(self) -> Iterable[str]:
        return ("digits",)

    async def run(self, run: Run) -> None:
        choices = {str(key): steps for key, steps in self.keys.items()}
        digits = await self.ask(
            run,
            good=lambda typed: typed in choices,
            most=max(map(len, choices)),
            terminator="",
            complete=lambda typed: not any(key.startswith(typed) and key != typed for key in choices),
        )
        if digits is not None:
            run.variables["digits"] = digits
            await run.steps(choices[digits])
        elif self.otherwise:
            await run.steps(self.otherwise)
