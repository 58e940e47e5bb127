"""Minutes of outside calls per line and service month: what is beyond the contract is reviewed, metered or cut off.

Counted are the answered legs that leave the tenant, while they talk, all calls of a line together. With
`then: review` nothing is cut: who uses more than is normal is notified, and metered or restricted if that has no
effect until the deadline. With `then: hang-up` the calls end with the allowance, after two spoken warnings; with
`then: metered` they go on and are charged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import time
from datetime import timedelta
from typing import Annotated
from typing import Any
from typing import Literal
from uuid import uuid4

from pydantic import Field

from pbx.policy import Announcement
from pbx.policy import LegRequest
from pbx.policy import LiveLeg
from pbx.policy import Model
from pbx.policy import Policy
from pbx.policy import StoreError
from pbx.policy import Terms

from . import minutes
from .minutes import Meter
from .minutes import Month

log = logging.getLogger(__name__)

SLICE_MS = 60_000  # what one call leases at a time, less when little is left
SMALLEST_SLICE_MS = 5_000
FIRST_MS = 1_000  # a call that cannot talk so long is not begun
LEASE_MS = 180_000  # how long after its last word an engine counts as alive
SPARE_MS = 10_000  # what a call should have left when more is asked for: the store may be slow
KEEP_MS = 60_000  # a lease is prolonged so often
RETRY_S = 0.2
REVIEW_S = 60.0
MONTHS_KEPT = 14

_WARNINGS = {
    60_000: Announcement(
        "Il reste une minute avant la fin du forfait de cette ligne.", "One minute of this line's allowance is left."
    ),
    10_000: Announcement("Cet appel prend fin dans dix secondes.", "This call ends in ten seconds."),
}
_NOT_RENEWED = "engine:share-not-renewed"

Document = dict[str, Any]
Percent = Annotated[int, Field(ge=1, le=100)]


class Settings(Model):
    abnormal_from_minutes: int = Field(ge=1)
    warn_percent: tuple[Percent, ...] = ()
    counts: tuple[Literal["outbound", "forwarded"], ...] = ("outbound", "forwarded")
    then: Literal["review", "hang-up", "metered"]
    answer_within_days: int = Field(7, ge=1)
    unless_cured: Literal["metered", "restricted"] = "metered"
    billing_begins_after_days: int = Field(0, ge=0)
    service_month: Literal["activation-day", "billing-day", "calendar"] = "calendar"

    @property
    def allowance_ms(self) -> int:
        return self.abnormal_from_minutes * 60_000


@dataclass(frozen=True, slots=True)
class _Booked:
    """What the store said to a line."""

    granted: int
    free: int
    used: int
    case: Document
    warned: int


class FairUse(Policy[Settings]):
    settings = Settings

    def __init__(self, terms: Terms[Settings]) -> None:
        super().__init__(terms)
        self._engine = uuid4().hex[:12]  # whose leases are whose
        self._lines: dict[str, _Line] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        known = await self.terms.store.states(self.terms.policy, self.terms.tenant.name)
        for number in self.terms.tenant.lines:
            document = known.get((self.terms.tenant.name, number))
            # A line is activated on the day it is met first, unless somebody said otherwise.
            self._lines[number] = await self._line(number, document)
        self._start(self._review())

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for line in self._lines.values():
            await line.release()

    async def admit(self, request: LegRequest) -> LegRequest:
        if self._counts(request):
            if request.line not in self._lines:
                self._lines[request.line] = await self._line(request.line, None)
            await self._lines[request.line].admit(request)
        return request

    def dropped(self, request: LegRequest) -> None:
        if self._counts(request):
            self._lines[request.line].dropped(request)

    def answered(self, leg: LiveLeg) -> None:
        if self._counts(leg.request):
            self._lines[leg.request.line].answered(leg)

    def ended(self, leg: LiveLeg) -> None:
        if self._counts(leg.request):
            self._lines[leg.request.line].ended(leg)

    def _counts(self, request: LegRequest) -> bool:
        how = "forwarded" if request.direction == "inbound" or request.reason == "forward" else "outbound"
        return request.outside and how in self.terms.settings.counts

    async def _line(self, number: str, document: Document | None) -> _Line:
        today = self.terms.clock.now().astimezone(self.terms.tenant.zone).date().isoformat()

        def meet(document: Document) -> Document:
            document.setdefault("activated", today)
            document.setdefault("case", {"state": "observe"})
            document.setdefault("months", {})
            return dict(document)

        if document is None or "months" not in document:
            document = await self._change(number, meet)
        return _Line(self, number, document)

    def _founded_on(self, setting: str) -> str:
        """The setting whose clause a decision names: one that the contract leaves out rests on the allowance itself."""
        return setting if setting in self.terms.clauses else "abnormal_from_minutes"

    async def _change(self, number: str, change: Callable[[Document], Any]) -> Any:
        return await self.terms.store.change(self.terms.policy, self.terms.tenant.name, number, change)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=f"fair use of {self.terms.tenant.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- review ---------------------------------------------------------------------------------

    async def _review(self) -> None:
        """Learns what people and other engines have decided, and decides where a deadline has passed."""
        while True:
            try:
                for (_, number), document in (
                    await self.terms.store.states(self.terms.policy, self.terms.tenant.name)
                ).items():
                    if number in self._lines:
                        self._lines[number].learn(await self._decided(number, document))
            except StoreError as error:
                log.warning("fair use of %s is not reviewed: %s", self.terms.tenant.name, error)
            await asyncio.sleep(REVIEW_S)

    async def _decided(self, number: str, document: Document) -> Document:
        now = self.terms.clock.now()

        def decide(document: Document) -> Document:
            case = document["case"]
            if _due(case, now):
                normal = _used_normally(document, self.terms.settings.allowance_ms, now)
                case["state"] = "cured" if normal else self.terms.settings.unless_cured
                case["since"] = now.isoformat()
            return dict(document)

        if not _due(document["case"], now):
            return document
        document = await self._change(number, decide)
        clause = self.terms.clauses[self._founded_on("unless_cured")]
        log.warning("line %s of %s: %s (%s)", number, self.terms.tenant.name, document["case"]["state"], clause)
        return document


def _due(case: Document, now: datetime) -> bool:
    return case["state"] == "notified" and now >= datetime.fromisoformat(case["deadline"])


def _used_normally(document: Document, allowance_ms: int, now: datetime) -> bool:
    """Whether no more was used since the notice than the allowance gives for so much of a month."""
    case = document["case"]
    since = sum(account["used_ms"] for name, account in document["months"].items() if name >= case["month"])
    elapsed = now - datetime.fromisoformat(case["since"])
    return bool(since - case["used_ms"] <= allowance_ms * elapsed / timedelta(days=30))


class _Line:
    """One line in this engine: its calls, what was granted to them, and what its document says."""

    def __init__(self, policy: FairUse, number: str, document: Document) -> None:
        self.number = number
        self._policy = policy
        self._terms = policy.terms
        self._settings: Settings = policy.terms.settings
        self._engine = policy._engine
        self._change = policy._change
        self._start = policy._start
        self._meter = Meter()
        self._waiting: set[str] = set()
        self._legs: dict[str, LiveLeg] = {}
        self._changed = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._booking = asyncio.Lock()
        self._slice = 0
        self._prolong_at = 0
        self._free = self._settings.allowance_ms
        self._used = 0
        self._activated = date.fromisoformat(document["activated"])
        self._case = document["case"]
        self._month = self._month_at(self._terms.clock.now())

    # -- what the policy hears ------------------------------------------------------------------

    async def admit(self, request: LegRequest) -> None:
        if self._case["state"] == "restricted":
            raise self._policy.refusal(self._policy._founded_on("unless_cured"))
        if self._capped and not self._enough():
            # It goes on when the caller is gone: what is granted is the line's, whoever asked.
            await asyncio.shield(self._start(self._book(more=1)))
            if not self._enough():
                self._keep()
                raise self._policy.refusal("abnormal_from_minutes")
        self._waiting.add(request.leg_id)
        self._keep()

    def _enough(self) -> bool:
        """Whether one more call could begin."""
        self._meter.advance(self._now())
        return self._meter.left >= FIRST_MS * (len(self._legs) + len(self._waiting) + 1)

    def dropped(self, request: LegRequest) -> None:
        self._waiting.discard(request.leg_id)
        self._changed.set()

    def answered(self, leg: LiveLeg) -> None:
        self._waiting.discard(leg.request.leg_id)
        self._legs[leg.request.leg_id] = leg
        self._meter.begin(self._now())
        self._share()
        self._changed.set()

    def ended(self, leg: LiveLeg) -> None:
        self._meter.finish(self._now())
        del self._legs[leg.request.leg_id]
        self._share()
        self._changed.set()

    def learn(self, document: Document) -> None:
        """Takes over what was decided about the line."""
        self._case = document["case"]
        activated = date.fromisoformat(document["activated"])
        if activated != self._activated:
            self._activated = activated
            self._changed.set()

    async def release(self) -> None:
        """Writes down what was used, and gives back the rest."""

        def give_back(document: Document) -> None:
            account = _account(document, self._month, self._settings.allowance_ms)
            if not holds_lease:
                minutes.lease(account, self._engine, 0, now)
            minutes.settle(account, self._engine, used)
            minutes.give_back(account, self._engine)

        async with self._booking:
            now = self._now()
            used, holds_lease = self._meter.settle(now), bool(self._slice)
            if not used and not holds_lease:
                return
            # Taken away first: a call that comes meanwhile must not count on it.
            left = self._meter.left
            self._meter.grant(-left)
            self._slice = 0
            try:
                await self._change(self.number, give_back)
            except StoreError as error:
                self._meter.unsettle(used)
                log.warning("usage of line %s of %s waits: %s", self.number, self._terms.tenant.name, error)

    # -- what calls use up ----------------------------------------------------------------------

    @property
    def _capped(self) -> bool:
        return self._settings.then == "hang-up"

    def _share(self) -> None:
        """Tells every call when it ends: with the line's allowance, and with what this engine holds of it."""
        if not self._capped or not self._legs:
            return
        now = self._now()
        clause = str(self._terms.clauses["abnormal_from_minutes"])
        allowance, share = _utc(self._meter.end(now, self._free)), _utc(self._meter.end(now))
        for leg in list(self._legs.values()):
            leg.end_at(allowance, clause=clause, warnings=_WARNINGS)
            leg.end_at(share, clause=_NOT_RENEWED)

    def _keep(self) -> None:
        if self._keeper is None or self._keeper.done():
            self._keeper = self._start(self._renew_while_needed())

    async def _renew_while_needed(self) -> None:
        """Asks the store for more before what was granted is used up, at thresholds, and at the end of the month."""
        while self._legs or self._waiting:
            while self._legs or self._waiting:
                try:
                    async with asyncio.timeout(max(RETRY_S, (self._next() - self._now()) / 1000)):
                        await self._changed.wait()
                except TimeoutError:
                    pass
                self._changed.clear()
                if self._now() >= self._next():
                    await self._book()
            await self.release()

    def _next(self) -> int:
        """When the store must be asked again, in milliseconds."""
        now = self._now()
        moments = [self._prolong_at, _ms(self._month.end)]
        if self._legs:
            self._meter.advance(now)
            if self._free or not self._capped:
                spare = max(self._slice // 5, min(self._slice // 2, SPARE_MS * len(self._legs)))
                moments.append(now + (self._meter.left - spare) // len(self._legs))
            used = self._used + self._meter.unsettled
            marks = (self._settings.allowance_ms * percent // 100 for percent in (*self._settings.warn_percent, 100))
            moments += [now + -(-(mark - used) // len(self._legs)) for mark in marks if mark > self._used]
        return min(moments)

    async def _book(self, more: int = 0) -> None:
        """Writes down what was used, leases more, and acts on what the account then says. `more` calls will come."""
        async with self._booking:
            now = self._now()
            month = self._month_at(self._terms.clock.now())
            # What was used before midnight belongs to the month that ended.
            before = self._meter.settle(min(now, _ms(self._month.end))) if month != self._month else 0
            used = self._meter.settle(now)
            calls = max(1, len(self._legs) + len(self._waiting) + more)
            want = calls * SLICE_MS
            if self._capped:
                want = calls * min(SLICE_MS, max(SMALLEST_SLICE_MS, self._free // (4 * calls)))
            try:
                booked = await self._change(self.number, self._booking_of(month, before, used, want, now))
            except StoreError as error:
                self._meter.unsettle(before + used)
                self._prolong_at = now + SMALLEST_SLICE_MS
                log.warning("line %s of %s gets no more minutes: %s", self.number, self._terms.tenant.name, error)
                return
            if month != self._month:
                self._meter.grant(-self._meter.left)
                self._month = month
            self._meter.grant(booked.granted)
            self._slice, self._free, self._used = want, booked.free, booked.used
            self._prolong_at = now + KEEP_MS
            self._case = booked.case
            self._tell(booked)
        self._share()

    def _booking_of(
        self, month: Month, before: int, used: int, want: int, now: int
    ) -> Callable[[Document], _Booked]:
        """The change of the line's document that books this; it must not depend on what may change meanwhile."""
        last, allowance = self._month, self._settings.allowance_ms
        holds_lease = bool(self._slice) and month == last

        def book(document: Document) -> _Booked:
            if month != last:
                old = _account(document, last, allowance)
                minutes.settle(old, self._engine, before)
                minutes.give_back(old, self._engine)
            account = _account(document, month, allowance)
            # What was used without a lease, at the beginning of a month or without the store, counts all the same.
            if not holds_lease:
                minutes.lease(account, self._engine, 0, now + LEASE_MS)
            minutes.settle(account, self._engine, used)
            free = minutes.free(account, allowance, now)
            granted = min(want, free) if self._capped else want
            minutes.lease(account, self._engine, granted, now + LEASE_MS)
            warned = self._warned(account)
            self._judge(document, account, month, now)
            for name in sorted(document["months"])[:-MONTHS_KEPT]:
                del document["months"][name]
            return _Booked(granted, max(0, free - granted), account["used_ms"], document["case"], warned)

        return book

    def _warned(self, account: Document) -> int:
        """The highest percentage that was reached just now, 0 for none; each is told once a month, by one engine."""
        reached = [
            percent for percent in self._settings.warn_percent
            if account["used_ms"] * 100 >= percent * account["allowance_ms"] and percent > account["warned_percent"]
        ]
        account["warned_percent"] = max([account["warned_percent"], *reached])
        return max(reached, default=0)

    def _judge(self, document: Document, account: Document, month: Month, now: int) -> None:
        """Opens a case for a line that uses more than is normal, with all that is needed to prove it."""
        case = document["case"]
        open_already = case["state"] not in ("observe", "cured") or case.get("month") == month.name
        if self._settings.then != "review" or account["used_ms"] < account["allowance_ms"] or open_already:
            return
        zone = self._terms.tenant.zone
        last_day = _utc(now).astimezone(zone).date() + timedelta(days=self._settings.answer_within_days)
        deadline = datetime.combine(last_day + timedelta(days=1), time(), zone).astimezone(UTC)
        document["case"] = {
            "state": "notified", "since": _utc(now).isoformat(), "deadline": deadline.isoformat(),
            "month": month.name, "used_ms": account["used_ms"], "allowance_ms": account["allowance_ms"],
            "contract": self._terms.contract, "clause": str(self._terms.clauses["abnormal_from_minutes"]),
        }

    def _tell(self, booked: _Booked) -> None:
        if booked.warned:
            log.warning("line %s of %s has used %d %% of the %d minutes of its month", self.number,
                        self._terms.tenant.name, booked.warned, self._settings.abnormal_from_minutes)

    # -- time -----------------------------------------------------------------------------------

    def _now(self) -> int:
        return _ms(self._terms.clock.now())

    def _month_at(self, now: datetime) -> Month:
        anchors = {
            "activation-day": self._activated,
            "billing-day": self._activated + timedelta(days=self._settings.billing_begins_after_days),
            "calendar": date(2000, 1, 1),
        }
        return minutes.service_month(anchors[self._settings.service_month], self._terms.tenant.zone, now)


def _account(document: Document, month: Month, allowance_ms: int) -> Document:
    account: Document = document["months"].setdefault(month.name, minutes.new_account())
    account["allowance_ms"] = allowance_ms
    return account


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def _ms(moment: datetime) -> int:
    return (moment - _EPOCH) // _MILLISECOND


def _utc(ms: int) -> datetime:
    return _EPOCH + ms * _MILLISECOND
