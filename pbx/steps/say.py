from __future__ import annotations

from pydantic import Field

from pbx.prompt import LANGUAGES
from pbx.prompt import Language
from pbx.prompt import Utterance
from pbx.prompt import Words
from pbx.step import Run
from pbx.step import Step
from pbx.yamlfile import Mapping
from pbx.yamlfile import Text


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

    @classmethod
    def written_out(cls, body: object) -> object:
        if isinstance(body, Mapping) and set(body) & set(LANGUAGES):
            full = Mapping(body.where)
            full[Text(cls.short, body.where)] = body
            return full
        return super().written_out(body)

    @property
    def answers(self) -> bool:
        return not self.early

    async def run(self, run: Run) -> None:
        await run.play((Utterance(say=self.text, language=self.language),))
