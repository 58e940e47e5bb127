"""What every test may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from databases import AnyDatabase
from databases import PostgresDatabase
from databases import PostgresServer
from databases import SqliteDatabase
from hypothesis import settings

from pbx.prefix import Prefix

ROOT = Path(__file__).parent.parent

# A busy machine is not a mistake.
# On a developer's machine every run tries other examples; what gates a change must judge the same code the same way.
settings.register_profile("pbx", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("pbx")


@pytest.fixture(scope="session")
def prefix() -> Prefix:
    """The Asterisk that `./test` has put into var/asterisk, and the programs around it."""
    return Prefix(ROOT / "var" / "asterisk")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def sqlite_database(tmp_path: Path) -> SqliteDatabase:
    return SqliteDatabase(tmp_path / "pbx.db")


@pytest.fixture
def postgres_database(postgres_server: PostgresServer) -> PostgresDatabase:
    return PostgresDatabase(postgres_server)


@pytest.fixture(params=["sqlite", "postgres"])
def any_database(request: pytest.FixtureRequest) -> AnyDatabase:
    """An empty database of each kind, one after the other."""
    database: AnyDatabase = request.getfixturevalue(f"{request.param}_database")
    return database
