from __future__ import annotations

from pydantic import Field

from pbx.expression import Condition
from pbx.step import Run
from pbx.step import Step
from pbx.step import Steps


class If(Step):
    """Decides by a condition.

    ```yaml
    - if:
        when: caller starts_with "+33" and not language == en
        then: {say: "Bienvenue."}
        else: {set: {language: en}}
    ```

    On the left of an operator stands a variable, on the right a value, between quotes if it has spaces. The operators:
    `==`, `!=`, `starts_with`, `ends_with`, `contains`, `in [a, b]`, and `<`, `<=`, `>`, `>=` for whole numbers. A
    variable alone holds when it is not empty. `and`, `or`, `not` and parentheses join conditions. The caller hears
    nothing of it; after `then` or `else` the next step follows.
    """

    word = "if"

    when: Condition = Field(description='The condition: digits == "1"')
    then: Steps = Field(description="When it holds")
    else_: Steps | None = Field(None, description="When it does not hold")

    @property
    def exhaustive(self) -> bool:
        return self.else_ is not None

    async def run(self, run: Run) -> None:
        holds = self.when.holds(run.variables)
        run.call.note("if", when=str(self.when), holds=holds)
        branch = self.then if holds else self.else_
        if branch:
            await run.steps(branch)
