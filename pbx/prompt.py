"""What a caller hears, as an admin writes it: texts to be spoken, sound files, digits, recordings; by language."""

from __future__ import annotations

from typing import Annotated
from typing import Any
from typing import Literal
from typing import Self

from pydantic import BeforeValidator
from pydantic import Field
from pydantic import model_validator

from pbx.expression import Template
from pbx.yamlfile import Mapping
from pbx.yamlfile import Model
from pbx.yamlfile import Text

Language = Literal["fr", "en"]
LANGUAGES: tuple[Language, ...] = ("fr", "en")


class Sound(Text):
    """A sound file, relative to the plan's folder ("sounds/welcome.wav"), or a sound of Asterisk's own ("beep")."""

    __slots__ = ()

    @classmethod
    def _read(cls, value: object) -> Self:
        text = super()._read(value)
        return cls(text, text.where)

    @property
    def is_file(self) -> bool:
        """Asterisk's own sounds have no extension."""
        return "." in self


class _Translated(Model):
    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.languages:
            raise ValueError("empty: write a text for each language, {fr: ..., en: ...}")
        return self

    @property
    def languages(self) -> tuple[Language, ...]:
        """Those that were written."""
        return tuple(language for language in LANGUAGES if getattr(self, language) is not None)


class Translations(_Translated):
    """One text in several languages."""

    fr: Template | None = None
    en: Template | None = None


class SoundTranslations(_Translated):
    """One sound in several languages."""

    fr: Sound | None = None
    en: Sound | None = None


Words = Annotated[
    Template | Translations,
    Field(
        description='A text to speak, or one for each language: {fr: "Bonjour", en: "Hello"}; '
        "{variable} stands for its value"
    ),
]
Sounds = Annotated[
    Sound | SoundTranslations,
    Field(description="A sound file beside the plan, a sound of Asterisk's own by its name, or one for each language"),
]


class Utterance(Model):
    """One thing that is heard: exactly one of `say`, `play`, `digits` and `recording`."""

    say: Words | None = None
    play: Sounds | None = None
    digits: Template | None = Field(None, description="Digits, spoken one by one")
    recording: Text | None = Field(None, description="The variable of a recording made by the step `record`")
    language: Language | None = Field(None, description="Spoken in this language, whatever the call's is")

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if sum(thing is not None for thing in (self.say, self.play, self.digits, self.recording)) != 1:
            raise ValueError('needs exactly one of "say", "play", "digits" and "recording"; write several as a list')
        if self.language and not isinstance(self.say, Template):
            raise ValueError('"language" goes with "say" and one text; everything else follows the language of the call')
        return self


def _one_utterance(value: Any) -> Any:
    """A bare text is said, and so are texts by language."""
    if isinstance(value, str) or isinstance(value, Mapping) and set(value) & set(LANGUAGES):
        full = Mapping(getattr(value, "where", Text("").where))
        full[Text("say", full.where)] = value
        return full
    return value


def _several(value: Any) -> Any:
    """One thing stands for a list of it."""
    return value if isinstance(value, list | tuple) else [value]


Utterances = Annotated[Utterance, BeforeValidator(_one_utterance, json_schema_input_type=Words | Utterance)]
Prompt = Annotated[
    tuple[Utterances, ...],
    BeforeValidator(_several, json_schema_input_type=Utterances | list[Utterances]),
    Field(min_length=1),
]


def spoken(fr: str, en: str) -> Translations:
    """A sentence of the engine's own."""
    return Translations(fr=Template(fr), en=Template(en))
