"""The database behind the store: its address, tables, schema upgrades, and its failures in plain words.

SQLite needs no set-up and carries a company's calls; PostgreSQL serves several engines. `Database` hides which it is.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from collections.abc import Coroutine
from collections.abc import Mapping
from contextlib import asynccontextmanager
from datetime import UTC
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any
from typing import TypeVar

import orjson
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import JSON
from sqlalchemy import URL
from sqlalchemy import BigInteger
from sqlalchemy import Column
from sqlalchemy import Connection
from sqlalchemy import DateTime
from sqlalchemy import Dialect
from sqlalchemy import ForeignKey
from sqlalchemy import Index
from sqlalchemy import Integer
from sqlalchemy import MetaData
from sqlalchemy import Table
from sqlalchemy import Text
from sqlalchemy import TypeDecorator
from sqlalchemy import event
from sqlalchemy import make_url
from sqlalchemy import text
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import ArgumentError
from sqlalchemy.exc import DataError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import IntegrityError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.asyncio import create_async_engine

_DRIVERS: Mapping[str, str] = MappingProxyType(
    {
        "sqlite": "sqlite+aiosqlite",
        "sqlite+aiosqlite": "sqlite+aiosqlite",
        "postgres": "postgresql+asyncpg",
        "postgresql": "postgresql+asyncpg",
        "postgresql+asyncpg": "postgresql+asyncpg",
    }
)
_T = TypeVar("_T")

_ADDRESS_HELP = "write sqlite:///var/pbx.db or postgresql://USER:PASSWORD@HOST/NAME"
_POSTGRESQL_SETTINGS = ("host", "port", "ssl", "sslmode")
# "pbx" in ASCII: engines that start together on one PostgreSQL upgrade its schema one after the other.
_UPGRADE_LOCK = 0x706278


class StoreError(Exception):
    """What was asked of the store cannot be done now; the message says why, and what helps.

    `record_at_fault` tells a record that no database would take from a database that is away.
    """

    def __init__(self, message: str, *, record_at_fault: bool = False) -> None:
        super().__init__(message)
        self.record_at_fault = record_at_fault


class UtcTime(TypeDecorator[datetime]):
    """An aware datetime, kept in UTC. SQLite stores no zone, so one that has none is refused before it gets there."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


def _required(name: str, kind: Any) -> Column[Any]:
    return Column(name, kind, nullable=False)


schema = MetaData()

calls = Table(
    "calls",
    schema,
    Column("id", Text, primary_key=True),
    _required("node", Text),
    _required("worker", Text),
    _required("epoch", BigInteger),
    _required("tenant", Text),
    _required("direction", Text),
    _required("caller_number", Text),
    _required("caller_name", Text),
    _required("dialled", Text),
    _required("plan_version", Text),
    _required("started_at", UtcTime),
    Column("answered_at", UtcTime),
    Column("ended_at", UtcTime),
    _required("outcome", Text),
    _required("cause", Integer),
    _required("ended_by", Text),
    # The whole timeline is written once and read at once, and nothing searches in it: one value of the row costs
    # a fraction of a row per moment. It stands last, where SQLite can skip it on overflow pages.
    _required("timeline", JSON),
    Index("calls_by_time", "started_at", "id"),
    Index("calls_by_tenant", "tenant", "started_at", "id"),
)

legs = Table(
    "legs",
    schema,
    Column("call_id", Text, ForeignKey("calls.id", ondelete="CASCADE"), primary_key=True),
    Column("id", Text, primary_key=True),
    _required("number", Integer),
    _required("target", Text),
    _required("endpoint", Text),
    _required("name", Text),
    Column("created_at", UtcTime),
    Column("ringing_at", UtcTime),
    Column("answered_at", UtcTime),
    Column("ended_at", UtcTime),
    _required("outcome", Text),
    _required("cause", Integer),
    _required("ended_by", Text),
)

# A message may be stored before the record of its call, which is written when the call ends: no foreign key.
messages = Table(
    "messages",
    schema,
    Column("id", Text, primary_key=True),
    _required("tenant", Text),
    _required("box", Text),
    _required("call_id", Text),
    _required("caller_number", Text),
    _required("caller_name", Text),
    _required("recorded_at", UtcTime),
    _required("duration_ms", BigInteger),
    _required("file", Text),
    Column("heard_at", UtcTime),
    Column("deleted_at", UtcTime),
    # Covers what is in the boxes and what the lamps show; deleted messages cost nothing.
    Index(
        "messages_in_boxes", "tenant", "box", "heard_at",
        sqlite_where=text("deleted_at IS NULL"), postgresql_where=text("deleted_at IS NULL"),
    ),
)

workers = Table(
    "workers",
    schema,
    Column("node", Text, primary_key=True),
    Column("worker", Text, primary_key=True),
    _required("epoch", BigInteger),
)

# What policies remember, each in a form of its own; nothing searches inside.
policy_states = Table(
    "policy_states",
    schema,
    Column("policy", Text, primary_key=True),
    Column("tenant", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    _required("state", JSON),
)


class Database:
    """An SQLite file or a PostgreSQL database, at the current schema once `open` has returned.

    Every failure leaves as a StoreError. `patience` is how many seconds one attempt may take: to connect, to wait
    for another program's lock, to run a statement.
    """

    def __init__(self, address: str, patience: float) -> None:
        self._url = _url(address)
        self._sqlite = self._url.get_backend_name() == "sqlite"
        self._patience = patience
        self._running: set[asyncio.Task[Any]] = set()
        timeouts = {"timeout": patience} if self._sqlite else {"timeout": patience, "command_timeout": patience}
        self._engine = create_async_engine(
            self._url,
            connect_args=timeouts,
            pool_timeout=patience,
            pool_pre_ping=not self._sqlite,
            json_serializer=lambda value: orjson.dumps(value).decode(),
            json_deserializer=orjson.loads,
            # Errors quote statements; the numbers and names of callers stay out of logs.
            hide_parameters=True,
        )
        if self._sqlite:
            event.listen(self._engine.sync_engine, "connect", _set_up_sqlite)
            event.listen(self._engine.sync_engine, "begin", _begin_sqlite)

    def __str__(self) -> str:
        """Which database this is, without user and password: "SQLite file var/pbx.db"."""
        if self._sqlite:
            return f"SQLite file {self._url.database}"
        host = self._url.host or self._url.query.get("host", "localhost")
        port = f":{self._url.port}" if self._url.port else ""
        return f'PostgreSQL database "{self._url.database or self._url.username}" at {host}{port}'

    async def open(self) -> None:
        """Connects and brings the schema up to date: all of an upgrade or nothing of it.

        Raises StoreError when the database cannot be reached or written, or its schema is newer than this engine.
        """
        try:
            if self._sqlite:
                _create_private_file(Path(str(self._url.database)))
            async with self._engine.connect() as connection:
                await connection.execution_options(begin="BEGIN IMMEDIATE")
                async with connection.begin():
                    await connection.run_sync(self._upgrade)
        except BaseException as error:
            # Whatever it is, cancellation too: a connection left open has a thread that keeps the process alive.
            await self.close()
            if isinstance(error, SQLAlchemyError | OSError):
                raise self._explained(error) from error
            raise

    async def close(self) -> None:
        if self._running:
            await asyncio.wait(self._running)
        await self._engine.dispose()

    async def to_its_end(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Carries on with the work when its caller is cancelled.

        Cancelled half-way, an SQLite connection would keep its transaction, and with it the only write lock there is.
        """
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    @asynccontextmanager
    async def transaction(self, *, reads_to_write: bool = False) -> AsyncIterator[AsyncConnection]:
        """A connection whose statements take effect together, at the end of the block. Raises StoreError.

        With `reads_to_write` nobody else writes to SQLite from the beginning on: a reader that became a writer later
        would be refused if another one was faster. In PostgreSQL it is for the statements to lock their rows.
        """
        try:
            async with self._engine.connect() as connection:
                if reads_to_write:
                    await connection.execution_options(begin="BEGIN IMMEDIATE")
                async with connection.begin():
                    yield connection
        except (SQLAlchemyError, OSError) as error:
            raise self._explained(error) from error

    def insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """An INSERT that knows ON CONFLICT."""
        return sqlite.insert(table) if self._sqlite else postgresql.insert(table)

    def _upgrade(self, connection: Connection) -> None:
        if not self._sqlite:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_UPGRADE_LOCK})")
        config = Config()
        # The folder of this module, not of the working directory: migrations travel with the installed package.
        config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
        config.attributes["connection"] = connection
        script = ScriptDirectory.from_config(config)
        found = MigrationContext.configure(connection).get_current_revision()
        known = {revision.revision for revision in script.walk_revisions()}
        if found is not None and found not in known:
            raise StoreError(
                f'{self} has schema "{found}", made by a newer engine; this one knows schemas up to '
                f'"{script.get_current_head()}": install the newer engine, or restore a backup from before it'
            )
        command.upgrade(config, "head")

    def _explained(self, error: Exception) -> StoreError:
        return StoreError(f"{self}: {self._reason(error)}", record_at_fault=_record_at_fault(error))

    def _reason(self, error: Exception) -> str:
        origin = error.orig if isinstance(error, DBAPIError) and error.orig else error
        state = str(getattr(origin, "sqlstate", None) or "")
        said = str(origin).partition("\n")[0] or type(origin).__name__
        if isinstance(origin, TimeoutError):
            return f"no answer within {self._patience:g} s: is it running, and can this machine reach it?"
        remedies = _SQLITE_REMEDIES if self._sqlite else _POSTGRESQL_REMEDIES
        for sign, remedy in remedies.items():
            if sign == state or (not state and sign in said):
                return f"{said}: {remedy}"
        if isinstance(origin, OSError):
            said = origin.strerror or said
            return f"{said}: " + (
                "its folder must exist, and this user must be able to write in it"
                if self._sqlite
                else "is it running, and can this machine reach it?"
            )
        return said


_SQLITE_REMEDIES = {
    "database is locked": "another program keeps it; stop that program, or give each engine a file of its own",
    "unable to open": "its folder must exist, and this user must be able to write in it",
    "readonly": "this user must be able to write the file and its folder",
    "not a database": "name another file, or restore this one from a backup",
    "malformed": "restore it from a backup",
    "full": "make room on its disk",
}
_POSTGRESQL_REMEDIES = {
    "28P01": "correct the password in the database address",
    "28000": "allow this user in the server's pg_hba.conf",
    "3D000": "create it with createdb, or correct its name in the database address",
    "42501": "make this user the owner of the database, or grant it CREATE on the schema",
    "53300": "raise max_connections of the server",
    "57P03": "the server is starting or stopping",
}


def _url(address: str) -> URL:
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        # The cause is left out: it quotes the address, which may hold a password.
        raise StoreError(f"the database address is not a URL: {_ADDRESS_HELP}") from None
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        raise StoreError(f'the database address begins with "{url.drivername}": {_ADDRESS_HELP}')
    if driver.startswith("sqlite"):
        if not url.database or url.database == ":memory:" or url.host or url.query:
            raise StoreError(f"the database address names no file: {_ADDRESS_HELP}")
        return url.set(drivername=driver)
    unknown = sorted(set(url.query) - set(_POSTGRESQL_SETTINGS))
    if unknown:
        raise StoreError(
            f'unknown setting "{unknown[0]}" in the database address (known: {", ".join(_POSTGRESQL_SETTINGS)})'
        )
    # libpq's name for it, which every manual gives, is not asyncpg's.
    settings = {"ssl" if name == "sslmode" else name: value for name, value in url.query.items()}
    return url.set(drivername=driver, query=settings)


def _create_private_file(path: Path) -> None:
    # Who called whom is nobody else's business; SQLite gives its -wal and -shm files the same mode.
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # WAL: readers and the writer do not wait for each other. With it NORMAL never corrupts the file, and a crash
    # of the engine loses nothing; only a power cut may take the last moments before it. FULL would add a wait
    # for the disk to each group of records.
    for setting in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # sqlite3 begins no transaction of itself before DDL or SELECT, which would make schema upgrades divisible
    # and reads inconsistent.
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def _record_at_fault(error: Exception) -> bool:
    if isinstance(error, DBAPIError):
        # PostgreSQL's classes 22 (data exception) and 23 (integrity), which asyncpg's dialect does not tell apart.
        state = str(getattr(error.orig, "sqlstate", None) or "")
        return isinstance(error, DataError | IntegrityError) or state.startswith(("22", "23"))
    # What SQLAlchemy wraps before the driver saw the statement: a value that a column refuses.
    return isinstance(error, StatementError)
