from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from collections.abc import Callable
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from datetime import timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from databases import AnyDatabase
from databases import PostgresDatabase
from databases import PostgresServer
from databases import SqliteDatabase
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from sqlalchemy import Connection
from sqlalchemy import insert
from sqlalchemy import text

from pbx.database import Database
from pbx.database import calls
from pbx.database import schema
from pbx.spool import Spool
from pbx.store import AnyStore
from pbx.store import CallRecord
from pbx.store import LegRecord
from pbx.store import MemoryStore
from pbx.store import Message
from pbx.store import Moment
from pbx.store import Store
from pbx.store import StoreError

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


class HandClock:
    def __init__(self) -> None:
        self.time = NOON

    def now(self) -> datetime:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "var" / "records.spool"


OpenStore = Callable[..., Store]


@pytest.fixture
async def open_store(clock: HandClock, spool: Path) -> AsyncIterator[OpenStore]:
    """Makes stores that give up on a database after a fifth of a second, and closes them at the end."""
    made = []

    def make(database: AnyDatabase, spool: Path | None = spool, patience: float = 0.2) -> Store:
        made.append(Store(database.url, clock=clock, spool=spool, patience=patience))
        return made[-1]

    yield make
    for store in made:
        await store.close()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, clock: HandClock, spool: Path) -> AsyncIterator[AnyStore]:
    """An empty store of each kind: what is true of one is true of all."""
    opened: AnyStore
    if request.param == "memory":
        opened = MemoryStore(clock=clock)
    else:
        opened = Store(request.getfixturevalue(f"{request.param}_database").url, clock=clock, spool=spool)
    await opened.open()
    yield opened
    await opened.close()


def a_call(number: int = 1, *, tenant: str = "acme", started_at: datetime = NOON) -> CallRecord:
    id = f"a1.w1.7.{number}"
    return CallRecord(
        id, "a1", "w1", 7, tenant, "inbound", "+33639980001", "Zoé", "+33199000100", "acme@3", started_at,
        answered_at=started_at + timedelta(seconds=2),
        ended_at=started_at + timedelta(seconds=62),
        outcome="answered", cause=16, ended_by="caller",
        legs=[LegRecord(f"{id}.l1", 1, "101", "PJSIP/acme-101", "Alice", started_at, outcome="busy", cause=17),
              LegRecord(f"{id}.l2", 2, "102", "PJSIP/acme-102", "Bob", started_at, outcome="answered", cause=16)],
        timeline=[Moment(started_at, 0, "arrived", {"did": "+33199000100"}),
                  Moment(started_at + timedelta(seconds=2), 2000, "menu", {"key": "1", "where": "acme.yml:24:9"})],
    )  # fmt: skip


def a_message(id: str, *, box: str = "101", minutes: int = 0) -> Message:
    recorded_at = NOON + timedelta(minutes=minutes)
    return Message(id, "acme", box, "a1.w1.7.1", "+33639980001", "Zoé", recorded_at, 4200, f"voicemail/{id}")


def written() -> float:
    return REGISTRY.get_sample_value("pbx_records_written_total") or 0.0


def spooled(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


# Records, on every kind of store


_words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
_numbers = st.integers(-(2**31), 2**31 - 1)
_times = st.datetimes(
    datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.sampled_from([UTC, timezone(timedelta(hours=-3.5))])
)
_maybe_times = st.none() | _times
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
_legs = st.builds(
    LegRecord, _words, _numbers, _words, _words, _words, _maybe_times, _maybe_times, _maybe_times, _maybe_times,
    _words, _numbers, _words,
)  # fmt: skip
_moments = st.builds(Moment, _times, _numbers, _words, st.dictionaries(_words, _json, max_size=3))
_records = st.builds(
    CallRecord, _words, _words, _words, _numbers, _words, _words, _words, _words, _words, _words,
    _times, _maybe_times, _maybe_times, _words, _numbers, _words,
    legs=st.lists(_legs, max_size=3, unique_by=(lambda leg: leg.id, lambda leg: leg.number)).map(
        lambda legs: sorted(legs, key=lambda leg: leg.number)
    ),
    timeline=st.lists(_moments, max_size=4),
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(record=_records)
async def test_any_record_comes_back_as_it_was(store: AnyStore, record: CallRecord) -> None:
    store.save(record)
    await store.flush()
    assert await store.call(record.id) == record


@given(record=_records)
def test_nobody_talks_longer_than_the_call_lasts(record: CallRecord) -> None:
    assert 0 <= record.talk_ms <= record.duration_ms


def test_a_call_lasts_from_its_start_and_talks_from_its_answer() -> None:
    assert (a_call().duration_ms, a_call().talk_ms) == (62_000, 60_000)


async def test_a_record_is_kept_as_it_was_when_it_was_saved(store: AnyStore) -> None:
    record = a_call()
    store.save(record)
    record.outcome = "changed afterwards"
    record.legs.clear()
    await store.flush()
    assert await store.call(record.id) == a_call()


async def test_saving_a_call_again_replaces_it(store: AnyStore) -> None:
    record = a_call()
    store.save(record)
    record.ended_by = "callee"
    record.legs.pop()
    store.save(record)
    await store.flush()
    store.save(record)
    await store.flush()
    assert await store.calls() == [record]


async def test_what_a_detail_holds_beyond_json_becomes_text(store: AnyStore) -> None:
    record = a_call()
    odd = {"path": Path("/tmp"), "at": NOON, 7: {"set"}}
    record.timeline = [Moment(NOON, 0, "odd", odd)]  # type: ignore[arg-type]
    store.save(record)
    await store.flush()
    found = await store.call(record.id)
    assert found and found.timeline[0].detail == {"path": "/tmp", "at": "2026-03-02T12:00:00+00:00", "7": "{'set'}"}


async def test_a_time_without_zone_is_refused_in_the_log_and_harms_nobody(
    store: AnyStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.save(a_call(1, started_at=datetime(2026, 3, 2, 12, 0)))
    store.save(a_call(2))
    await store.flush()
    assert await store.calls() == [a_call(2)]
    assert "a1.w1.7.1" in caplog.text and "has no time zone" in caplog.text


async def test_an_unknown_call_is_none(store: AnyStore) -> None:
    assert await store.call("a1.w1.7.404") is None


async def test_calls_are_listed_from_the_newest_page_by_page(store: AnyStore) -> None:
    # Several calls start in the same moment: no page may repeat one or skip one.
    records = [a_call(number, started_at=NOON + timedelta(minutes=number // 3)) for number in range(10)]
    for record in records:
        store.save(record)
    await store.flush()
    pages = [await store.calls(limit=4)]
    while pages[-1]:
        pages.append(await store.calls(limit=4, before=pages[-1][-1].id))
    assert [len(page) for page in pages] == [4, 4, 2, 0]
    listed = [record for page in pages for record in page]
    assert listed == sorted(records, key=lambda record: (record.started_at, record.id), reverse=True)
    assert await store.calls(before="a1.w1.7.404") == []


async def test_calls_are_listed_by_tenant_and_since_a_moment(store: AnyStore) -> None:
    late = NOON + timedelta(hours=1)
    for record in (a_call(1), a_call(2, tenant="duo"), a_call(3, started_at=late), a_call(4, tenant="duo")):
        store.save(record)
    await store.flush()
    assert await store.calls(tenant="acme") == [a_call(3, started_at=late), a_call(1)]
    assert await store.calls(since=late) == [a_call(3, started_at=late)]
    assert await store.calls(tenant="nobody") == []


async def test_a_thousand_records_saved_at_once_are_all_written(store: AnyStore) -> None:
    for number in range(1000):
        store.save(a_call(number))
    await store.flush()
    assert {record.id for record in await store.calls(limit=2000)} == {f"a1.w1.7.{number}" for number in range(1000)}


async def test_no_two_starts_of_a_worker_get_the_same_epoch(store: AnyStore) -> None:
    epochs = await asyncio.gather(*(store.next_epoch("a1", "w1") for _ in range(20)))
    assert sorted(epochs) == list(range(1, 21))
    assert await store.next_epoch("a1", "w2") == 1
    assert await store.next_epoch("a1", "w1") == 21


# Voicemail, on every kind of store


async def test_a_box_gives_unheard_messages_first_each_from_the_oldest(store: AnyStore) -> None:
    for message in (a_message("m3", minutes=3), a_message("m1", minutes=1), a_message("m2", minutes=2)):
        await store.add_message(message)
    await store.add_message(a_message("other", box="102"))
    await store.mark_heard("m1")
    assert [message.id for message in await store.messages("acme", "101")] == ["m2", "m3", "m1"]
    assert await store.messages("duo", "101") == []


async def test_a_message_is_heard_once_and_stays_until_it_is_deleted(store: AnyStore, clock: HandClock) -> None:
    await store.add_message(a_message("m1"))
    clock.advance(60)
    await store.mark_heard("m1")
    heard_at = clock.now()
    clock.advance(60)
    await store.mark_heard("m1")
    [message] = await store.messages("acme", "101")
    assert message.heard_at == heard_at
    await store.delete_message("m1")
    assert await store.messages("acme", "101") == []
    await store.delete_message("m1")
    await store.mark_heard("never recorded")


async def test_the_lamp_counts_unheard_and_heard_messages_of_each_box(store: AnyStore) -> None:
    assert await store.counts() == {}
    for id in ("m1", "m2", "m3", "m4"):
        await store.add_message(a_message(id))
    await store.add_message(a_message("m5", box="102"))
    await store.mark_heard("m1")
    await store.delete_message("m2")
    assert await store.counts() == {("acme", "101"): (2, 1), ("acme", "102"): (1, 0)}


async def test_a_message_added_twice_is_one_message(store: AnyStore) -> None:
    await store.add_message(a_message("m1"))
    await store.mark_heard("m1")
    await store.add_message(a_message("m1"))
    assert await store.counts() == {("acme", "101"): (0, 1)}


@pytest.mark.parametrize("moments", [0, 1, 2, 3, 5, 8, 13, 21, 34, 55])
async def test_a_caller_who_hangs_up_in_the_middle_harms_nothing(store: AnyStore, moments: int) -> None:
    store.save(a_call())
    await store.add_message(a_message("m0"))
    listening = [
        asyncio.create_task(work)
        for work in (store.add_message(a_message("m1")), store.add_message(a_message("m2")), store.mark_heard("m0"),
                     store.messages("acme", "101"), store.calls(), store.next_epoch("a1", "w1"))
    ]  # fmt: skip
    for _ in range(moments):
        await asyncio.sleep(0)
    for task in listening:
        task.cancel()
    await asyncio.wait(listening)
    await store.flush()
    await store.mark_heard("m0")
    assert await store.calls() == [a_call()]
    assert {message.id for message in await store.messages("acme", "101")} >= {"m0"}
    assert (await store.counts())["acme", "101"][1] == 1


# The writer, and the database away


async def test_records_are_written_without_being_asked_for(any_database: AnyDatabase, open_store: OpenStore) -> None:
    store = open_store(any_database)
    await store.open()
    before = written()
    store.save(a_call())
    await until(lambda: written() == before + 1)
    assert await store.calls() == [a_call()]


async def test_closing_writes_what_waits(any_database: AnyDatabase, open_store: OpenStore, spool: Path) -> None:
    store = open_store(any_database)
    await store.open()
    store.save(a_call())
    await store.close()
    assert spooled(spool) == 0
    again = open_store(any_database)
    await again.open()
    assert await again.calls() == [a_call()]


async def test_records_saved_while_the_database_is_away_are_written_once_when_it_is_back(
    any_database: AnyDatabase, open_store: OpenStore, spool: Path
) -> None:
    store = open_store(any_database)
    await store.open()
    store.save(a_call(0))
    await store.flush()
    before = written()
    with any_database.away():
        store.save(a_call(1))
        await until(lambda: spooled(spool) == 1)
        for number in range(2, 500):
            store.save(a_call(number))
        await until(lambda: spooled(spool) == 499)
        assert REGISTRY.get_sample_value("pbx_records_waiting") == 499
        changed = a_call(1)
        changed.outcome = "changed"
        store.save(changed)
    await until(lambda: spooled(spool) == 0 and written() == before + 500)
    assert len(await store.calls(limit=1000)) == 500
    assert await store.call(changed.id) == changed
    assert REGISTRY.get_sample_value("pbx_records_waiting") == 0


async def test_what_arrives_while_a_long_spool_is_written_does_not_fill_the_memory(
    any_database: AnyDatabase, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pbx.outbox._GROUP", 1)
    monkeypatch.setattr("pbx.outbox._MOST_IN_MEMORY", 40)
    store = open_store(any_database)
    await store.open()
    with any_database.away():
        for number in range(30):
            store.save(a_call(number))
        with pytest.raises(StoreError):
            await store.flush()
    monkeypatch.setattr("pbx.outbox._MOST_IN_MEMORY", 5)
    catching_up = asyncio.create_task(store.flush())
    saved, seen = 30, written()
    while not catching_up.done():
        if written() > seen and saved < 60:  # at most one more for each that is written
            seen = written()
            store.save(a_call(saved))
            saved += 1
        await asyncio.sleep(0)
    await store.flush()
    assert saved > 40
    assert len(await store.calls(limit=100)) == saved


async def test_a_message_left_while_the_database_is_away_is_there_when_it_is_back(
    any_database: AnyDatabase, open_store: OpenStore, spool: Path
) -> None:
    store = open_store(any_database)
    await store.open()
    before = written()
    with any_database.away():
        await store.add_message(a_message("m1"))
        assert spooled(spool) == 1
    await store.flush()
    assert await store.messages("acme", "101") == [a_message("m1")]
    assert written() == before  # which counts calls


async def test_without_a_spool_records_wait_in_memory(any_database: AnyDatabase, open_store: OpenStore) -> None:
    store = open_store(any_database, spool=None)
    await store.open()
    with any_database.away():
        store.save(a_call())
        with pytest.raises(StoreError):
            await store.flush()
    await store.flush()
    assert await store.calls() == [a_call()]


async def test_records_that_a_stop_would_lose_are_named_in_the_log(
    any_database: AnyDatabase, open_store: OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(any_database, spool=None)
    await store.open()
    with any_database.away():
        store.save(a_call())
        await store.close()
    assert "1 records are lost" in caplog.text


async def test_memory_is_bounded_when_nothing_can_be_written(
    any_database: AnyDatabase, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pbx.outbox._MOST_IN_MEMORY", 3)
    store = open_store(any_database, spool=None)
    await store.open()
    with any_database.away():
        for number in range(5):
            store.save(a_call(number))
    assert "a1.w1.7.3" in caplog.text and "a1.w1.7.4" in caplog.text
    await store.flush()
    assert [record.id for record in await store.calls()] == ["a1.w1.7.2", "a1.w1.7.1", "a1.w1.7.0"]


async def test_what_waits_at_the_stop_is_written_by_the_next_engine(
    any_database: AnyDatabase, open_store: OpenStore, spool: Path
) -> None:
    store = open_store(any_database)
    await store.open()
    with any_database.away():
        store.save(a_call())
        await store.close()
        assert spooled(spool) == 1
    again = open_store(any_database)
    await again.open()
    await until(lambda: spooled(spool) == 0)
    assert await again.calls() == [a_call()]


async def test_records_written_again_after_a_crash_are_there_once(
    any_database: AnyDatabase, open_store: OpenStore, spool: Path
) -> None:
    store = open_store(any_database)
    await store.open()
    with any_database.away():
        for number in range(3):
            store.save(a_call(number))
        await until(lambda: spooled(spool) == 3)
        left = spool.read_bytes()
    await store.flush()
    await store.close()
    # A crash between the last group and the emptying of the spool leaves the lines in it.
    spool.write_bytes(left)
    again = open_store(any_database)
    await again.open()
    await again.flush()
    assert await again.calls() == [a_call(2), a_call(1), a_call(0)]


_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from test_store import HandClock, a_call
from pbx.store import Store

async def main():
    store = Store(sys.argv[1], clock=HandClock(), spool=Path(sys.argv[2]), patience=0.2)
    await store.open()
    print("open", flush=True)
    sys.stdin.readline()
    for number in range(20):
        store.save(a_call(number))
    while store._outbox._spool.waiting < 20:
        await asyncio.sleep(0.01)
    store.save(a_call(20))  # this one has not reached the disk
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_an_engine_killed_during_an_outage_loses_nothing_that_was_spooled(
    any_database: AnyDatabase, open_store: OpenStore, spool: Path
) -> None:
    engine = subprocess.Popen(
        [sys.executable, "-c", _KILLED, any_database.url, str(spool)],
        cwd=Path(__file__).parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with engine:
        assert engine.stdin and engine.stdout and engine.stdout.readline() == b"open\n"
        with any_database.away():
            engine.stdin.write(b"the database is away\n")
            engine.stdin.flush()
            engine.wait(timeout=60)
    store = open_store(any_database)
    await store.open()
    await store.flush()
    assert {record.id for record in await store.calls()} == {f"a1.w1.7.{number}" for number in range(20)}


async def test_a_record_that_no_database_would_take_is_set_aside_and_holds_up_no_other(
    any_database: AnyDatabase, open_store: OpenStore, spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(any_database)
    await store.open()
    for number in range(5):
        record = a_call(number)
        record.cause = 2**63 if number == 2 else 16
        store.save(record)
    await store.flush()
    assert [record.id for record in await store.calls()] == [f"a1.w1.7.{number}" for number in (4, 3, 1, 0)]
    aside = spool.with_suffix(".refused")
    assert json.loads(aside.read_bytes())["call"]["id"] == "a1.w1.7.2"
    assert str(aside) in caplog.text


async def test_a_damaged_line_of_the_spool_is_set_aside(
    any_database: AnyDatabase, open_store: OpenStore, spool: Path
) -> None:
    spool.parent.mkdir()
    spool.write_bytes(b'{"call": {"id": "a1.w1.6.1"}}\nnot even JSON\n')
    store = open_store(any_database)
    await store.open()
    store.save(a_call())
    await store.flush()
    assert await store.calls() == [a_call()]
    assert spooled(spool.with_suffix(".refused")) == 2


async def test_one_spool_serves_one_engine(any_database: AnyDatabase, open_store: OpenStore) -> None:
    await open_store(any_database).open()
    with pytest.raises(StoreError, match="another PBX is running here"):
        await open_store(any_database).open()


async def test_a_spool_that_cannot_be_written_is_said_at_the_start(
    any_database: AnyDatabase, open_store: OpenStore, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file/spool cannot be used"):
        await open_store(any_database, spool=tmp_path / "file" / "spool").open()


# The spool by itself


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(st.binary(max_size=9).filter(lambda line: b"\n" not in line))), data=st.data())
def test_a_spool_torn_at_any_byte_gives_back_every_whole_line(
    tmp_path: Path, batches: list[list[bytes]], data: st.DataObject
) -> None:
    path = tmp_path / "spool"
    path.unlink(missing_ok=True)
    spool = Spool(path)
    spool.open()
    for lines in batches:
        spool.append(lines)
    spool.close()
    whole = path.read_bytes()
    torn = whole[: data.draw(st.integers(0, len(whole)))]
    path.write_bytes(torn)
    again = Spool(path)
    again.open()
    again.append([b"after the crash"])
    assert again.head(again.waiting + 1) == [*torn.split(b"\n")[:-1], b"after the crash"]
    again.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.integers(0, 3) | st.just(-1)))
def test_a_spool_gives_its_lines_in_order_until_it_is_empty(tmp_path: Path, steps: list[int]) -> None:
    path = tmp_path / "spool"
    path.unlink(missing_ok=True)
    spool = Spool(path)
    spool.open()
    expected: list[bytes] = []
    for count, step in enumerate(steps):
        if step < 0:
            lines = [b"%d.%d" % (count, line) for line in range(3)]
            spool.append(lines)
            expected += lines
        else:
            assert (head := spool.head(step)) == expected[:step]
            spool.forget(head)
            del expected[: len(head)]
        assert spool.waiting == len(expected)
    if not expected:
        assert path.stat().st_size == 0
    spool.close()


# The schema


async def test_the_migrations_make_the_tables_that_the_store_uses(
    any_database: AnyDatabase, open_store: OpenStore
) -> None:
    await open_store(any_database).open()
    database = Database(any_database.url, patience=5)
    async with database.transaction() as connection:
        assert await connection.run_sync(_differences) == []
    await database.close()


def _differences(connection: Connection) -> list[object]:
    return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), schema))


async def test_opening_again_upgrades_nothing_and_keeps_everything(
    any_database: AnyDatabase, open_store: OpenStore
) -> None:
    for _ in range(2):
        store = open_store(any_database)
        await store.open()
        store.save(a_call())
        await store.close()
    last = open_store(any_database)
    await last.open()
    assert await last.calls() == [a_call()]


async def test_engines_that_start_together_upgrade_once(
    any_database: AnyDatabase, open_store: OpenStore, tmp_path: Path
) -> None:
    stores = [open_store(any_database, tmp_path / f"spool{number}", patience=30) for number in range(4)]
    async with asyncio.TaskGroup() as together:
        for store in stores:
            together.create_task(store.open())
    assert sorted([await store.next_epoch("a1", "w1") for store in stores]) == [1, 2, 3, 4]


async def test_an_upgrade_that_fails_leaves_nothing_half_done(any_database: AnyDatabase, open_store: OpenStore) -> None:
    database = Database(any_database.url, patience=5)
    async with database.transaction() as connection:
        await connection.execute(text("CREATE TABLE workers (somebody_elses INTEGER)"))
    with pytest.raises(StoreError, match="workers"):
        await open_store(any_database).open()
    async with database.transaction() as connection:
        assert await connection.run_sync(_tables) == {"workers"}
    await database.close()


def _tables(connection: Connection) -> set[str]:
    return set(connection.dialect.get_table_names(connection))


async def test_a_schema_newer_than_the_engine_is_left_alone(any_database: AnyDatabase, open_store: OpenStore) -> None:
    store = open_store(any_database)
    await store.open()
    await store.close()
    database = Database(any_database.url, patience=5)
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9000'"))
    with pytest.raises(StoreError, match='schema "9000", made by a newer engine.*install the newer engine'):
        await open_store(any_database).open()
    await database.close()


# Failures in plain words


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "not a URL: write sqlite:///var/pbx.db or postgresql://"),
        ("var/pbx.db", "not a URL"),
        ("postgresql://pbx:sesame@host:port/pbx", "not a URL"),
        ("mysql://pbx:sesame@host/pbx", 'begins with "mysql"'),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite://var/pbx.db", "names no file"),
        ("postgresql://pbx:sesame@host/pbx?pool=4", 'unknown setting "pool" in the database address'),
    ],
)
def test_an_address_that_cannot_be_right_is_refused_at_once(url: str, message: str, clock: HandClock) -> None:
    with pytest.raises(StoreError) as refused:
        Store(url, clock=clock, spool=None)
    assert message in str(refused.value)
    assert "sesame" not in "".join(map(str, (refused.value, refused.value.__cause__)))


@pytest.mark.parametrize("driver", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_an_address_is_shown_without_user_and_password(driver: str) -> None:
    database = Database(f"{driver}://pbx:sesame@db.example:5433/records?sslmode=require", patience=1)
    assert str(database) == 'PostgreSQL database "records" at db.example:5433'
    assert str(Database("sqlite+aiosqlite:///var/pbx.db", patience=1)) == "SQLite file var/pbx.db"


async def _refusal(url: str, clock: HandClock) -> str:
    with pytest.raises(StoreError) as refused:
        await Store(url, clock=clock, spool=None, patience=0.2).open()
    return str(refused.value)


async def test_an_sqlite_file_that_cannot_be_used_is_named_with_a_remedy(tmp_path: Path, clock: HandClock) -> None:
    missing = tmp_path / "missing" / "pbx.db"
    assert f"SQLite file {missing}: No such file or directory: its folder must" in await _refusal(
        f"sqlite:///{missing}", clock
    )
    assert "Is a directory" in await _refusal(f"sqlite:///{tmp_path}", clock)
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG" * 1000)
    assert "file is not a database: name another file" in await _refusal(f"sqlite:///{picture}", clock)


async def test_an_sqlite_file_that_another_program_keeps_is_said_so(
    sqlite_database: SqliteDatabase, clock: HandClock
) -> None:
    with sqlite_database.away():
        assert "database is locked: another program keeps it" in await _refusal(sqlite_database.url, clock)


async def test_records_in_sqlite_are_private_to_their_user(
    sqlite_database: SqliteDatabase, open_store: OpenStore, spool: Path
) -> None:
    store = open_store(sqlite_database)
    await store.open()
    store.save(a_call())
    await store.flush()
    files = [*sqlite_database.path.parent.glob("pbx.db*"), spool]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


async def test_a_postgresql_that_cannot_be_used_is_named_with_a_remedy(
    postgres_server: PostgresServer, postgres_database: PostgresDatabase, clock: HandClock
) -> None:
    nowhere = await _refusal("postgresql://pbx:sesame@127.0.0.1:1/pbx", clock)
    assert 'PostgreSQL database "pbx" at 127.0.0.1:1: ' in nowhere and "is it running" in nowhere
    locked = postgres_server.url(postgres_database.name, "locked:open")
    assert "correct the password" in await _refusal(locked, clock)
    unknown = await _refusal(postgres_server.url("unknown"), clock)
    assert 'database "unknown" does not exist: create it with createdb' in unknown
    rights = await _refusal(postgres_server.url(postgres_database.name, "locked:sesame"), clock)
    assert "permission denied for schema public: make this user the owner" in rights
    assert "sesame" not in nowhere + rights


async def test_a_read_fails_in_plain_words_and_works_again_when_the_database_is_back(
    postgres_database: PostgresDatabase, open_store: OpenStore
) -> None:
    store = open_store(postgres_database)
    await store.open()
    with postgres_database.away():
        with pytest.raises(StoreError, match="not currently accepting connections"):
            await store.calls()
    assert await store.calls() == []


async def test_an_error_quotes_no_caller(any_database: AnyDatabase, open_store: OpenStore) -> None:
    await open_store(any_database).open()
    database = Database(any_database.url, patience=5)
    with pytest.raises(StoreError) as refused:
        async with database.transaction() as connection:
            await connection.execute(insert(calls), {"id": "a1.w1.7.1", "caller_number": "+33639980001"})
    await database.close()
    assert refused.value.record_at_fault
    assert "calls" in str(refused.value) and "+33639980001" not in f"{refused.value} {refused.value.__cause__}"


async def test_no_record_and_no_password_reaches_the_log_of_an_outage(
    any_database: AnyDatabase, open_store: OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "pbx")
    store = open_store(any_database)
    await store.open()
    with any_database.away():
        store.save(a_call())
        await until(lambda: "1 records wait" in caplog.text)
    assert "+33639980001" not in caplog.text and "Zoé" not in caplog.text


def test_the_database_of_sqlite_is_never_corrupted_by_a_crash(tmp_path: Path) -> None:
    """The settings that this rests on."""
    path = tmp_path / "pbx.db"

    async def story() -> None:
        database = Database(f"sqlite:///{path}", patience=1)
        await database.open()
        async with database.transaction() as connection:
            for name, value in {"synchronous": 1, "foreign_keys": 1}.items():
                assert (await connection.execute(text(f"PRAGMA {name}"))).scalar_one() == value
        await database.close()

    asyncio.run(story())
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
