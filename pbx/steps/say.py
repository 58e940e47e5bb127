from __future__ import annotations

from pydantic import Field

from pbx.prompt import Language
from pbx.prompt import Utterance
from pbx.prompt import Words
from pbx.step import Run
from pbx.step import Step


class Say(Step):
    """Speaks a text.

    ```yaml
    - say: "Bonjour, vous êtes bien chez Acme."
    - say: {fr: "Bonjour.", en: "Hello."}
    - say: "Vous appelez du {caller}."
    - say: {text: "Nos bureaux sont fermés.", early: yes}
    ```

    `{variable}` stands for its value, `{{` for a brace. The caller hears the text in the language of the call, to its
    end; keys that he types meanwhile wait for the next menu. The call is answered first, unless it says
    `early`.
    """

    word = "say"
    short = "text"
    takes_time = True

    text: Words
    language: Language | None = Field(None, description="Spoken in this language, whatever the call's is")
    early: bool = Field(False, description="Before the answer; not every network lets the caller hear it")

    @property
    def answers(self) -> bool:
        return not self.early

    async def run(self, run: Run) -> None:
        await run.play((Utterance(say=self.text, language=self.language),))
