"""What every step of a flow has in common, and the run of a call through its flow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any
from typing import ClassVar
from typing import NoReturn
from typing import TypeVar

from pydantic import Field
from pydantic import GetCoreSchemaHandler
from pydantic import GetJsonSchemaHandler
from pydantic import ValidationInfo
from pydantic_core import CoreSchema
from pydantic_core import core_schema

from pbx import metrics
from pbx import speech
from pbx.call import Call
from pbx.leg import Cause
from pbx.policy import Refused
from pbx.prompt import LANGUAGES
from pbx.prompt import Language
from pbx.prompt import Prompt
from pbx.prompt import Sound
from pbx.prompt import Utterance
from pbx.prompt import by_language
from pbx.prompt import in_language
from pbx.prompt import spoken
from pbx.prompt import under
from pbx.store import AnyStore
from pbx.store import StoreError
from pbx.tenant import FlowRef
from pbx.tenant import Line
from pbx.yamlfile import NOWHERE
from pbx.yamlfile import Mapping
from pbx.yamlfile import Milliseconds
from pbx.yamlfile import Model
from pbx.yamlfile import Problem
from pbx.yamlfile import Problems
from pbx.yamlfile import Text
from pbx.yamlfile import Where
from pbx.yamlfile import suggest

if TYPE_CHECKING:
    from pbx.dialplan import Plan

log = logging.getLogger(__name__)

MOST_STEPS_AT_ONCE = 200
_INSTANT = 0.1  # seconds; a step that took longer has let the caller, and the machine, breathe


class Step(Model):
    """One step of a flow. A subclass is one word of the language; its docstring is the word's page in the manual.

    `word` is its name in YAML. `short` is the field that `word: value` fills; with `always_short` there is no other
    form. `takes_time` says that the caller always spends time in it, so that a circle through it does no harm.
    """

    word: ClassVar[str]
    short: ClassVar[str] = ""
    always_short: ClassVar[bool] = False
    takes_time: ClassVar[bool] = False

    async def run(self, run: Run) -> None:
        """Does it. Steps that follow are left to the run; Hangup passes through."""
        raise NotImplementedError(self.word)

    @classmethod
    def written_out(cls, body: object) -> object:
        """The full form of what stands behind the word."""
        if cls.short and (cls.always_short or not isinstance(body, Mapping) or by_language(body)):
            return under(cls.short, body)
        if not cls.model_fields and body:
            raise ValueError(f'"{cls.word}" stands alone: remove what follows it')
        return body

    @property
    def answers(self) -> bool:
        """Whether the call must be answered before this step."""
        return False

    @property
    def exhaustive(self) -> bool:
        """True when one of the branches is always taken."""
        return False

    @property
    def goes_on(self) -> bool:
        """False when the step after this one can never come."""
        return not self.exhaustive or any(branch.goes_on for branch in self.branches)

    @property
    def sets(self) -> Iterable[str]:
        """The variables that it may set."""
        return ()

    @property
    def leads_to(self) -> FlowRef | None:
        """The flow that it runs; with `goes_on` it comes back from there."""
        return None

    @property
    def branches(self) -> Iterator[Steps]:
        """The lists of steps inside this one."""
        return (part for value in self.__dict__.values() for part in parts(value) if isinstance(part, Steps))


class Steps(tuple[Step, ...]):
    """Steps that follow one another; a single step may stand without the list.

    Reading them needs the known words: `context["steps"]`, a mapping of words to classes. With `context["tolerant"]`
    a step that cannot be read is `Unreadable` instead of an error.
    """

    @property
    def goes_on(self) -> bool:
        """False when whatever follows these steps can never come."""
        return all(step.goes_on for step in self)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        step = core_schema.with_info_plain_validator_function(_read_step)
        steps = core_schema.no_info_before_validator_function(
            lambda value: value if isinstance(value, list | tuple) else [value],
            core_schema.list_schema(step, min_length=1),
        )
        return core_schema.no_info_after_validator_function(cls, steps)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"$comment": "steps"}  # `pbx.manual` puts the list of all steps in its place


class Unreadable(Step):
    """Stands for a step that could not be read, where the rest of a plan is checked all the same."""

    word = "unreadable"
    takes_time = True


def _read_step(value: object, info: ValidationInfo) -> Step:
    if isinstance(value, Step):
        return value
    context = info.context or {}
    try:
        return _known_step(value, context["steps"], info)
    except ValueError:  # ValidationError and Problems are such, too
        if not context.get("tolerant"):
            raise
        return Unreadable.model_validate(Mapping(getattr(value, "where", NOWHERE)))


def _known_step(value: object, kinds: dict[str, type[Step]], info: ValidationInfo) -> Step:
    name, body = _name_and_body(value, kinds)
    if name not in kinds:
        raise Problems([Problem(name.where, f'unknown step "{name}" {suggest(name, kinds, "steps")}')])
    full = kinds[name].written_out(body)
    if isinstance(full, Mapping):
        # A step is where its word is: that is the line an admin looks for.
        placed = Mapping(name.where)
        placed.update(full)
        full = placed
    return kinds[name].model_validate(full, context=info.context)


def _name_and_body(value: object, kinds: Iterable[str]) -> tuple[Text, object]:
    if isinstance(value, Text) and not value.blank:
        return value, Mapping(value.where)
    if not isinstance(value, Mapping) or not value:
        raise ValueError('expected a step, as in "answer" or "say: Bonjour"')
    name, *others = value
    if others:
        first = others[0]
        remedy = f'begin "{first}" with "- ", on a line of its own'
        if first not in kinds:
            remedy = f'indent "{first}" further if it belongs to "{name}"'
        raise Problems([Problem(first.where, f'a step has one word, and here are "{name}" and "{first}": {remedy}')])
    body = value[name]
    return name, Mapping(name.where) if isinstance(body, Text) and body.blank else body


def parts(value: object) -> Iterator[object]:
    """A value and all that is inside it; of nested steps the list alone, not what is in it."""
    yield value
    inside: Iterable[object] = ()
    if isinstance(value, Model):
        inside = value.__dict__.values()
    elif isinstance(value, dict):
        inside = (*value.keys(), *value.values())
    elif isinstance(value, tuple) and not isinstance(value, Steps | Where):
        inside = value
    for part in inside:
        yield from parts(part)


S = TypeVar("S", bound=Step)


def built(kind: type[S], where: Where, **fields: object) -> S:
    """A step of the engine's own making, with the keys that YAML has; its place is that of its occasion."""
    full = Mapping(where)
    full.update({Text(key, where): value for key, value in fields.items()})
    return kind.model_validate(full)


@dataclass(frozen=True, slots=True)
class Flow:
    """Steps under a name."""

    name: str
    steps: Steps


@dataclass(frozen=True, slots=True)
class Services:
    """What steps need besides the call. `lamp("acme-101", unheard, heard)` sets the message lamp of a line."""

    store: AnyStore
    lamp: Callable[[str, int, int], Awaitable[None]]


class _Goto(Exception):
    """The present flow is over, with all that called it, and another one takes its place."""

    def __init__(self, flow: str) -> None:
        self.flow = flow


class Run:
    """One call on its way through a plan. `line` is the handset that calls, or None for a call from outside."""

    def __init__(self, call: Call, plan: Plan, services: Services, *, line: Line | None = None) -> None:
        self.call = call
        self.plan = plan
        self.services = services
        self.line = line
        self.variables = {
            "caller": call.caller_number,
            "caller_name": call.caller_name,
            "dialled": call.dialled,
            "digits": "",
            "language": call.language,
            "line": line.id if line else "",
        }
        self._at_once = 0
        self._recordings = 0

    async def flow(self, flow: Flow) -> None:
        """Runs a flow, and those it goes to, to the end. Raises Hangup when the call ends before."""
        now: Flow | None = flow
        while now is not None:
            try:
                await self.subflow(now)
                now = None
            except _Goto as goto:
                now = self.plan.flows[goto.flow]

    async def subflow(self, flow: Flow) -> None:
        """Runs a flow as a piece of the present one; when it goes elsewhere, the present one is over as well."""
        self.call.note("flow", flow=flow.name)
        await self.steps(flow.steps)

    async def steps(self, steps: Iterable[Step]) -> None:
        for step in steps:
            await self._step(step)

    def goto(self, flow: str) -> NoReturn:
        """Leaves the present flow, and those that called it, for another one, by name."""
        raise _Goto(flow)

    async def _step(self, step: Step) -> None:
        await self._not_runaway(step)
        self.call.note("step", step=step.word, where=str(step.where))
        loop = asyncio.get_running_loop()
        start = loop.time()
        try:
            if step.answers:
                await self.call.answer()
            await step.run(self)
        finally:
            took = loop.time() - start
            metrics.step_seconds.labels(step.word).observe(took)
            if took >= _INSTANT:
                self._at_once = 0

    async def _not_runaway(self, step: Step) -> None:
        """Ends a call that runs in circles: the check of the plan cannot see every one."""
        self._at_once += 1
        if self._at_once > MOST_STEPS_AT_ONCE:
            log.error("call %s: %d steps without any wait, up to %s", self.call.id, MOST_STEPS_AT_ONCE, step.where)
            self.call.note("runaway", where=str(step.where), steps=MOST_STEPS_AT_ONCE)
            await self.call.hangup(Cause.TEMPORARY_FAILURE)

    async def refuse(self, refusal: Refused) -> None:
        """Tells the caller why a policy forbids what he wants, and ends the call; always raises Hangup."""
        words = refusal.announcement
        await self.play(spoken(words.fr, words.en))
        await self.call.reject(refusal.cause)

    # -- recordings and messages --------------------------------------------------------------

    def new_recording(self) -> str:
        """A name that no other recording has."""
        self._recordings += 1
        return f"{self.call.id}.r{self._recordings}"

    async def light_lamps(self, box: str) -> None:
        """Brings the message lamps of everybody who has this box up to date; without the database they stay."""
        store, plan = self.services.store, self.plan
        try:
            for line in plan.lines_of(box):
                messages = [m for name in plan.boxes_of(line) for m in await store.messages(plan.tenant, name)]
                heard = [message.heard_at is not None for message in messages]
                await self.services.lamp(plan.identity(line), heard.count(False), heard.count(True))
        except StoreError as error:
            log.warning("call %s: the lamps of box %s stay as they were: %s", self.call.id, box, error)

    # -- what is heard ------------------------------------------------------------------------

    async def sounds(self, prompt: Prompt) -> list[str]:
        """A prompt as media URIs, in the language of the call. What cannot be spoken is left out, and noted."""
        media: list[str] = []
        for utterance in prompt:
            try:
                media += await self._media(utterance)
            except speech.SpeechError as error:
                self.call.note("not_spoken", where=str(utterance.where), error=str(error))
                log.error("call %s: %s: %s", self.call.id, utterance.where, error)
        return media

    async def _media(self, utterance: Utterance) -> list[str]:
        language = utterance.language or self.language
        if utterance.say is not None:
            text = in_language(utterance.say, language).fill(self.variables)
            return [await self.call.sound(text, language)] if text.strip() else []
        if utterance.play is not None:
            return [self._file(in_language(utterance.play, language))]
        if utterance.digits is not None:
            return speech.digits(utterance.digits.fill(self.variables), language)
        recording = self.variables.get(utterance.recording or "")
        return [f"recording:{recording}"] if recording else []

    def _file(self, sound: Sound) -> str:
        # Asterisk takes the name without the extension, and picks the format that suits the call.
        return f"sound:{(self.plan.folder / sound).with_suffix('')}" if sound.is_file else f"sound:{sound}"

    async def play(self, prompt: Prompt) -> None:
        """Lets the caller hear a prompt to its end."""
        await self.call.play(await self.sounds(prompt))

    @property
    def language(self) -> Language:
        return next((known for known in LANGUAGES if known == self.call.language), self.plan.language)

    def speak(self, language: Language) -> None:
        """From now on the caller hears this language."""
        self.call.language = self.variables["language"] = language


_WRONG = spoken("Ce choix n'est pas possible.", "That is not a valid choice.")


class Question(Step):
    """What steps that ask for digits have in common."""

    takes_time = True

    prompt: Prompt = Field(description="What the caller hears; the first key cuts it short")
    tries: int = Field(3, ge=1, le=10, description="How often it is asked")
    wait: Milliseconds = Field(5_000, ge=500, le=60_000, description="For the first key, from the end of the prompt")
    between: Milliseconds = Field(2_500, ge=500, le=30_000, description="From one key to the next")
    timeout: Prompt | None = Field(None, description="Said when nothing was typed, before the prompt comes again")
    invalid: Prompt | None = Field(None, description="Said after something wrong, instead of the standard sentence")
    otherwise: Steps | None = Field(None, description="When no try was good; without it, the flow goes on")

    @property
    def answers(self) -> bool:
        return True

    @property
    def exhaustive(self) -> bool:
        return self.otherwise is not None

    async def ask(
        self, run: Run, *, good: Callable[[str], bool], most: int, terminator: str,
        complete: Callable[[str], bool] | None = None,
    ) -> str | None:
        """The digits of the first good try, or None when all tries were bad."""
        complaint: Prompt = ()
        for _ in range(self.tries):
            asked = await run.call.ask(
                await run.sounds((*complaint, *self.prompt)), max_digits=most, first_ms=self.wait,
                between_ms=self.between, terminator=terminator, complete=complete,
            )
            run.call.note("typed", step=self.word, digits=self.shown(asked.digits), reason=asked.reason)
            if good(asked.digits):
                return asked.digits
            complaint = (self.invalid or _WRONG) if asked.digits else self.timeout or ()
        await run.play(complaint)
        return None

    def shown(self, digits: str) -> str:
        """The digits as the timeline shows them."""
        return digits
