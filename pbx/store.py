"""What the PBX remembers: one record per conversation with its legs and timeline, and the voicemail messages.

A call never waits for its record. `Store.save` hands it to a writer, which puts what arrives within a moment into one
transaction. While the database is away, records go to a spool on disk and are written when it is back, also by
the next engine: each exactly once, since writing a record again changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from collections.abc import Coroutine
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import Any
from typing import Concatenate
from typing import ParamSpec
from typing import TypeVar

import orjson
from sqlalchemy import Executable
from sqlalchemy import Table
from sqlalchemy import and_
from sqlalchemy import delete
from sqlalchemy import func
from sqlalchemy import insert
from sqlalchemy import select
from sqlalchemy import tuple_
from sqlalchemy import update

from pbx import database
from pbx import metrics
from pbx.clock import Clock
from pbx.database import Database
from pbx.database import StoreError
from pbx.outbox import Outbox

__all__ = ["AnyStore", "CallRecord", "LegRecord", "MemoryStore", "Message", "Moment", "State", "Store", "StoreError"]

log = logging.getLogger(__name__)

State = dict[str, Any]  # what JSON can hold

_ZERO = timedelta()
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(slots=True)
class LegRecord:
    """One outbound leg of a call: who was tried, over which endpoint, and what became of it.

    Times are aware and in UTC; a time that never came is None. `outcome` is "answered", "busy", "no_answer",
    "unreachable", "refused", "cancelled" or "answered_elsewhere"; `cause` is the Q.850 hangup cause;
    `ended_by` is "caller", "callee", "engine" or "asterisk".
    """

    id: str
    number: int  # 1 for the first leg of the call
    target: str  # whom: "101", "+33199000101"
    endpoint: str  # through what: "PJSIP/acme-101"
    name: str = ""
    created_at: datetime | None = None
    ringing_at: datetime | None = None
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    outcome: str = ""
    cause: int = 0
    ended_by: str = ""


@dataclass(slots=True)
class Moment:
    """One line of a call's timeline: an event or a decision. `detail` holds what JSON can hold."""

    at: datetime
    offset_ms: int  # since the start of the call, by a clock that never steps back
    kind: str
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class CallRecord:
    """One conversation. `direction` is "inbound", "outbound" or "internal"; the rest reads as in LegRecord."""

    id: str
    node: str
    worker: str
    epoch: int
    tenant: str
    direction: str
    caller_number: str
    caller_name: str
    dialled: str
    plan_version: str
    started_at: datetime
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    outcome: str = ""
    cause: int = 0
    ended_by: str = ""
    legs: list[LegRecord] = field(default_factory=list)
    timeline: list[Moment] = field(default_factory=list)

    @property
    def duration_ms(self) -> int:
        """From the first to the last moment of the call; 0 while it goes on, and never negative."""
        return _ms_between(self.started_at, self.ended_at)

    @property
    def talk_ms(self) -> int:
        """From the answer to the end; never more than `duration_ms`, even when the wall clock was set back."""
        return min(_ms_between(self.answered_at, self.ended_at), self.duration_ms)


@dataclass(slots=True)
class Message:
    """One voicemail message. `file` is the recording's name in Asterisk, without extension."""

    id: str
    tenant: str
    box: str
    call_id: str
    caller_number: str
    caller_name: str
    recorded_at: datetime
    duration_ms: int
    file: str
    heard_at: datetime | None = None
    deleted_at: datetime | None = None


_P = ParamSpec("_P")
_T = TypeVar("_T")
_Method = Callable[Concatenate["Store", _P], Coroutine[Any, Any, _T]]


def _to_its_end(method: _Method[_P, _T]) -> _Method[_P, _T]:
    """Carries the method on when the task that called it is cancelled, as a call is when the caller hangs up."""

    @wraps(method)
    async def run(store: Store, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await store._database.to_its_end(method(store, *args, **kwargs))

    return run


class Store:
    """Records in a database, by URL: sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME.

    `spool` is the file where records wait while the database is away; without one they wait in memory only.
    `patience` is how many seconds one attempt may take. Methods that read raise StoreError when the database is away.
    """

    def __init__(self, url: str, *, clock: Clock, spool: Path | None, patience: float = 5.0) -> None:
        self._database = Database(url, patience)
        self._add_or_replace = _add_or_replace(self._database, database.calls)
        self._clock = clock
        self._outbox = Outbox(spool, self._write)

    async def open(self) -> None:
        """Upgrades the schema, then starts to write, first what an earlier engine left in the spool.

        Raises StoreError when the database or the spool cannot be used.
        """
        await self._database.open()
        try:
            await self._outbox.open()
        except StoreError:
            await self._database.close()
            raise

    async def close(self) -> None:
        """Writes everything that waits, to the spool if the database is away, and lets go of both."""
        await self._outbox.close()
        await self._database.close()

    def save(self, record: CallRecord) -> None:
        """Keeps the record as it is now. Never waits, never raises; saving it again later replaces it."""
        try:
            self._outbox.put(_line("call", record))
        except (TypeError, StoreError):
            log.exception("the record of call %s cannot be kept", record.id)

    @_to_its_end
    async def flush(self) -> None:
        """Waits until everything saved so far is in the database. Raises StoreError when it is away."""
        await self._outbox.flush()

    @_to_its_end
    async def next_epoch(self, node: str, worker: str) -> int:
        """Counts the starts of a worker: 1 at the first. No two callers ever get the same number."""
        workers = database.workers
        counted = self._database.insert(workers).values(node=node, worker=worker, epoch=1)
        counted = counted.on_conflict_do_update(
            index_elements=["node", "worker"], set_={"epoch": workers.c.epoch + 1}
        )
        async with self._database.transaction() as connection:
            return int((await connection.execute(counted.returning(workers.c.epoch))).scalar_one())

    async def calls(
        self, *, tenant: str | None = None, since: datetime | None = None, before: str | None = None, limit: int = 50
    ) -> list[CallRecord]:
        """Recorded calls, newest start first; the next page is `before` the id of the last. At most 10,000 at once."""
        table = database.calls
        place = tuple_(table.c.started_at, table.c.id)
        query = select(table).order_by(table.c.started_at.desc(), table.c.id.desc()).limit(limit)
        if tenant is not None:
            query = query.where(table.c.tenant == tenant)
        if since is not None:
            query = query.where(table.c.started_at >= since)
        if before is not None:
            cursor = table.alias()
            reached = select(cursor.c.started_at, cursor.c.id).where(cursor.c.id == before)
            query = query.where(place < reached.scalar_subquery())
        return await self._records(query)

    async def call(self, id: str) -> CallRecord | None:
        found = await self._records(select(database.calls).where(database.calls.c.id == id))
        return found[0] if found else None

    async def add_message(self, message: Message) -> None:
        """Returns when the message is in the database or, while that is away, in the spool."""
        self._outbox.put(_line("message", message))
        # The message waits like a record, and the writer reports that the database is away.
        with suppress(StoreError):
            await self.flush()

    @_to_its_end
    async def messages(self, tenant: str, box: str) -> list[Message]:
        """What is in a box: the unheard messages, then the heard ones, each from the oldest."""
        table = database.messages
        query = select(table).where(table.c.tenant == tenant, table.c.box == box, table.c.deleted_at.is_(None))
        query = query.order_by(table.c.heard_at.is_not(None), table.c.recorded_at, table.c.id)
        async with self._database.transaction() as connection:
            return [Message(**row) for row in (await connection.execute(query)).mappings()]

    async def mark_heard(self, id: str) -> None:
        await self._stamp(id, "heard_at")

    async def delete_message(self, id: str) -> None:
        await self._stamp(id, "deleted_at")

    @_to_its_end
    async def counts(self) -> dict[tuple[str, str], tuple[int, int]]:
        """(unheard, heard) messages of every box that has any, by (tenant, box)."""
        table = database.messages
        query = select(table.c.tenant, table.c.box, func.count(), func.count(table.c.heard_at))
        query = query.where(table.c.deleted_at.is_(None)).group_by(table.c.tenant, table.c.box)
        async with self._database.transaction() as connection:
            rows = (await connection.execute(query)).all()
        return {(tenant, box): (every - heard, heard) for tenant, box, every, heard in rows}

    # -- what policies remember -----------------------------------------------------------------

    @_to_its_end
    async def states(self, policy: str, tenant: str | None = None) -> dict[tuple[str, str], State]:
        """All that a policy remembers, of one tenant or of all, by (tenant, key)."""
        table = database.policy_states
        query = select(table).where(table.c.policy == policy)
        if tenant is not None:
            query = query.where(table.c.tenant == tenant)
        async with self._database.transaction() as connection:
            rows = (await connection.execute(query)).mappings()
            return {(row["tenant"], row["key"]): row["state"] for row in rows}

    @_to_its_end
    async def change(self, policy: str, tenant: str, key: str, change: Callable[[State], _T]) -> _T:
        """Lets `change` alter what a policy remembers under a key (at first nothing), and gives what it returns.

        Of several engines that change the same at once, each sees what the one before it made of it.
        """
        table = database.policy_states
        row = {"policy": policy, "tenant": tenant, "key": key}
        this = and_(*(table.c[name] == value for name, value in row.items()))
        async with self._database.transaction(reads_to_write=True) as connection:
            await connection.execute(self._database.insert(table).values(**row, state={}).on_conflict_do_nothing())
            state = (await connection.execute(select(table.c.state).where(this).with_for_update())).scalar_one()
            result = change(state)
            await connection.execute(update(table).where(this).values(state=state))
        return result

    @_to_its_end
    async def _records(self, query: Any) -> list[CallRecord]:
        async with self._database.transaction() as connection:
            found = (await connection.execute(query)).mappings().all()
            legs = select(database.legs).where(database.legs.c.call_id.in_([row["id"] for row in found]))
            of_call: dict[str, list[dict[str, Any]]] = {row["id"]: [] for row in found}
            for leg in (await connection.execute(legs.order_by(database.legs.c.number, database.legs.c.id))).mappings():
                of_call[leg["call_id"]].append({name: value for name, value in leg.items() if name != "call_id"})
        return [_record({**row, "legs": of_call[row["id"]]}) for row in found]

    @_to_its_end
    async def _stamp(self, message_id: str, column: str) -> None:
        # Only the first time counts, however often the listener presses the key.
        table = database.messages
        change = update(table).where(table.c.id == message_id, table.c[column].is_(None))
        async with self._database.transaction() as connection:
            await connection.execute(change.values({column: self._clock.now()}))

    async def _write(self, lines: Sequence[bytes]) -> None:
        """All the lines in one transaction. Raises StoreError."""
        try:
            items = [orjson.loads(line) for line in lines]
            # The youngest version of a call that was saved several times.
            calls = {item["call"]["id"]: _with_times(item["call"]) for item in items if "call" in item}
            messages = [_with_times(item["message"]) for item in items if "message" in item]
            legs = [{"call_id": id, **_with_times(leg)} for id, call in calls.items() for leg in call.pop("legs")]
            async with self._database.transaction() as connection:
                if calls:
                    await connection.execute(self._add_or_replace, list(calls.values()))
                    await connection.execute(delete(database.legs).where(database.legs.c.call_id.in_(list(calls))))
                if legs:
                    await connection.execute(insert(database.legs), legs)
                if messages:
                    add = self._database.insert(database.messages).on_conflict_do_nothing()
                    await connection.execute(add, messages)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise StoreError(f"a record does not fit: {error!r}", record_at_fault=True) from error
        metrics.records_written.inc(len(calls))


class MemoryStore:
    """A Store without a database, for simulations and tests: nothing waits, nothing outlives the process."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._calls: dict[str, bytes] = {}
        self._messages: dict[str, Message] = {}
        self._epochs: dict[tuple[str, str], int] = {}
        self._states: dict[tuple[str, str, str], bytes] = {}

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def save(self, record: CallRecord) -> None:
        # Kept as the line a Store would keep, so that a record no database would take is noticed here too.
        try:
            self._calls[record.id] = _line("call", record)
        except TypeError:
            log.exception("the record of call %s cannot be kept", record.id)

    async def flush(self) -> None:
        pass

    async def next_epoch(self, node: str, worker: str) -> int:
        self._epochs[node, worker] = self._epochs.get((node, worker), 0) + 1
        return self._epochs[node, worker]

    async def calls(
        self, *, tenant: str | None = None, since: datetime | None = None, before: str | None = None, limit: int = 50
    ) -> list[CallRecord]:
        records = sorted(map(_from_line, self._calls.values()), key=_place, reverse=True)
        if before is not None:
            cursor = await self.call(before)
            records = [record for record in records if cursor and _place(record) < _place(cursor)]
        return [
            record
            for record in records
            if (tenant is None or record.tenant == tenant) and (since is None or record.started_at >= since)
        ][:limit]

    async def call(self, id: str) -> CallRecord | None:
        line = self._calls.get(id)
        return _from_line(line) if line else None

    async def add_message(self, message: Message) -> None:
        self._messages.setdefault(message.id, replace(message))

    async def messages(self, tenant: str, box: str) -> list[Message]:
        found = [replace(message) for message in self._in_boxes() if (message.tenant, message.box) == (tenant, box)]
        return sorted(found, key=lambda message: (message.heard_at is not None, message.recorded_at, message.id))

    async def mark_heard(self, id: str) -> None:
        if (message := self._messages.get(id)) and message.heard_at is None:
            message.heard_at = self._clock.now()

    async def delete_message(self, id: str) -> None:
        if (message := self._messages.get(id)) and message.deleted_at is None:
            message.deleted_at = self._clock.now()

    async def counts(self) -> dict[tuple[str, str], tuple[int, int]]:
        counts: dict[tuple[str, str], tuple[int, int]] = {}
        for message in self._in_boxes():
            new, old = counts.get((message.tenant, message.box), (0, 0))
            heard = message.heard_at is not None
            counts[message.tenant, message.box] = (new + (not heard), old + heard)
        return counts

    async def states(self, policy: str, tenant: str | None = None) -> dict[tuple[str, str], State]:
        return {
            (of, key): orjson.loads(state) for (name, of, key), state in self._states.items()
            if name == policy and tenant in (None, of)
        }

    async def change(self, policy: str, tenant: str, key: str, change: Callable[[State], _T]) -> _T:
        state = orjson.loads(self._states.get((policy, tenant, key), b"{}"))
        result = change(state)
        self._states[policy, tenant, key] = orjson.dumps(state)
        return result

    def _in_boxes(self) -> Iterable[Message]:
        return (message for message in self._messages.values() if message.deleted_at is None)


AnyStore = Store | MemoryStore


def _ms_between(start: datetime | None, end: datetime | None) -> int:
    if start is None or end is None:
        return 0
    return max(end - start, _ZERO) // _MILLISECOND


def _line(kind: str, item: CallRecord | Message) -> bytes:
    """A record as one line of JSON, the form in which it waits. Raises TypeError for a time without zone."""
    return orjson.dumps({kind: item}, _plain, orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_NON_STR_KEYS)


def _plain(value: object) -> str:
    if not isinstance(value, datetime):
        return str(value)
    if value.tzinfo is None:
        raise ValueError(f"{value} has no time zone")
    return value.astimezone(UTC).isoformat()


def _from_line(line: bytes) -> CallRecord:
    call = _with_times(orjson.loads(line)["call"])
    return _record({**call, "legs": [_with_times(leg) for leg in call["legs"]]})


def _with_times(row: dict[str, Any]) -> dict[str, Any]:
    for name, value in row.items():
        if name.endswith("_at") and value is not None:
            row[name] = datetime.fromisoformat(value)
    return row


def _record(row: Mapping[str, Any]) -> CallRecord:
    legs = [LegRecord(**leg) for leg in row["legs"]]
    timeline = [Moment(**{**moment, "at": datetime.fromisoformat(moment["at"])}) for moment in row["timeline"]]
    return CallRecord(**{**row, "legs": legs, "timeline": timeline})


def _add_or_replace(target: Database, table: Table) -> Executable:
    """Made once: SQLAlchemy takes longer to put it together than the database to carry it out."""
    adding = target.insert(table)
    others = {column.name: adding.excluded[column.name] for column in table.columns if not column.primary_key}
    return adding.on_conflict_do_update(index_elements=list(table.primary_key), set_=others)


def _place(record: CallRecord) -> tuple[datetime, str]:
    return record.started_at, record.id
