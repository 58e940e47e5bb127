"""The arithmetic behind allowances: months, calls that share, and engines that do."""

from __future__ import annotations

import asyncio
import heapq
import random
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import timedelta
from multiprocessing import get_context
from zoneinfo import ZoneInfo

import pytest
from databases import AnyDatabase
from hypothesis import given
from hypothesis import strategies as st
from pbx_plugins import minutes
from pbx_plugins.minutes import Meter
from pbx_plugins.minutes import service_month

from pbx.clock import SystemClock
from pbx.store import MemoryStore
from pbx.store import State
from pbx.store import Store

PARIS = ZoneInfo("Europe/Paris")
ENGINES = 8
CAP_MS = 300_000
PATIENCE_S = 60.0  # a busy machine is not a mistake


@pytest.mark.parametrize(
    "anchor, now, start, end",
    [
        # The night to summer time has 23 hours, the one to winter time 25: months begin at local midnight all the same.
        ("2026-01-15", "2026-03-20T12:00Z", "2026-03-14T23:00Z", "2026-04-14T22:00Z"),
        ("2026-01-15", "2026-10-20T12:00Z", "2026-10-14T22:00Z", "2026-11-14T23:00Z"),
        ("2026-01-31", "2026-02-10T12:00Z", "2026-01-30T23:00Z", "2026-02-27T23:00Z"),
        ("2026-01-31", "2026-02-27T22:59Z", "2026-01-30T23:00Z", "2026-02-27T23:00Z"),
        ("2026-01-31", "2026-02-27T23:00Z", "2026-02-27T23:00Z", "2026-03-30T22:00Z"),
        ("2026-01-31", "2028-02-29T12:00Z", "2028-02-28T23:00Z", "2028-03-30T22:00Z"),
        ("2026-01-30", "2026-04-15T12:00Z", "2026-03-29T22:00Z", "2026-04-29T22:00Z"),
        ("2026-03-29", "2026-03-28T23:00Z", "2026-03-28T23:00Z", "2026-04-28T22:00Z"),
        ("2026-12-10", "2026-12-31T23:30Z", "2026-12-09T23:00Z", "2027-01-09T23:00Z"),
        ("2026-12-10", "2027-01-05T12:00Z", "2026-12-09T23:00Z", "2027-01-09T23:00Z"),
    ],
)
def test_a_service_month_begins_on_the_day_of_activation(anchor: str, now: str, start: str, end: str) -> None:
    month = service_month(date.fromisoformat(anchor), PARIS, datetime.fromisoformat(now))
    assert (month.start, month.end) == (datetime.fromisoformat(start), datetime.fromisoformat(end))


@given(
    st.dates(date(2020, 1, 1), date(2030, 1, 1)),
    st.datetimes(datetime(2020, 1, 1), datetime(2032, 1, 1), timezones=st.just(UTC)),
    st.sampled_from(["Europe/Paris", "America/Toronto", "America/Sao_Paulo", "Australia/Lord_Howe", "UTC"]),
)
def test_every_moment_is_in_one_month_and_months_follow_one_another(anchor: date, now: datetime, zone: str) -> None:
    month = service_month(anchor, ZoneInfo(zone), now)
    assert month.start <= now < month.end
    assert timedelta(days=27) < month.end - month.start < timedelta(days=32)
    following = service_month(anchor, ZoneInfo(zone), month.end)
    assert following.start == month.end and following.first > month.first


def test_calls_at_once_share_what_is_left_and_end_together_with_it() -> None:
    """Twenty thousand random schedules: nothing is used beyond the cap, and less than ten milliseconds are left."""
    chance = random.Random(1)
    reached = 0
    for _ in range(20_000):
        meter = Meter()
        cap = chance.randrange(1_000, 4_000_000)
        meter.grant(cap)
        now = 0
        ends: list[int] = []  # when callers hang up by themselves
        for _ in range(chance.randrange(1, 41)):
            arrival = now + chance.randrange(0, 200_000)
            while ends and min(ends[0], meter.end(now)) <= arrival:
                now = min(ends[0], meter.end(now))
                if now == meter.end(now):
                    break
                heapq.heappop(ends)
                meter.finish(now)
            meter.advance(now if ends and now == meter.end(now) else arrival)
            if ends and now == meter.end(now):
                break
            now = arrival
            if len(ends) < 9 and meter.left >= 1_000 * (len(ends) + 1):
                meter.begin(now)
                heapq.heappush(ends, now + chance.randrange(1, 600_000))
        while ends and now < meter.end(now):
            now = min(ends[0], meter.end(now))
            if now < meter.end(now):
                heapq.heappop(ends)
                meter.finish(now)
        if ends:
            reached += 1
            meter.advance(meter.end(now))
            assert 0 <= meter.left < 10
        assert meter.left >= 0 and meter.settle(now) == cap - meter.left
    assert reached > 2_000


def test_a_clock_that_was_set_back_counts_nothing_twice() -> None:
    meter = Meter()
    meter.grant(10_000)
    meter.begin(5_000)
    meter.advance(7_000)
    meter.advance(1_000)
    meter.finish(8_000)
    assert meter.settle(9_000) == 3_000 and meter.left == 7_000


def test_a_lease_that_ran_out_counts_as_used_and_never_twice() -> None:
    account = minutes.new_account()
    minutes.lease(account, "a", 60_000, until=100_000)
    assert minutes.free(account, 300_000, now=100_000) == 240_000 and account["used_ms"] == 0
    assert minutes.free(account, 300_000, now=100_001) == 240_000 and account["used_ms"] == 60_000
    minutes.settle(account, "a", 50_000)
    assert account["used_ms"] == 60_000


async def _talks(address: str, engine: str) -> int:
    """One engine whose calls use up what it leases, as fast as it gets it; gives what it used."""
    store = Store(address, clock=SystemClock(), spool=None, patience=PATIENCE_S)
    await store.open()
    chance = random.Random(engine)
    talked = spent = 0

    def book(account: State) -> int:
        account.update({**minutes.new_account(), **account})
        minutes.settle(account, engine, spent)
        want = min(60_000, max(1_000, minutes.free(account, CAP_MS, 0) // 4))
        granted: int = min(want, minutes.free(account, CAP_MS, 0))
        minutes.lease(account, engine, granted, until=1_000_000)
        return granted

    while granted := await store.change("fair-use", "acme", "101", book):
        talked += granted
        spent = granted
        await asyncio.sleep(chance.random() / 1000)
    await store.close()
    return talked


def _talk(address: str, engine: str) -> int:
    return asyncio.run(_talks(address, engine))


async def test_eight_engines_on_one_account_never_use_more_than_there_is(any_database: AnyDatabase) -> None:
    with ProcessPoolExecutor(ENGINES, mp_context=get_context("spawn")) as engines:
        loop = asyncio.get_running_loop()
        used = await asyncio.gather(*(
            loop.run_in_executor(engines, _talk, any_database.url, f"engine {number}") for number in range(ENGINES)
        ))
    assert sum(used) == CAP_MS
    store = Store(any_database.url, clock=SystemClock(), spool=None)
    await store.open()
    (account,) = (await store.states("fair-use")).values()
    await store.close()
    assert account["used_ms"] == CAP_MS


async def test_what_policies_remember_is_theirs_and_their_tenants(any_database: AnyDatabase) -> None:
    clock = SystemClock()
    for store in (Store(any_database.url, clock=clock, spool=None), MemoryStore(clock=clock)):
        await store.open()
        await store.change("fair-use", "acme", "101", lambda state: state.update(used=1))
        await store.change("fair-use", "acme", "101", lambda state: state.update(more=[state["used"]]))
        await store.change("fair-use", "duo", "101", lambda state: None)
        await store.change("abuse", "acme", "101", lambda state: state.update(calls=9))
        acme = {("acme", "101"): {"used": 1, "more": [1]}}
        assert await store.states("fair-use", "acme") == acme
        assert await store.states("fair-use") == acme | {("duo", "101"): {}}
        with pytest.raises(ZeroDivisionError):
            await store.change("fair-use", "acme", "101", lambda state: state.update(used=1 // 0))
        assert await store.states("fair-use", "acme") == acme
        await store.close()
