"""Opening hours on the clock of the wall, in both nights when it jumps, on holidays and on other days."""

from __future__ import annotations

import re
from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbx.hours import DAYS
from pbx.hours import Holidays
from pbx.hours import Span
from pbx.hours import Timetable
from pbx.hours import days
from pbx.hours import holiday_regions
from pbx.hours import spans
from pbx.tenant import Hours
from pbx.yamlfile import parse

PARIS = ZoneInfo("Europe/Paris")
MONTREAL = ZoneInfo("America/Toronto")


def hours(written: str) -> Timetable:
    return parse(written, "hours.yml", Hours).timetable()


def open_at(table: Timetable, moment: str, zone: ZoneInfo = PARIS) -> bool:
    """Whether it is open at a moment given in UTC."""
    return table.open_at(datetime.fromisoformat(moment).replace(tzinfo=UTC).astimezone(zone))


OFFICE = hours('{weekdays: "09:00-12:30 13:30-18:00", friday: "09:00-12:00", holidays: FR}')


@pytest.mark.parametrize(
    "moment, is_open",
    [
        ("2026-03-02T07:59", False),  # Monday, winter: an hour after UTC
        ("2026-03-02T08:00", True),
        ("2026-03-02T11:29", True),
        ("2026-03-02T11:30", False),  # lunch; the end is not included
        ("2026-03-02T12:30", True),
        ("2026-03-02T17:00", False),
        ("2026-07-06T07:00", True),  # Monday, summer: two hours after UTC
        ("2026-07-06T16:00", False),
        ("2026-03-06T11:00", False),  # Friday has hours of its own
        ("2026-03-07T09:00", False),  # Saturday
        ("2026-07-14T09:00", False),  # a Tuesday, but the national holiday
        ("2026-05-01T08:00", False),
    ],
)
def test_the_week_and_the_holidays(moment: str, is_open: bool) -> None:
    assert open_at(OFFICE, moment) is is_open


def test_holidays_of_a_region() -> None:
    shop = hours('{weekdays: "09:00-17:00", holidays: CA-QC}')
    assert not open_at(shop, "2026-06-24T15:00", MONTREAL)  # Saint-Jean-Baptiste
    assert open_at(hours('{weekdays: "09:00-17:00", holidays: CA-ON}'), "2026-06-24T15:00", MONTREAL)


def test_exceptions_come_before_holidays_and_the_week() -> None:
    table = hours(
        '{weekdays: "09:00-18:00", holidays: FR, '
        'exceptions: {"2026-12-25": "10:00-11:00", "2026-08-01..2026-08-15": closed}}'
    )
    assert open_at(table, "2026-12-25T09:30") and not open_at(table, "2026-12-25T10:30")
    assert not any(open_at(table, f"2026-08-{day:02}T09:00") for day in range(1, 16))
    assert open_at(table, "2026-08-17T09:00")


@pytest.mark.parametrize("moment, is_open", [
    ("2026-03-06T20:59", False), ("2026-03-06T21:00", True), ("2026-03-07T01:00", True), ("2026-03-07T05:00", False),
])
def test_a_span_over_midnight_belongs_to_the_day_it_begins(moment: str, is_open: bool) -> None:
    assert open_at(hours('{friday: "22:00-06:00"}'), moment) is is_open


def test_the_hour_that_winter_time_repeats_is_open_both_times() -> None:
    night = hours('{sunday: "02:00-03:00"}')
    # 25 October 2026: 3:00 becomes 2:00 again, at 1:00 UTC.
    assert [open_at(night, f"2026-10-25T{time}") for time in ("00:00", "00:59", "01:00", "01:59", "02:00")] == [
        True, True, True, True, False,
    ]


def test_the_hour_that_summer_time_skips_never_comes() -> None:
    night = hours('{sunday: "02:00-03:00"}')
    # 29 March 2026: 2:00 becomes 3:00, at 1:00 UTC.
    minutes = [datetime(2026, 3, 29, tzinfo=UTC) + timedelta(minutes=minute) for minute in range(180)]
    assert not any(night.open_at(moment.astimezone(PARIS)) for moment in minutes)


@given(st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC)))
def test_all_day_every_day_is_always_open_in_any_zone(moment: datetime) -> None:
    always = hours("{everyday: all day}")
    for zone in (PARIS, MONTREAL, ZoneInfo("Australia/Lord_Howe"), ZoneInfo("Asia/Kathmandu")):
        assert always.open_at(moment.astimezone(zone))


@given(st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC)), st.data())
def test_decided_as_the_clock_on_the_wall_shows(moment: datetime, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, 1438))
    end = data.draw(st.integers(start + 1, 1439))
    day = data.draw(st.sampled_from(DAYS))
    table = hours(f'{{{day}: "{start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}"}}')
    wall = moment.astimezone(PARIS)
    expected = DAYS[wall.weekday()] == day and start <= wall.hour * 60 + wall.minute < end
    assert table.open_at(wall) is expected


def test_every_holiday_of_the_year_is_closed() -> None:
    closed = [date(2026, 1, 1) + timedelta(days=day) for day in range(365)]
    closed = [day for day in closed if day.weekday() < 5 and not OFFICE.spans_on(day)]
    assert [day.isoformat()[5:] for day in closed] == [
        "01-01", "04-06", "05-01", "05-08", "05-14", "05-25", "07-14", "11-11", "12-25",
    ]


def test_spans_are_read_and_sorted() -> None:
    assert spans("13:30-18:00, 9:00-12:30") == (Span(540, 750), Span(810, 1080))
    assert spans("closed") == () and spans("all day") == (Span(0, 1440),)
    assert spans("20:00-24:00") == (Span(1200, 1440),)
    assert spans("22:00-06:00") == (Span(1320, 1800),)


@pytest.mark.parametrize("text", ["..", "2026-08-01..", "..2026-08-01", "2026-02-30", "24.12.2026"])
def test_half_a_range_is_no_date(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f'"{text}" is no date')):
        days(text)


@given(st.text(max_size=30))
def test_any_other_text_is_refused_in_words(text: str) -> None:
    for read in (spans, days):
        try:
            read(text)
        except ValueError as error:
            assert f'"{text}"' in str(error) or "no time span" in str(error)


def test_ranges_of_days_have_both_ends() -> None:
    assert days("2026-12-30..2027-01-01") == (date(2026, 12, 30), date(2026, 12, 31), date(2027, 1, 1))
    assert days("2028-02-29") == (date(2028, 2, 29),)


def test_regions_with_holidays_are_known() -> None:
    assert {"CA", "CA-QC", "CA-ON"} <= set(holiday_regions("CA"))
    assert list(holiday_regions("XX")) == []
    assert date(2026, 7, 14) in Holidays("FR")
