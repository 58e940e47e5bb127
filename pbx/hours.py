"""Opening hours: days, public holidays and exceptions, decided on the tenant's own clock face."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from datetime import datetime
from datetime import timedelta
from functools import cache

import holidays

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SPAN = re.compile(r"([01]?[0-9]|2[0-4]):([0-5][0-9])-([01]?[0-9]|2[0-4]):([0-5][0-9])")
_LONGEST = timedelta(days=366)
_DAY_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class Span:
    """Open from `start` until just before `end`, in minutes of the day; an end past midnight is more than a day."""

    start: int
    end: int


def spans(text: str) -> tuple[Span, ...]:
    """Reads "09:00-12:30 13:30-18:00", "22:00-06:00" (into the next day), "closed" or "all day".

    Raises ValueError with a message for the admin.
    """
    if text == "closed":
        return ()
    if text == "all day":
        return (Span(0, _DAY_MINUTES),)
    found = sorted((_span(word) for word in re.split(r"[\s,]+", text.strip())), key=lambda span: span.start)
    for before, after in zip(found, found[1:]):
        if after.start < before.end:
            raise ValueError(f'"{text}" overlaps itself: write each stretch of time once')
    return tuple(found)


def _span(text: str) -> Span:
    match = _SPAN.fullmatch(text)
    if not match:
        raise ValueError(f'"{text}" is no time span: write "09:00-12:30 13:30-18:00", "closed" or "all day"')
    start, end = (int(hour) * 60 + int(minute) for hour, minute in (match.group(1, 2), match.group(3, 4)))
    if start >= _DAY_MINUTES or end > _DAY_MINUTES:
        raise ValueError(f'"{text}" goes beyond 24:00; a span over midnight reads "22:00-06:00"')
    if start == end:
        raise ValueError(f'"{text}" ends when it starts; write "all day" for a whole day')
    return Span(start, end if end > start else end + _DAY_MINUTES)


def days(text: str) -> tuple[date, ...]:
    """Reads "2026-12-24", or "2026-08-01..2026-08-15" with both ends.

    Raises ValueError with a message for the admin.
    """
    first, dots, last = text.partition("..")
    try:
        start, end = _date(first), _date(last if dots else first)
    except ValueError:
        raise ValueError(f'"{text}" is no date: write "2026-12-24", or "2026-08-01..2026-08-15"') from None
    if end < start:
        raise ValueError(f'"{text}" ends before it starts')
    if end - start > _LONGEST:
        raise ValueError(f'"{text}" is longer than a year')
    return tuple(start + timedelta(days=day) for day in range((end - start).days + 1))


def _date(text: str) -> date:
    return datetime.strptime(text.strip(), "%Y-%m-%d").date()


@dataclass(frozen=True, slots=True)
class Holidays:
    """The public holidays of a country, or of a part of it: "FR", "CA-QC"."""

    region: str

    def __contains__(self, day: date) -> bool:
        return day in _calendar(self.region)


def holiday_regions(country: str) -> Iterator[str]:
    """The regions whose holidays are known: the country and its parts; nothing for a country that is unknown."""
    parts = holidays.list_supported_countries(include_aliases=False).get(country)
    if parts is not None:
        yield country
        yield from (f"{country}-{part}" for part in parts)


@cache
def _calendar(region: str) -> holidays.HolidayBase:
    country, _, part = region.partition("-")
    return holidays.country_holidays(country, subdiv=part or None)


@dataclass(frozen=True, slots=True)
class Timetable:
    """When it is open: by weekday (Monday first), but closed on holidays; `exceptions` come before both."""

    week: tuple[tuple[Span, ...], ...]
    holidays: Holidays | None
    exceptions: dict[date, tuple[Span, ...]]

    def open_at(self, moment: datetime) -> bool:
        """Decides for an aware moment that was already brought into the tenant's zone.

        Hours are read off the clock on the wall: the hour that a change to winter time repeats is decided alike
        both times, and what lies in the hour that the change to summer time skips never comes.
        """
        minute = moment.hour * 60 + moment.minute
        today = moment.date()
        yesterday = today - timedelta(days=1)
        return _covered(self.spans_on(today), minute) or _covered(self.spans_on(yesterday), minute + _DAY_MINUTES)

    def spans_on(self, day: date) -> tuple[Span, ...]:
        if day in self.exceptions:
            return self.exceptions[day]
        if self.holidays is not None and day in self.holidays:
            return ()
        return self.week[day.weekday()]


def _covered(spans: tuple[Span, ...], minute: int) -> bool:
    return any(span.start <= minute < span.end for span in spans)
