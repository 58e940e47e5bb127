from __future__ import annotations

from pydantic import Field

from pbx.prompt import SoundList
from pbx.prompt import Utterance
from pbx.step import Run
from pbx.step import Step


class Play(Step):
    """Plays sound files.

    ```yaml
    - play: sounds/welcome.wav
    - play: {fr: sounds/bonjour.wav, en: sounds/hello.wav}
    - play: [beep, sounds/welcome.wav]
    - play: {sound: sounds/closed.wav, early: yes}
    ```

    A file stands beside the plan: WAV (8 kHz, mono, 16 bit), g722, alaw, ulaw, gsm, sln or sln16. A name without
    an extension is one of Asterisk's own sounds. The caller hears all of it before the next step; keys that he types
    meanwhile wait for the next menu. The call is answered first, unless it says `early`.
    """

    word = "play"
    short = "sound"
    takes_time = True

    sound: SoundList = Field(description="A file, a sound of Asterisk's own, one for each language, or a list of these")
    early: bool = Field(False, description="Before the answer; not every network lets the caller hear it")

    @property
    def answers(self) -> bool:
        return not self.early

    async def run(self, run: Run) -> None:
        await run.play(tuple(Utterance(play=sound) for sound in self.sound))
