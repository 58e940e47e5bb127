"""The gate that every leg passes before it is made, and all that a policy needs: plugins import this module alone.

A policy is a class with hooks, found by its entry point in the group `pbx.policies` and named by the rules of a
contract. Every tenant has an object of its own of it, which sees the legs of that tenant only:

    class NoPremium(Policy[Settings]):
        settings = Settings                        # a Model of what the contract tells it: checked before any call

        async def admit(self, request: LegRequest) -> LegRequest:
            if request.outside and request.target.startswith(self.terms.settings.premium_prefix):
                raise self.refusal("premium_prefix")       # by the clause that this setting comes from
            return request

Its public methods are hooks; helpers of its own begin with an underscore. Emergency calls never come here.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from datetime import datetime
from importlib.metadata import EntryPoint
from importlib.metadata import entry_points
from typing import Any
from typing import ClassVar
from typing import Final
from typing import Generic
from typing import Protocol
from typing import TypeVar
from typing import cast
from zoneinfo import ZoneInfo

from pbx import metrics
from pbx.clock import Clock
from pbx.contract import POLICIES
from pbx.contract import Profile
from pbx.contract import Rule
from pbx.dial import CallerId
from pbx.leg import Cause
from pbx.store import AnyStore
from pbx.store import StoreError
from pbx.yamlfile import Milliseconds
from pbx.yamlfile import Model
from pbx.yamlfile import Problem
from pbx.yamlfile import Problems
from pbx.yamlfile import Text
from pbx.yamlfile import Where
from pbx.yamlfile import suggest
from pbx.yamlfile import understand

__all__ = [
    "Announcement", "AnyStore", "CallerId", "Cause", "Clause", "Clock", "Gate", "LegRequest", "LiveLeg", "Milliseconds",
    "Model", "Policy", "Refused", "StoreError", "Tenant", "Terms", "Text",
]

log = logging.getLogger(__name__)

GROUP = "pbx.policies"
DEADLINE_MS = 50
FAILED = "engine:policy-failed"  # the clause of a refusal that no contract asked for


@dataclass(frozen=True, slots=True)
class Announcement:
    """A sentence in both languages that callers hear."""

    fr: str
    en: str

    def spoken(self, language: str) -> str:
        return self.fr if language == "fr" else self.en


_FORBIDDEN = Announcement(
    "Votre contrat ne permet pas cet appel.",
    "Your contract does not allow this call.",
)
_CANNOT_BE_CHECKED = Announcement(
    "Cet appel ne peut pas être établi pour le moment. Veuillez réessayer dans quelques minutes.",
    "This call cannot be connected at the moment. Please try again in a few minutes.",
)


@dataclass(frozen=True, slots=True)
class LegRequest:
    """A leg that is about to be made.

    `line` is the number of the line on whose behalf it goes out, or "" when that is the tenant itself, as for a call
    from outside that is sent on. `target` is an E.164 number when `outside`, else a line. `at` is in UTC. `max_ms`
    limits the talk from its answer; a policy may set it, or lower it.
    """

    leg_id: str
    call_id: str
    tenant: str
    line: str
    direction: str
    target: str
    outside: bool
    caller: CallerId
    at: datetime
    reason: str = "dial"
    max_ms: int | None = None


class Refused(Exception):
    """A leg is not made: which clause forbids it, what the caller hears, and the Q.850 cause his network is told."""

    def __init__(self, policy: str, clause: str, announcement: Announcement, cause: int) -> None:
        super().__init__(f"{policy}: {clause}")
        self.policy = policy
        self.clause = clause
        self.announcement = announcement
        self.cause = cause


class LiveLeg(Protocol):
    """A leg that talks, for the policies that admitted it. Nothing here waits, or fails."""

    @property
    def request(self) -> LegRequest:
        """As it was when the gate let it pass."""

    @property
    def answered_at(self) -> datetime: ...

    @property
    def ended_at(self) -> datetime | None:
        """None while it talks."""

    def end_at(
        self, when: datetime | None, *, clause: str, warnings: Mapping[int, Announcement] | None = None
    ) -> None:
        """The talk ends then, whatever becomes of the engine; a later word under the same clause replaces this one.

        Of several clauses the earliest moment counts; None lifts the limit of this one. `warnings` are spoken to the
        caller, each so many milliseconds before the end.
        """

    def warn(self, words: Announcement) -> None:
        """Speaks to the caller, and to nobody else, while the conversation goes on."""

    def hang_up(self, cause: int, *, clause: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whom a policy serves."""

    name: str
    zone: ZoneInfo
    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class Clause:
    """What a decision is founded on: the id of the rule, the place in the contract, and what callers hear of it."""

    rule: str
    place: str
    announcement: Announcement | None = None

    def __str__(self) -> str:
        return f"{self.rule}, {self.place}"


S = TypeVar("S", bound=Model)


@dataclass(frozen=True, slots=True)
class Terms(Generic[S]):
    """All that a policy is told about its work. `clauses` says where each setting comes from, by its key."""

    policy: str
    tenant: Tenant
    contract: str
    settings: S
    clauses: Mapping[str, Clause]
    store: AnyStore
    clock: Clock


class Policy(Generic[S]):
    """What policies have in common; every hook may be left as it is.

    Each leg that `admit` lets pass ends in one of two ways: it is `dropped`, or it is `answered` and later `ended`.
    All but `open`, `close` and `admit` are notices and must not wait.
    """

    settings: ClassVar[type[Model]] = Model

    def __init__(self, terms: Terms[S]) -> None:
        self.terms = terms

    async def open(self) -> None:
        """Before the first call: the store can be read."""

    async def close(self) -> None:
        """After the last call."""

    async def admit(self, request: LegRequest) -> LegRequest:
        """Gives the request back as it is, or with another caller or a lower `max_ms`; raises Refused to forbid it.

        It may wait for the deadline at most; a request that is cancelled, or admitted too late, was not admitted.
        """
        return request

    def dropped(self, request: LegRequest) -> None:
        """The leg was not made, or nobody answered it."""

    def answered(self, leg: LiveLeg) -> None:
        """The leg talks from now on."""

    def ended(self, leg: LiveLeg) -> None:
        """The leg talks no more."""

    def refusal(
        self, setting: str, *, cause: int = Cause.REJECTED, announcement: Announcement | None = None
    ) -> Refused:
        """What `admit` raises, by the clause of a setting; callers hear its announcement, unless another is given."""
        clause = self.terms.clauses[setting]
        words = announcement or clause.announcement or _FORBIDDEN
        return Refused(self.terms.policy, str(clause), words, cause)


_HOOKS: Final = ("open", "close", "admit", "dropped", "answered", "ended")
Kind = type[Policy[Any]]
Note = Callable[..., None]


class Admitted:
    """A leg that may be made; its policies hear through this what becomes of it."""

    def __init__(self, request: LegRequest, policies: Sequence[Policy[Any]]) -> None:
        self.request = request
        self._policies = policies

    def __bool__(self) -> bool:
        """False when nobody wants to know."""
        return bool(self._policies)

    def dropped(self) -> None:
        for policy in self._policies:
            _tell(policy, policy.dropped, self.request)

    def answered(self, leg: LiveLeg) -> None:
        for policy in self._policies:
            _tell(policy, policy.answered, leg)

    def ended(self, leg: LiveLeg) -> None:
        for policy in self._policies:
            _tell(policy, policy.ended, leg)


class Gate:
    """The policies of every tenant, in the order of its contract; without any, every leg passes."""

    def __init__(
        self, policies: Mapping[str, Sequence[Policy[Any]]] | None = None, *, deadline_ms: int = DEADLINE_MS
    ) -> None:
        self._policies = policies or {}
        self._deadline_ms = deadline_ms

    @property
    def announcements(self) -> Iterable[Announcement]:
        """What may have to be said, so that it can be spoken into files before."""
        for policies in self._policies.values():
            yield from (_CANNOT_BE_CHECKED, _FORBIDDEN)
            clauses = (clause for policy in policies for clause in policy.terms.clauses.values())
            yield from (clause.announcement for clause in clauses if clause.announcement)

    async def open(self) -> None:
        """Lets every policy read what it needs. Raises StoreError, and whatever else a policy cannot start without."""
        for policy in self._every():
            await policy.open()

    async def close(self) -> None:
        for policy in self._every():
            try:
                await policy.close()
            except Exception:
                log.exception("policy %s of %s could not be closed", policy.terms.policy, policy.terms.tenant.name)

    async def admit(self, request: LegRequest, note: Note) -> Admitted:
        """Asks the tenant's policies one after another. `note` writes their decisions into the call's timeline.

        Raises Refused with the word of the first that forbids the leg. One that fails, or does not answer before the
        deadline, forbids it too: a contract that cannot be checked is not kept.
        """
        asked: list[Policy[Any]] = []
        try:
            for policy in self._policies.get(request.tenant, ()):
                request = await self._ask(policy, request, note)
                asked.append(policy)
        except BaseException:
            Admitted(request, asked).dropped()
            raise
        if asked:
            by = [policy.terms.policy for policy in asked]
            note("policy", verdict="admitted", target=request.target, by=by, max_ms=request.max_ms)
        return Admitted(request, asked)

    def _every(self) -> Iterable[Policy[Any]]:
        return (policy for policies in self._policies.values() for policy in policies)

    async def _ask(self, policy: Policy[Any], request: LegRequest, note: Note) -> LegRequest:
        terms = policy.terms
        loop = asyncio.get_running_loop()
        start = loop.time()
        verdict = "failed"
        try:
            narrowed = await self._in_time(policy, request)
            _check_narrowed(request, narrowed)
            verdict = "admitted" if narrowed == request else "narrowed"
            if narrowed != request:
                note("policy", verdict=verdict, policy=terms.policy, contract=terms.contract, target=request.target,
                     max_ms=narrowed.max_ms)
            return narrowed
        except Refused as refused:
            verdict = "refused"
            note("policy", verdict=verdict, policy=terms.policy, contract=terms.contract, clause=refused.clause,
                 target=request.target)
            raise
        except Exception as error:
            verdict = "late" if isinstance(error, TimeoutError) else "failed"
            note("policy", verdict=verdict, policy=terms.policy, clause=FAILED, target=request.target,
                 error=f"{type(error).__name__}: {error}")
            log.error("policy %s of %s %s: the leg to %s is refused", terms.policy, terms.tenant.name,
                      "did not answer in time" if verdict == "late" else "failed", request.target, exc_info=error)
            raise Refused(terms.policy, FAILED, _CANNOT_BE_CHECKED, Cause.TEMPORARY_FAILURE) from error
        finally:
            metrics.policy_decisions.labels(terms.policy, verdict).inc()
            metrics.policy_seconds.labels(terms.policy).observe(loop.time() - start)

    async def _in_time(self, policy: Policy[Any], request: LegRequest) -> LegRequest:
        """What the policy says; raises TimeoutError when it is late, even if it does not let itself be cancelled."""
        task = asyncio.get_running_loop().create_task(policy.admit(request), name=f"policy {policy.terms.policy}")
        try:
            done, _ = await asyncio.wait({task}, timeout=self._deadline_ms / 1000)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if done:
            return task.result()
        task.cancel()
        task.add_done_callback(lambda late: _too_late(policy, request, late))
        raise TimeoutError(f"no answer within {self._deadline_ms} ms")


def _too_late(policy: Policy[Any], request: LegRequest, task: asyncio.Task[LegRequest]) -> None:
    """What became of a question that nobody waits for any more; an admission of a leg that was refused is undone."""
    if task.cancelled():
        return
    if task.exception() is None:
        _tell(policy, policy.dropped, request)
    elif not isinstance(task.exception(), Refused):
        log.error("policy %s failed after its deadline", policy.terms.policy, exc_info=task.exception())


def _check_narrowed(before: LegRequest, after: LegRequest) -> None:
    if not isinstance(after, LegRequest) or replace(after, caller=before.caller, max_ms=before.max_ms) != before:
        raise TypeError(f"admit() may change the caller and max_ms of a request, and gave {after!r}")
    if before.max_ms is not None and (after.max_ms is None or after.max_ms > before.max_ms):
        raise ValueError(f"admit() may not raise max_ms from {before.max_ms} to {after.max_ms}")


T = TypeVar("T")


def _tell(policy: Policy[Any], hook: Callable[[T], None], what: T) -> None:
    """A notice; a policy that fails over it harms neither the call nor other policies."""
    try:
        hook(what)
    except Exception:
        metrics.policy_decisions.labels(policy.terms.policy, "failed").inc()
        log.exception("policy %s of %s failed in %s()", policy.terms.policy, policy.terms.tenant.name, hook.__name__)


# -- loading ----------------------------------------------------------------------------------------


def build_policies(
    tenant: Tenant, profile: Profile, *, store: AnyStore, clock: Clock, kinds: Mapping[str, Kind] | None = None
) -> list[Policy[Any]]:
    """The policies that a contract names, in the order of its rules. Raises Problems: all that is wrong with them.

    `kinds` are the policies there are, by name; else those of all installed packages. One of this project's own that
    is not installed holds nobody to anything; the contract's table says so.
    """
    built: list[Policy[Any]] = []
    problems: list[Problem] = []
    for name in _named(profile):
        try:
            kind = _kind(name, kinds)
            if kind is not None:
                settings = understand(profile.settings(name), kind.settings)
                clauses = {key: _clause(rule) for key, rule in profile.rules_of(name).items()}
                contract = f"{profile.name} {profile.version}"
                built.append(kind(Terms(str(name), tenant, contract, settings, clauses, store, clock)))
        except Problems as error:
            problems += error.problems
    if problems:
        raise Problems(problems)
    return built


def _named(profile: Profile) -> Iterable[Text]:
    """The policies of a contract, each where it is named first."""
    named: dict[str, Text] = {}
    for rule in profile.rules:
        if rule.policy is not None:
            named.setdefault(rule.policy, rule.policy)
    return named.values()


def _clause(rule: Rule) -> Clause:
    words = rule.announcement
    return Clause(str(rule.rule), str(rule.clause), Announcement(words.fr, words.en) if words else None)


def _kind(name: Text, kinds: Mapping[str, Kind] | None) -> Kind | None:
    """The class of a policy, seen to be one; None if it is ours and not installed. Raises Problems."""
    installed = {entry.name: entry for entry in entry_points(group=GROUP)} if kinds is None else kinds
    if name not in installed and name in POLICIES:
        log.info("%s: policy %s is not installed, and what it is to enforce is not enforced", name.where, name)
        return None
    if name not in installed:
        raise Problems([Problem(name.where, f'no policy "{name}" {suggest(name, installed, "policies")}')])
    found = installed[name]
    kind = _imported(name, found) if isinstance(found, EntryPoint) else found
    if not (isinstance(kind, type) and issubclass(kind, Policy)):
        raise Problems([Problem(name.where, f'policy "{name}" is not a class derived from pbx.policy.Policy')])
    problems = [
        *(problem for hook in _HOOKS for problem in _signature_problems(kind, hook)),
        *(problem for base in kind.__mro__[:kind.__mro__.index(Policy)] for problem in _name_problems(base)),
    ]
    if problems:
        raise Problems(problems)
    return kind


def _imported(name: Text, entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except Exception as error:
        message = f'policy "{name}" ({entry.value}) cannot be imported: {type(error).__name__}: {error}'
        raise Problems([Problem(name.where, message)]) from error


def _name_problems(kind: type) -> Iterable[Problem]:
    for name, member in vars(kind).items():
        if inspect.isfunction(member) and not name.startswith("_") and not hasattr(Policy, name):
            remedy = suggest(name, _HOOKS, "hooks")
            yield Problem(_place(member), f'policies have no hook "{name}" {remedy}; helpers begin with "_"')


def _signature_problems(kind: Kind, name: str) -> Iterable[Problem]:
    ours, theirs = getattr(Policy, name), getattr(kind, name)
    wanted, found = list(inspect.signature(ours).parameters), list(inspect.signature(theirs).parameters)
    if wanted != found:
        yield Problem(
            _place(theirs), f"{name}({', '.join(found)}) is not the hook: write {name}({', '.join(wanted)})"
        )
    elif inspect.iscoroutinefunction(ours) != inspect.iscoroutinefunction(theirs):
        write = "async def" if inspect.iscoroutinefunction(ours) else "def"
        yield Problem(_place(theirs), f'the hook {name} is written with "{write}"')


def _place(function: object) -> Where:
    code = cast(Any, function).__code__
    return Where(code.co_filename, code.co_firstlineno, 1)
