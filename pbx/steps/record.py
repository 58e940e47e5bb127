from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from pbx.expression import NewVariable
from pbx.prompt import Prompt
from pbx.step import Run
from pbx.step import Step
from pbx.yamlfile import Milliseconds


class Record(Step):
    """Records what the caller says.

    ```yaml
    - record: {prompt: "Dites votre nom après le bip.", into: name, max: 5s}
    - play: beep
    - menu:
        prompt: ["Vous avez dit:", {recording: name}, "Si c'est juste, tapez 1."]
        keys: {"1": {dial: "101"}}
    ```

    The caller hears the prompt and a beep, and speaks until he presses #, is silent, or `max` is over. A prompt plays
    it back as `{recording: name}`; the variable stays empty when nothing could be recorded.
    """

    word = "record"
    short = "into"
    takes_time = True

    into: NewVariable = Field(description="The variable that stands for the recording")
    prompt: Prompt | None = Field(None, description="What the caller hears before the beep")
    max: Milliseconds = Field(60_000, ge=1_000, le=3_600_000, description="It ends after this time")
    silence: Milliseconds = Field(4_000, ge=1_000, le=60_000, description="It ends after so much silence")
    beep: bool = Field(True, description="Whether he hears it")

    @property
    def answers(self) -> bool:
        return True

    @property
    def sets(self) -> Iterable[str]:
        return (self.into,)

    async def run(self, run: Run) -> None:
        await run.play(self.prompt or ())
        recorded = await run.call.capture(
            run.new_recording(), max_ms=self.max, silence_ms=self.silence, beep=self.beep
        )
        run.variables[self.into] = recorded.name if recorded else ""
