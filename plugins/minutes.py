"""The arithmetic of allowances, in whole milliseconds: service months, calls that talk at once, shares between engines.

An account is what JSON holds of one month of a line:

    {"used_ms": 0, "warned_percent": 0, "leases": {ENGINE: [MS, UNTIL]}}

A lease is a share of the allowance that one engine may use up without asking. What an engine left unused at its death
counts as used once the lease has run out: its last calls may have lasted that long.
"""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC
from datetime import date
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

Account = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Month:
    """A service month: its first day, and its first moment and the next month's, in UTC."""

    first: date
    start: datetime
    end: datetime

    @property
    def name(self) -> str:
        return self.first.isoformat()


def service_month(anchor: date, zone: ZoneInfo, now: datetime) -> Month:
    """The month around `now` that begins on the day of the month of `anchor`, or on the last day of shorter ones."""
    today = now.astimezone(zone).date()
    first = _on_day(today.year, today.month, anchor.day)
    if first > today:
        first = _month_before(first, anchor.day)
    return Month(first, _midnight(first, zone), _midnight(_month_after(first, anchor.day), zone))


def _on_day(year: int, month: int, day: int) -> date:
    return date(year, month, min(day, monthrange(year, month)[1]))


def _month_before(first: date, day: int) -> date:
    return _on_day(first.year - (first.month == 1), first.month - 1 or 12, day)


def _month_after(first: date, day: int) -> date:
    return _on_day(first.year + first.month // 12, first.month % 12 + 1, day)


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


class Meter:
    """What the calls of a line use up together of what was granted to this engine. `now` is in milliseconds.

    They are settled on every change of their number, and share what is left: k calls end after left/k.
    """

    def __init__(self) -> None:
        self.left = 0
        self.talking = 0
        self._unsettled = 0
        self._at = 0

    def advance(self, now: int) -> None:
        """Counts up to this moment; a clock that was set back counts nothing."""
        used = self.talking * max(0, now - self._at)
        self.left -= used
        self._unsettled += used
        self._at = max(now, self._at)

    def grant(self, ms: int) -> None:
        self.left += ms

    def begin(self, now: int) -> None:
        self.advance(now)
        self.talking += 1

    def finish(self, now: int) -> None:
        self.advance(now)
        self.talking -= 1

    def end(self, now: int, more: int = 0) -> int:
        """When all that talk must end, if `more` can still be had; one at least must talk."""
        self.advance(now)
        return now + max(0, self.left + more) // self.talking

    def settle(self, now: int) -> int:
        """What was used since this was asked last."""
        self.advance(now)
        used, self._unsettled = self._unsettled, 0
        return used

    def unsettle(self, ms: int) -> None:
        """Takes back what could not be written down."""
        self._unsettled += ms

    @property
    def unsettled(self) -> int:
        return self._unsettled


def new_account() -> Account:
    return {"used_ms": 0, "warned_percent": 0, "leases": {}}


def settle(account: Account, engine: str, ms: int) -> None:
    """Writes down what an engine has used of its lease. One that ran out was counted as used already."""
    lease = account["leases"].get(engine)
    if lease is not None:
        lease[0] = max(0, lease[0] - ms)
        account["used_ms"] += ms


def free(account: Account, allowance_ms: int, now: int) -> int:
    """What nobody has used or leased, once the leases that ran out are counted as used."""
    for engine, (ms, until) in list(account["leases"].items()):
        if until < now:
            del account["leases"][engine]
            account["used_ms"] += ms
    leased = sum(ms for ms, _ in account["leases"].values())
    return max(0, int(allowance_ms - account["used_ms"] - leased))


def lease(account: Account, engine: str, ms: int, until: int) -> None:
    """Adds to an engine's lease, and prolongs it."""
    held = account["leases"].get(engine, [0, 0])[0]
    account["leases"][engine] = [held + ms, until]


def give_back(account: Account, engine: str) -> None:
    account["leases"].pop(engine, None)
