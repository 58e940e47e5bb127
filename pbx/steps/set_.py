from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field
from pydantic import field_validator

from pbx.expression import NewVariable
from pbx.expression import Template
from pbx.prompt import LANGUAGES
from pbx.step import Run
from pbx.step import Step
from pbx.yamlfile import Problem
from pbx.yamlfile import Problems
from pbx.yamlfile import suggest


class Settable(NewVariable):
    __slots__ = ()
    fixed = NewVariable.fixed - {"language"}


class Set(Step):
    """Sets variables.

    ```yaml
    - set: {language: en}
    - set: {department: sales, caller_name: "Ventes: {caller}"}
    ```

    Any name of small letters, digits and `_` will do; `{department}` then stands for the value in texts, and
    `department` in conditions. `language` changes what the caller hears from now on, `caller_name` what the handsets
    that ring show. The caller hears nothing of it.
    """

    word = "set"
    short = "values"
    always_short = True

    values: dict[Settable, Template] = Field(min_length=1, description="Names and what they stand for from now on")

    @field_validator("values")
    @classmethod
    def _language_is_known(cls, values: dict[Settable, Template]) -> dict[Settable, Template]:
        for name, value in values.items():
            if name == "language" and value not in LANGUAGES:
                remedy = suggest(value, LANGUAGES, "languages")
                raise Problems([Problem(value.where, f'no language "{value}" {remedy}')])
        return values

    @property
    def sets(self) -> Iterable[str]:
        return tuple(self.values)

    async def run(self, run: Run) -> None:
        values = {str(name): value.fill(run.variables) for name, value in self.values.items()}
        run.call.note("set", variables=values)
        run.variables.update(values)
        run.call.language = run.variables["language"]
