from __future__ import annotations

from collections.abc import Iterable
from typing import Literal
from typing import Self

from pydantic import Field
from pydantic import model_validator

from pbx.expression import Condition
from pbx.expression import NewVariable
from pbx.step import Question
from pbx.step import Run


class Ask(Question):
    """Asks for a number: an account, an extension, a code.

    ```yaml
    - ask:
        prompt: "Tapez votre numéro de client, puis dièse."
        into: account
        min: 5
        max: 8
        valid: account starts_with "33"
        invalid: "Ce numéro n'est pas le bon."
        otherwise: {dial: "101"}
    - say: "Merci, client {account}."
    ```

    The caller hears the prompt, and the first key cuts it short. The typing ends with the `end` key, with the last of
    `max` digits, or when nothing more comes. A number that is too short, or for which `valid` does not hold, is asked
    for again, `tries` times in all; then the variable stays empty.
    """

    word = "ask"

    into: NewVariable = Field(NewVariable("digits"), description="The variable that takes the digits")
    min: int = Field(1, ge=1, le=30, description="Fewer digits are wrong")
    max: int = Field(20, ge=1, le=30, description="With so many the typing ends")
    end: Literal["#", "*", "none"] = Field("#", description="The key that ends the typing")
    valid: Condition | None = Field(None, description="What the number must fulfil, as in the step `if`")
    secret: bool = Field(False, description="Kept out of the call's timeline")

    @model_validator(mode="after")
    def _min_below_max(self) -> Self:
        if self.min > self.max:
            raise ValueError('"min" is more than "max"')
        return self

    @property
    def sets(self) -> Iterable[str]:
        return (self.into,)

    @property
    def exhaustive(self) -> bool:
        return False  # a good answer goes on

    async def run(self, run: Run) -> None:
        run.variables[self.into] = ""
        end = "" if self.end == "none" else self.end
        digits = await self.ask(run, good=lambda typed: self._good(run, typed), most=self.max, terminator=end)
        run.variables[self.into] = digits or ""
        if digits is None and self.otherwise:
            await run.steps(self.otherwise)

    def _good(self, run: Run, typed: str) -> bool:
        if not self.min <= len(typed) <= self.max:
            return False
        return self.valid is None or self.valid.holds({**run.variables, self.into: typed})

    def shown(self, digits: str) -> str:
        return "*" * len(digits) if self.secret else digits
