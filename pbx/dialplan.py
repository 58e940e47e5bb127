"""A tenant's plan: compiled from its file, checked as a whole, immutable; and all plans, by who calls or is called."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

from pbx import numbers
from pbx.dial import CallerId
from pbx.dial import Destination
from pbx.emergency import Emergency
from pbx.emergency import Tables
from pbx.hours import Timetable
from pbx.links import Installation
from pbx.links import PlanFile
from pbx.links import problems_in
from pbx.links import texts_in
from pbx.prompt import Language
from pbx.prompt import Prompt
from pbx.prompt import spoken
from pbx.step import Flow
from pbx.step import Step
from pbx.step import Steps
from pbx.step import built
from pbx.steps import STEPS
from pbx.steps.dial import Dial
from pbx.steps.messages import Messages
from pbx.steps.reject import Reject
from pbx.steps.say import Say
from pbx.steps.voicemail import Voicemail
from pbx.tenant import Answers
from pbx.tenant import Box
from pbx.tenant import Group
from pbx.tenant import Line
from pbx.tenant import LineRef
from pbx.tenant import Site
from pbx.yamlfile import Problem
from pbx.yamlfile import Problems
from pbx.yamlfile import Where
from pbx.yamlfile import parse
from pbx.yamlfile import understand
from pbx.yamltree import MAX_BYTES
from pbx.yamltree import Mapping as YamlMapping
from pbx.yamltree import Sequence as YamlSequence
from pbx.yamltree import read_tree

MESSAGES_CODE = "*98"

_BUSY = spoken("Votre correspondant est en ligne.", "The person you are calling is busy.")
_NO_ANSWER = spoken("Votre correspondant ne répond pas.", "There is no answer.")
_UNREACHABLE = spoken("Votre correspondant n'est pas joignable.", "The person you are calling cannot be reached.")
_UNKNOWN = spoken("Le numéro que vous avez composé n'est pas attribué.", "The number you have dialled is not in use.")
_NO_TRUNK = spoken("Les appels vers l'extérieur ne sont pas possibles.", "Outside calls are not possible.")


@dataclass(frozen=True, slots=True)
class Route:
    """What happens to a dialled number. `outbound` says that the call leaves the tenant."""

    flow: Flow
    outbound: bool = False


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Plan:
    """One tenant's plan, as it was when it was loaded. Calls keep the plan they began with.

    `version` is a hash of the file, `folder` where its sounds are; lines, groups, hours, boxes and flows are by name.
    `answers` says who answers a number, in E.164 or short. `trunk` takes outside calls, or is None.
    `national` has the country of each trunk that takes national numbers instead of E.164.
    `texts` are those that can be spoken in advance, with their languages.
    """

    tenant: str
    version: str
    where: Where
    folder: Path
    contract: str | None
    country: str
    zone: ZoneInfo
    languages: tuple[Language, ...]
    sites: Mapping[str, Site]
    lines: Mapping[str, Line]
    groups: Mapping[str, Group]
    hours: Mapping[str, Timetable]
    boxes: Mapping[str, Box]
    flows: Mapping[str, Flow]
    answers: Mapping[str, Answers]
    trunk: str | None
    national: Mapping[str, str]
    emergencies: Tables
    box_lines: Mapping[str, Sequence[Line]]
    line_boxes: Mapping[str, Sequence[str]]
    texts: tuple[tuple[str, Language], ...]
    warnings: tuple[Problem, ...]

    def __repr__(self) -> str:
        return f"Plan({self.tenant} {self.version})"

    @property
    def language(self) -> Language:
        """What callers hear until another language is set."""
        return self.languages[0]

    def identity(self, line: Line) -> str:
        """The line's name in SIP: endpoint, user and mailbox, such as "acme-101"."""
        return f"{self.tenant}-{line.id}"

    def site_of(self, line: Line) -> Site:
        """The line's own site, or the only one; for a plan without sites one that is empty."""
        if line.site is not None:
            return self.sites[line.site]
        return next(iter(self.sites.values()), _NO_SITE)

    # -- voicemail boxes ------------------------------------------------------------------------

    def box_of(self, line: Line) -> str | None:
        """The box that a line listens to with *98: its own, or else the first shared one that its lamp shows."""
        return next(iter(self.boxes_of(line)), None)

    def boxes_of(self, line: Line) -> Sequence[str]:
        """The boxes whose messages the lamp of a line shows."""
        return self.line_boxes.get(line.id, ())

    def lines_of(self, box: str) -> Sequence[Line]:
        """The lines whose lamps show a box."""
        return self.box_lines.get(box, ())

    # -- whom to ring ---------------------------------------------------------------------------

    def target(self, written: str, *, outside: bool) -> Line | Group | str | None:
        """Who is meant: a line or a group, by number or name, or an outside number if those are allowed."""
        if written in self.lines:
            return self.lines[written]
        if written in self.groups:
            return self.groups[written]
        answers = self.answers.get(written)
        if answers is not None and answers.line is not None:
            return self.lines[answers.line]
        if answers is not None and answers.group is not None:
            return self.groups[answers.group]
        return written if outside else None

    def handset(self, line: Line) -> Destination:
        return Destination(f"PJSIP/{self.identity(line)}", line.id, line.name)

    def outside(self, number: str, line: Line | None, dialled: str) -> Destination | None:
        """The way to an E.164 number: by the trunk of the line's site or of the tenant; None when there is none.

        A call from outside that is sent on shows the tenant's number that was `dialled`.
        """
        trunk = (self.site_of(line).trunk if line else None) or self.trunk
        if trunk is None:
            return None
        caller = self.caller_id(line) if line else CallerId(dialled if dialled in self.answers else self._main_number())
        country = self.national.get(trunk)
        written = numbers.national(number, country) if country else number
        return Destination(f"PJSIP/{written}@trunk-{trunk}", number, caller=caller, outside=True)

    def caller_id(self, line: Line) -> CallerId:
        """What a line shows to the outside: its own number, or its site's; an empty number is withheld."""
        return CallerId(line.number or self.site_of(line).number or self._main_number(), line.name)

    def shown_in_emergency(self, line: Line | None) -> CallerId:
        """The number at which an emergency service can call back: a caller's own, his site's or the tenant's.

        One that somebody answers, if there is any. `line` is None for a handset that the plan does not know.
        """
        own = (line.number, self.site_of(line).number) if line else ()
        numbers_ = [str(number) for number in (*own, self._main_number(), *self.answers) if number]
        outside = [number for number in numbers_ if number.startswith("+")]
        answered = [number for number in outside if number in self.answers]
        return CallerId(next(iter(answered or outside), ""), line.name if line else "")

    def _main_number(self) -> str:
        return next((str(site.number) for site in self.sites.values() if site.number), "")

    # -- routes ---------------------------------------------------------------------------------

    def emergency(self, line: Line, dialled: str) -> Emergency | None:
        """The emergency that a line dialled, in whatever form; None for any other number."""
        site = self.site_of(line)
        return self.emergencies.classify(dialled, self.country_of(site), site.outside_prefix)

    def country_of(self, site: Site) -> str:
        return str(site.country or self.country)

    def route_from_outside(self, number: str) -> Route | None:
        """Who answers an E.164 number of this tenant; None when nobody does."""
        answers = self.answers.get(number)
        return self._answered_by(answers) if answers is not None and number.startswith("+") else None

    def route_from_line(self, line: Line, dialled: str) -> Route:
        """What a handset reaches with the number it dials, an unknown number included.

        Not for emergency numbers: see `emergency`, which comes first.
        """
        if dialled in self.lines:
            return Route(self._line_rings(self.lines[dialled]))
        if dialled in self.answers:
            return self._answered_by(self.answers[dialled])
        if dialled == MESSAGES_CODE:
            return Route(Flow(MESSAGES_CODE, Steps([built(Messages, line.where)])))
        site = self.site_of(line)
        number = numbers.e164(dialled, site.country or self.country, outside_prefix=site.outside_prefix)
        if number is None:
            return Route(Flow("unknown number", _apology(line.where, _UNKNOWN, "unknown number")))
        if number in self.answers:
            return self._answered_by(self.answers[number])
        return self._goes_out(line, number)

    def _answered_by(self, answers: Answers) -> Route:
        if answers.line is not None:
            return Route(self._line_rings(self.lines[answers.line]))
        if answers.group is not None:
            return Route(self._group_rings(answers))
        assert answers.flow is not None
        return Route(self.flows[answers.flow])

    def _line_rings(self, line: Line) -> Flow:
        if line.voicemail is not None:
            steps = [built(Dial, line.where, to=line.id), built(Voicemail, line.where, box=line.id)]
        else:
            steps = [_dial_or_tell(line.where, line.id)]
        return Flow(f"line {line.id}", Steps(steps))

    def _group_rings(self, answers: Answers) -> Flow:
        return Flow(f"group {answers.group}", Steps([_dial_or_tell(answers.where, str(answers.group))]))

    def _goes_out(self, line: Line, number: str) -> Route:
        if self.outside(number, line, "") is None:
            return Route(Flow("no trunk", _apology(line.where, _NO_TRUNK, "unavailable")), outbound=True)
        dial = built(
            Dial, line.where, to=number, busy=built(Reject, line.where, reason="busy"),
            no_answer=built(Reject, line.where, reason="no answer"),
            unreachable=built(Reject, line.where, reason="unavailable"), **{"for": _OUTSIDE_RING_MS},
        )
        return Route(Flow("outside", Steps([dial])), outbound=True)


_REMEDY = 'write one there, or name another folder with "plans" in config/pbx.yml (docs/plans.md)'
_CONTEXT = {"steps": {step.word: step for step in STEPS}}
_NO_SITE = Site()
_OUTSIDE_RING_MS = 120_000  # the far network gives up before


def _dial_or_tell(where: Where, target: str) -> Step:
    """Rings; when that fails, says why and ends the call with the matching cause."""
    return built(
        Dial, where, to=target, busy=_apology(where, _BUSY, "busy"), no_answer=_apology(where, _NO_ANSWER, "no answer"),
        unreachable=_apology(where, _UNREACHABLE, "unavailable"),
    )


def _apology(where: Where, sentence: Prompt, reason: str) -> Steps:
    """Says a sentence without taking the call, then refuses it: nobody pays to hear that nobody is there."""
    return Steps([built(Say, where, text=sentence[0].say, early=True), built(Reject, where, reason=reason)])


def compile_plan(path: Path | str, installation: Installation = Installation()) -> Plan:
    """The plan in a file. Raises Problems: all that is wrong, warnings included."""
    source = _read(Path(path))
    folder = Path(path).absolute().parent
    try:
        file = parse(source, str(path), PlanFile, context=_CONTEXT)
    except Problems as unread:
        further = _further_problems(source, str(path), folder, installation, unread)
        raise Problems([*unread.problems, *further]) from None
    problems = problems_in(file, folder, installation)
    if any(not problem.warning for problem in problems):
        raise Problems(problems)
    lines = {line.id: line for line in file.lines.values()}
    boxes: dict[str, Box] = {line.id: line.voicemail for line in lines.values() if line.voicemail}
    line_boxes: dict[str, list[str]] = {box: [box] for box in boxes}
    for name, box in file.voicemail.items():
        boxes[name] = box
        for number in box.lines:
            line_boxes.setdefault(number, []).append(name)
    answers: dict[str, Answers] = {line.number: _rings_itself(line) for line in lines.values() if line.number}
    answers |= {number: answer for number, answer in file.numbers.items()}
    return Plan(
        tenant=str(file.tenant),
        version=hashlib.sha256(source).hexdigest()[:12],
        where=file.where,
        folder=folder,
        contract=file.contract,
        country=file.country,
        zone=ZoneInfo(file.timezone),
        languages=file.spoken,
        sites={name: site for name, site in file.sites.items()},
        lines=lines,
        groups={name: group for name, group in file.groups.items()},
        hours={name: hours.timetable() for name, hours in file.hours.items()},
        boxes=boxes,
        flows={name: Flow(name, steps) for name, steps in file.flows.items()},
        answers=answers,
        trunk=file.trunk or installation.only_trunk,
        national=installation.national,
        emergencies=installation.emergency,
        box_lines=_turned(line_boxes, lines),
        line_boxes=line_boxes,
        texts=tuple(dict.fromkeys(texts_in(file))),
        warnings=tuple(problems),
    )


def _further_problems(
    source: bytes, path: str, folder: Path, installation: Installation, unread: Problems
) -> list[Problem]:
    """What is wrong with the rest of a plan, parts of which cannot be read: an admin wants to see it all at once."""
    known = {problem.where for problem in unread.problems}
    try:
        tree, _ = read_tree(source, path)
        _take_out(tree, known)
        file = understand(tree, PlanFile, context={**_CONTEXT, "tolerant": True})
    except Problems:
        return []  # too little is left
    found = problems_in(file, folder, installation)
    return [problem for problem in found if not problem.warning and problem.where not in known]


def _take_out(tree: object, places: Collection[Where]) -> None:
    """Removes the keys at these places, with their values."""
    if isinstance(tree, YamlMapping):
        for key in [key for key in tree if key.where in places]:
            del tree[key]
    for part in tree.values() if isinstance(tree, YamlMapping) else tree if isinstance(tree, YamlSequence) else ():
        _take_out(part, places)


def _rings_itself(line: Line) -> Answers:
    return Answers(line=LineRef(line.id, line.where))


def _turned(line_boxes: Mapping[str, Sequence[str]], lines: Mapping[str, Line]) -> dict[str, list[Line]]:
    """The lines of each box, from the boxes of each line."""
    box_lines: dict[str, list[Line]] = {}
    for line, boxes in line_boxes.items():
        for box in boxes:
            box_lines.setdefault(box, []).append(lines[line])
    return box_lines


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Problems([Problem(Where(str(path), 1, 1), f"cannot be read: {error.strerror}")]) from error


class Plans:
    """The plans of all tenants. Lookups take the same time however many lines and numbers there are."""

    def __init__(self, plans: Iterable[Plan] = ()) -> None:
        """Raises Problems when two plans have the same tenant or answer the same number."""
        self.by_tenant: dict[str, Plan] = {}
        self._lines: dict[str, tuple[Plan, Line]] = {}
        self._numbers: dict[str, Plan] = {}
        problems: list[Problem] = []
        for plan in plans:
            problems += self._add(plan)
        if problems:
            raise Problems(problems)

    def __iter__(self) -> Iterator[Plan]:
        return iter(self.by_tenant.values())

    def line(self, identity: str) -> tuple[Plan, Line] | None:
        """The plan and line of an endpoint such as "acme-101"."""
        return self._lines.get(identity)

    def number(self, number: str) -> tuple[Plan, Route] | None:
        """Whose number this is (in E.164), and what answers it."""
        plan = self._numbers.get(number)
        route = plan.route_from_outside(number) if plan else None
        return (plan, route) if plan and route else None

    def _add(self, plan: Plan) -> Iterable[Problem]:
        other = self.by_tenant.get(plan.tenant)
        if other is not None:
            yield Problem(plan.where, f'tenant "{plan.tenant}" is already in {other.where.file}: rename one of them')
            return
        self.by_tenant[plan.tenant] = plan
        for line in plan.lines.values():
            self._lines[plan.identity(line)] = plan, line
        for number, answers in plan.answers.items():
            first = self._numbers.setdefault(number, plan) if number.startswith("+") else plan
            if first is not plan:
                place = getattr(number, "where", answers.where)
                yield Problem(place, f'{number} is already a number of tenant "{first.tenant}" ({first.where.file})')


def load_plans(folder: Path | str, installation: Installation = Installation()) -> Plans:
    """The plans of all files NAME.yml (or .yaml) in a folder. Raises Problems: all that is wrong in any of them."""
    plans, problems = _compile_all(plan_files(folder), installation)
    if any(not problem.warning for problem in problems):
        raise Problems(problems)
    return Plans(plans)


def check(paths: Iterable[Path | str], installation: Installation = Installation()) -> list[Problem]:
    """All problems, warnings included, of these files and of all plans in these folders, sorted by place."""
    files = [file for path in paths for file in (plan_files(path) if Path(path).is_dir() else [Path(path)])]
    plans, problems = _compile_all(dict.fromkeys(files), installation)
    try:
        Plans(plans)
    except Problems as error:
        problems += error.problems
    return sorted(set(problems))


def plan_files(folder: Path | str) -> list[Path]:
    """The plans of a folder; NAME.test.yml are scenarios of NAME.yml. Raises Problems when it has none."""
    try:
        files = sorted(path for path in Path(folder).iterdir() if path.suffix in (".yml", ".yaml"))
    except OSError as error:
        raise Problems([Problem(Where(str(folder), 1, 1), f"cannot be read: {error.strerror}; {_REMEDY}")]) from error
    files = [path for path in files if not path.stem.endswith(".test") and not path.name.startswith(".")]
    if not files:
        raise Problems([Problem(Where(str(folder), 1, 1), f"no plan (NAME.yml) is in this folder: {_REMEDY}")])
    return files


def _compile_all(files: Iterable[Path], installation: Installation) -> tuple[list[Plan], list[Problem]]:
    plans: list[Plan] = []
    problems: list[Problem] = []
    for file in files:
        try:
            plan = compile_plan(file, installation)
        except Problems as error:
            problems += error.problems
        else:
            plans.append(plan)
            problems += plan.warnings
    return plans, problems
