"""What a caller hears, as an admin writes it: texts to be spoken, sound files, digits, recordings; by language."""

from __future__ import annotations

from typing import Annotated
from typing import Any
from typing import Generic
from typing import Literal
from typing import Self
from typing import TypeVar

from pydantic import BeforeValidator
from pydantic import Field
from pydantic import model_validator

from pbx.expression import Template
from pbx.expression import Variable
from pbx.yamlfile import NOWHERE
from pbx.yamlfile import Mapping
from pbx.yamlfile import Model
from pbx.yamlfile import Text

Language = Literal["fr", "en"]
T = TypeVar("T", bound=Text)
LANGUAGES: tuple[Language, ...] = ("fr", "en")


class Sound(Text):
    """A sound file, relative to the plan's folder ("sounds/welcome.wav"), or a sound of Asterisk's own ("beep")."""

    __slots__ = ()

    @property
    def is_file(self) -> bool:
        """Asterisk's own sounds have no extension."""
        return "." in self


class Translated(Model, Generic[T]):
    """One thing in several languages: {fr: "Bonjour", en: "Hello"}."""

    fr: T | None = None
    en: T | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.languages:
            raise ValueError("nothing is given: write {fr: ..., en: ...}")
        return self

    @property
    def languages(self) -> tuple[Language, ...]:
        """Those that are given."""
        return tuple(language for language in LANGUAGES if getattr(self, language) is not None)


def in_language(words: T | Translated[T], language: Language) -> T:
    """What stands for a language; what is not translated stands for all, and a lacking language for any other."""
    if not isinstance(words, Translated):
        return words
    found: T = getattr(words, language if language in words.languages else words.languages[0])
    return found


class Speech(Template):
    """A text to be spoken."""

    __slots__ = ()


Words = Annotated[
    Speech | Translated[Speech],
    Field(
        description='A text to speak, or one for each language: {fr: "Bonjour", en: "Hello"}; '
        "{variable} stands for its value"
    ),
]
Sounds = Annotated[
    Sound | Translated[Sound],
    Field(description="A sound file beside the plan, a sound of Asterisk's own by its name, or one for each language"),
]


def several(value: Any) -> Any:
    """One thing stands for a list of it."""
    return value if isinstance(value, list | tuple) else [value]


SoundList = Annotated[
    tuple[Sounds, ...], BeforeValidator(several, json_schema_input_type=Sounds | list[Sounds]), Field(min_length=1)
]


class Utterance(Model):
    """One thing that is heard: exactly one of `say`, `play`, `digits` and `recording`."""

    say: Words | None = None
    play: Sounds | None = None
    digits: Template | None = Field(None, description="Digits, spoken one by one")
    recording: Variable | None = Field(None, description="The variable of a recording made by the step `record`")
    language: Language | None = Field(None, description="Spoken in this language, whatever the call's is")

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if sum(thing is not None for thing in (self.say, self.play, self.digits, self.recording)) != 1:
            raise ValueError('needs exactly one of "say", "play", "digits" and "recording"; write several as a list')
        if self.language and not isinstance(self.say, Speech):
            raise ValueError('"language" goes with "say" and one text; all else follows the language of the call')
        return self


def under(key: str, value: object) -> Mapping:
    """The mapping that a short form stands for: this one key, where the value stands."""
    full = Mapping(getattr(value, "where", NOWHERE))
    full[Text(key, full.where)] = value
    return full


def by_language(value: object) -> bool:
    """Whether something is written {fr: ..., en: ...}."""
    return isinstance(value, Mapping) and not set(value).isdisjoint(LANGUAGES)


def _one_utterance(value: Any) -> Any:
    """A bare text is said, and so are texts by language."""
    return under("say", value) if isinstance(value, str) or by_language(value) else value


Utterances = Annotated[Utterance, BeforeValidator(_one_utterance, json_schema_input_type=Words | Utterance)]
Prompt = Annotated[
    tuple[Utterances, ...],
    BeforeValidator(several, json_schema_input_type=Utterances | list[Utterances]),
    Field(min_length=1),
]


def spoken(fr: str, en: str) -> Prompt:
    """A sentence of the engine's own."""
    return (Utterance(say=Translated[Speech](fr=Speech(fr), en=Speech(en))),)
