"""The check of a plan as a whole: what each part says of the others, and what no single value can show."""

from __future__ import annotations

import wave
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any
from typing import cast

from pydantic import Field

from pbx import numbers
from pbx.emergency import Tables
from pbx.emergency import packaged_tables
from pbx.expression import GIVEN
from pbx.expression import Condition
from pbx.expression import Template
from pbx.expression import Variable
from pbx.prompt import Language
from pbx.prompt import Sound
from pbx.prompt import Speech
from pbx.prompt import Translated
from pbx.speech import MAX_TEXT
from pbx.step import Step
from pbx.step import Steps
from pbx.step import Unreadable
from pbx.step import parts
from pbx.tenant import Name
from pbx.tenant import OutsideNumber
from pbx.tenant import Reference
from pbx.tenant import Target
from pbx.tenant import Tenant
from pbx.yamlfile import Model
from pbx.yamlfile import Problem
from pbx.yamlfile import Text
from pbx.yamlfile import suggest

_SOUND_SUFFIXES = (".wav", ".g722", ".alaw", ".ulaw", ".gsm", ".sln", ".sln16")


class PlanFile(Tenant):
    """A tenant and its flows: all that a plan file says."""

    flows: dict[Name, Steps] = Field({}, description="What happens to calls, step by step, by name")


@dataclass(frozen=True, slots=True)
class Installation:
    """What a plan may count on, by name; None: not known, so not checked."""

    trunks: Collection[str] | None = None
    contracts: Collection[str] | None = None
    sounds: Collection[str] | None = None  # Asterisk's own
    # The trunks that take national numbers, with their country; all others take E.164.
    national: Mapping[str, str] = field(default_factory=dict)
    emergency: Tables = field(default_factory=packaged_tables)

    @property
    def only_trunk(self) -> str | None:
        """The one trunk that need not be named."""
        return next(iter(self.trunks)) if self.trunks and len(self.trunks) == 1 else None


def problems_in(file: PlanFile, folder: Path, installation: Installation) -> list[Problem]:
    """All that is wrong with a plan that reads well in itself, sorted by place; `folder` is where its sounds are."""
    check = _Check(file, folder, installation)
    return sorted(set(check.run()))


def all_steps(steps: Steps) -> Iterator[Step]:
    """Every step of a flow, with those inside other steps."""
    for step in steps:
        yield step
        for branch in step.branches:
            yield from all_steps(branch)


def texts_in(file: PlanFile) -> Iterator[tuple[str, Language]]:
    """Every text of a plan that can be spoken before a call needs it, with its language."""
    steps = (step for flow in file.flows.values() for step in all_steps(flow))
    for model in (part for whole in (file, *steps) for part in parts(whole) if isinstance(part, Model)):
        for name, value in model.__dict__.items():
            if isinstance(value, Speech) and not value.names:
                own = cast(Language, name) if isinstance(model, Translated) else getattr(model, "language", None)
                for language in (own,) if own else file.spoken:
                    yield value.fill({}), language


class _Check:
    def __init__(self, file: PlanFile, folder: Path, installation: Installation) -> None:
        self._file = file
        self._folder = folder
        self._installation = installation
        self._steps = {str(name): list(all_steps(steps)) for name, steps in file.flows.items()}
        everywhere = [part for model in [file, *self._all_steps()] for part in parts(model)]
        self._models = [part for part in everywhere if isinstance(part, Model)]
        self._texts = [part for part in everywhere if isinstance(part, Text)]
        self._variables = set(GIVEN).union(*(step.sets for step in self._all_steps()))
        boxes = [number for number, line in file.lines.items() if line.voicemail]
        # The kinds of references: what each may name, and how a list of these is called.
        self._names: dict[str, tuple[Collection[str] | None, str]] = {
            "line": (file.lines, "lines"),
            "group": (file.groups, "groups"),
            "site": (file.sites, "sites"),
            "hours": (file.hours, "hours"),
            "flow": (file.flows, "flows"),
            "box": ([*file.voicemail, *boxes], "boxes"),
            "trunk": (installation.trunks, "trunks"),
        }

    def _all_steps(self) -> Iterator[Step]:
        return (step for steps in self._steps.values() for step in steps)

    def run(self) -> Iterator[Problem]:
        yield from self._contract()
        yield from self._sites()
        yield from self._trunk()
        yield from self._references()
        yield from self._targets()
        yield from self._unset_variables()
        yield from self._languages()
        yield from self._sounds()
        yield from self._outside_numbers()
        yield from self._short_numbers()
        yield from self._unanswered_numbers()
        yield from _Paths(self._file, self._steps).problems()

    def _contract(self) -> Iterator[Problem]:
        contract, known = self._file.contract, self._installation.contracts
        if contract is not None and known is not None and contract not in known:
            yield Problem(contract.where, f'no contract "{contract}" {suggest(contract, known, "contracts")}')

    def _sites(self) -> Iterator[Problem]:
        sites = self._file.sites
        if len(sites) < 2:
            return
        for number, line in self._file.lines.items():
            if line.site is None:
                yield Problem(number.where, f'line "{number}" needs a "site" {suggest("", sites, "sites")}')

    def _trunk(self) -> Iterator[Problem]:
        """Where several trunks are, nobody guesses which one a tenant pays for."""
        trunks = self._installation.trunks or ()
        sites = self._file.sites.values()
        if len(trunks) > 1 and self._file.trunk is None and not (sites and all(site.trunk for site in sites)):
            remedy = f"name one, trunk: {min(trunks)} ({suggest('', trunks, 'trunks').strip('()')})"
            yield Problem(self._file.tenant.where, f"no trunk, so no handset can call outside: {remedy}", warning=True)

    def _references(self) -> Iterator[Problem]:
        for text in self._texts:
            if isinstance(text, Reference):
                names, many = self._names[text.kind]
                if names is None or text in names:
                    continue
                if text.kind == "box" and text in self._file.lines:
                    remedy = 'give it one, voicemail: {pin: "..."}'
                    yield Problem(text.where, f'line "{text}" has no voicemail: {remedy}')
                else:
                    yield Problem(text.where, f'no {text.kind} "{text}" {_similar(text, names, many)}')

    def _targets(self) -> Iterator[Problem]:
        file = self._file
        short = [number for number, answers in file.numbers.items() if not number.startswith("+") and not answers.flow]
        names = [*file.lines, *file.groups, *short]
        for text in self._texts:
            if not isinstance(text, Target) or text.names or text in names:
                continue
            if text.startswith("+"):
                yield from self._number(text)
            elif numbers.e164(text, file.country):
                yield Problem(text.where, f'write an outside number in full: "{numbers.e164(text, file.country)}"')
            else:
                yield Problem(text.where, f'no line or group "{text}" {_similar(text, names, "lines and groups")}')

    def _unset_variables(self) -> Iterator[Problem]:
        if any(isinstance(step, Unreadable) for step in self._all_steps()):
            return  # it may have set them
        for text in self._texts:
            if isinstance(text, Variable | Template | Condition):
                for name in text.names:
                    if name not in self._variables:
                        remedy = suggest(name, self._variables, "variables")
                        yield Problem(text.where, f'the variable "{name}" is never set {remedy}')

    # -- what is heard --------------------------------------------------------------------------

    def _languages(self) -> Iterator[Problem]:
        """Every text must be there in each language of the plan, unless it says in which single one it is spoken."""
        spoken = self._file.spoken
        for model in self._models:
            if isinstance(model, Translated):
                yield from self._translations(model)
            elif len(spoken) > 1 and getattr(model, "language", None) is None:
                for text in model.__dict__.values():
                    if isinstance(text, Speech) and any(part.isalpha() for part in text.fill({})):
                        wanted = ", ".join(f"{language}: ..." for language in spoken)
                        yield Problem(text.where, f"the plan has several languages: write {{{wanted}}} here")
        for text in self._texts:
            if isinstance(text, Speech) and len(text) > MAX_TEXT:
                yield Problem(text.where, f"too long: {len(text)} signs, and at most {MAX_TEXT} can be spoken at once")

    def _translations(self, words: Translated[Any]) -> Iterator[Problem]:
        spoken = self._file.spoken
        for language in spoken:
            if language not in words.languages:
                yield Problem(words.where, f'the language "{language}" is missing here: write "{language}: ..." too')
        for language in words.languages:
            if language not in spoken:
                remedy = f'remove it, or write "languages: [{", ".join(spoken)}, {language}]" above'
                yield Problem(getattr(words, language).where, f'the plan does not speak "{language}": {remedy}')

    def _sounds(self) -> Iterator[Problem]:
        for text in self._texts:
            if isinstance(text, Sound):
                message = self._wrong_file(text) if text.is_file else self._wrong_name(text)
                if message:
                    yield Problem(text.where, message)

    def _wrong_name(self, sound: Sound) -> str:
        known = self._installation.sounds
        if known is None or sound in known:
            return ""
        return f'Asterisk has no sound "{sound}" {suggest(sound, known, "sounds")}; a file of yours has an extension'

    def _wrong_file(self, sound: Sound) -> str:
        path = self._folder / sound
        if path.suffix not in _SOUND_SUFFIXES:
            return f'"{sound}": Asterisk does not play "{path.suffix}" files (but {", ".join(_SOUND_SUFFIXES)})'
        if not path.is_file():
            near = sorted(str(other.relative_to(self._folder)) for other in path.parent.glob("*") if other.is_file())
            return f'no sound file "{sound}" beside this plan {suggest(sound, near, "files")}'
        return _wrong_wav(path) if path.suffix == ".wav" else ""

    # -- numbers --------------------------------------------------------------------------------

    def _number(self, number: Text) -> Iterator[Problem]:
        country = self._file.country
        right = numbers.e164(number, country)
        if right is None:
            yield Problem(number.where, f'"{number}" is no telephone number that can exist: check its digits')
        elif right != number:
            yield Problem(number.where, f'"{number}": write "{right}"')

    def _outside_numbers(self) -> Iterator[Problem]:
        dialled = [number for number in self._file.numbers if number.startswith("+")]
        for number in [*dialled, *(text for text in self._texts if isinstance(text, OutsideNumber))]:
            yield from self._number(number)
        owners: dict[str, Text] = {}
        for id, line in self._file.lines.items():
            if line.number is None or line.number in self._file.numbers:
                continue
            first = owners.setdefault(line.number, id)
            if first is not id:
                yield Problem(
                    line.number.where,
                    f'{line.number} is already the number of line "{first}" (line {first.where.line}): '
                    'say under "numbers" who answers it',
                )

    def _short_numbers(self) -> Iterator[Problem]:
        """A short number must not hide an emergency number, nor another short one."""
        file = self._file
        places = {(site.country or file.country, site.outside_prefix) for site in file.sites.values()}
        places = places or {(file.country, None)}
        short = [*file.lines, *(number for number in file.numbers if not number.startswith("+"))]
        for number in short:
            for country, prefix in sorted(places, key=str):
                found = self._installation.emergency.classify(number, country, prefix)
                if found:
                    hidden = found.number
                    what = "is an emergency number" if hidden == number else f"reaches the emergency number {hidden}"
                    yield Problem(number.where, f'"{number}" {what} in {country}: choose another')
                    break
                if prefix and number.startswith(prefix):
                    message = f'"{number}" begins with the outside prefix {prefix}, and hides outside numbers'
                    yield Problem(number.where, message, warning=True)
                    break
        for number in file.numbers:
            if number in file.lines:
                first = next(line for line in file.lines if line == number)
                message = f'"{number}" is already a handset (line {first.where.line} of this file): choose another'
                yield Problem(number.where, message)

    def _unanswered_numbers(self) -> Iterator[Problem]:
        own = {line.number for line in self._file.lines.values()}
        for site in self._file.sites.values():
            if site.number is not None and site.number not in self._file.numbers and site.number not in own:
                message = f'nobody answers {site.number}: say under "numbers" which flow does'
                yield Problem(site.number.where, message, warning=True)


def _similar(name: str, names: Collection[str], many: str) -> str:
    """The remedy for a name that is not there. One number is as good a guess as another, so numbers are listed."""
    return suggest("" if name.isdecimal() else name, names, many)


def _wrong_wav(path: Path) -> str:
    """What keeps Asterisk from playing a WAV file: it takes one form only, and fails in the middle of a call."""
    try:
        with wave.open(str(path), "rb") as sound:
            form = (sound.getframerate(), sound.getnchannels(), sound.getsampwidth() * 8)
    except (wave.Error, EOFError, OSError) as error:
        return f'"{path.name}" is no WAV file that can be read ({error})'
    if form == (8000, 1, 16):
        return ""
    rate, channels, bits = form
    return (
        f'"{path.name}" has {rate} Hz, {channels} channel(s), {bits} bit, and Asterisk plays 8000 Hz, 1, 16: '
        f"sox {path.name} -r 8000 -c 1 -b 16 new.wav"
    )


class _Paths:
    """How calls go from flow to flow: circles, flows that call themselves, and what is never reached."""

    def __init__(self, file: PlanFile, steps: Mapping[str, list[Step]]) -> None:
        self._file = file
        self._steps = steps

    def problems(self) -> Iterator[Problem]:
        yield from self._circles()
        yield from self._recursion()
        yield from self._never_reached()
        yield from self._never_used()

    def _circles(self) -> Iterator[Problem]:
        """Circles of flows in which no step takes time: a call would turn in them at full speed."""
        edges = {}
        for name, steps in self._file.flows.items():
            leading, _ = _at_once(steps)
            edges[str(name)] = {str(step.leads_to): step for step in leading}
        for step, circle in _circles(edges):
            remedy = "put a step into it that takes time, such as say or wait"
            yield Problem(step.where, f'a circle without any wait, {" -> ".join(circle)}: {remedy}')

    def _recursion(self) -> Iterator[Problem]:
        """Flows that call themselves would wait for one another, ever deeper; a `goto` leaves nothing behind."""
        edges: dict[str, dict[str, Step]] = {
            name: {str(step.leads_to): step for step in steps if step.leads_to and step.goes_on}
            for name, steps in self._steps.items()
        }
        for step, circle in _circles(edges):
            remedy = 'use "goto" here'
            yield Problem(step.where, f'a flow that calls itself never ends, {" -> ".join(circle)}: {remedy}')

    def _never_reached(self) -> Iterator[Problem]:
        for steps in self._file.flows.values():
            for block in [steps, *(branch for step in all_steps(steps) for branch in step.branches)]:
                for step, following in zip(block, block[1:]):
                    if not step.goes_on:
                        message = f'"{following.word}" is never reached: nothing comes after "{step.word}" here'
                        yield Problem(following.where, message, warning=True)
                        break

    def _never_used(self) -> Iterator[Problem]:
        used = {str(answers.flow) for answers in self._file.numbers.values()}
        waiting = list(used)
        while waiting:
            for step in self._steps.get(waiting.pop(), ()):
                if step.leads_to and step.leads_to not in used:
                    used.add(str(step.leads_to))
                    waiting.append(str(step.leads_to))
        for name in self._file.flows:
            if name not in used:
                message = f'the flow "{name}" is never used: give it a number, or a "goto" or "call" that leads to it'
                yield Problem(name.where, message, warning=True)


def _at_once(steps: Iterable[Step]) -> tuple[list[Step], bool]:
    """The steps that lead to another flow before any time passes, and whether the end is reached so, too."""
    leading: list[Step] = []
    for step in steps:
        if step.leads_to:
            leading.append(step)
        if step.takes_time:
            return leading, False
        branches = [_at_once(branch) for branch in step.branches]
        leading += [inner for found, _ in branches for inner in found]
        through = any(passed for _, passed in branches) if step.exhaustive else step.goes_on
        if not through:
            return leading, False
    return leading, True


def _circles(edges: Mapping[str, Mapping[str, Step]]) -> Iterator[tuple[Step, list[str]]]:
    """One circle for each step that closes one, as [a, b, a]; the step is the first on the way, that of a."""
    done: set[str] = set()
    for start in edges:
        path = [] if start in done else [start]
        waiting = [iter(edges[name]) for name in path]
        while path:
            following = next(waiting[-1], None)
            if following is None:
                done.add(path.pop())
                waiting.pop()
            elif following in path:
                circle = [*path[path.index(following):], following]
                yield edges[circle[0]][circle[1]], circle
            elif following not in done and following in edges:
                path.append(following)
                waiting.append(iter(edges[following]))
