"""A real Asterisk of our own: it starts, comes back when it dies, is taken over, and leaves nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from collections.abc import Callable
from contextlib import asynccontextmanager
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from pbx.asterisk import AsteriskError
from pbx.asterisk import ElsewhereAsterisk
from pbx.asterisk import PrivateAsterisk
from pbx.config import load_config
from pbx.instance import Handset
from pbx.instance import Office
from pbx.ports import check as check_port
from pbx.prefix import Prefix

ACME = Office("acme", ["fr"], [Handset("acme-101", "101", "Alice Martin", "fr")], emergency={}, rings={})

# An engine that is killed in the middle of its work: it has no time for a farewell.
KILLED_ENGINE = """
import asyncio, os, signal, sys
from pbx.asterisk import PrivateAsterisk
from pbx.config import load_config

async def main():
    asterisk = PrivateAsterisk(load_config(sys.argv[1], {}), app="pbx-w1")
    await asterisk.start([])
    print(asterisk.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def settings(folder: Path, prefix: Prefix, sip: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "pbx.yml"
    file.write_text(
        f"var: {folder}/var\nsip: {{bind: 127.0.0.1, port: auto{sip}}}\nrtp: auto\n"
        f"asterisk: {{private: {{prefix: {prefix.path}}}}}\n"
    )
    return file


@asynccontextmanager
async def started(folder: Path, prefix: Prefix, *offices: Office, sip: str = "") -> AsyncIterator[PrivateAsterisk]:
    """An Asterisk that is watched, as the PBX has it."""
    asterisk = PrivateAsterisk(load_config(settings(folder, prefix, sip), {}), app="pbx-w1")
    await asterisk.start(offices)
    watching = asyncio.create_task(asterisk.run())
    try:
        yield asterisk
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await asterisk.stop()


async def answers(asterisk: PrivateAsterisk) -> bool:
    access = asterisk.access
    header = aiohttp.encode_basic_auth(access.user, access.password)
    with suppress(aiohttp.ClientError):
        async with aiohttp.ClientSession(headers={"Authorization": header}) as session:
            async with session.get(f"{access.url}/ari/asterisk/ping") as response:
                return response.status == 200
    return False


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.02)


def gone(pid: int | None) -> bool:
    assert pid
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def orphan_of_a_killed_engine(configuration: Path) -> int:
    """The process id of an Asterisk whose engine is no more."""
    engine = subprocess.run(
        [sys.executable, "-c", KILLED_ENGINE, str(configuration)], capture_output=True, text=True,
        cwd=configuration.parent,
    )
    assert engine.returncode == -signal.SIGKILL, engine.stderr
    pid = int(engine.stdout)
    assert not gone(pid)
    return pid


async def test_once_started_it_answers_and_once_stopped_nothing_is_left(tmp_path: Path, prefix: Prefix) -> None:
    async with started(tmp_path, prefix, ACME) as asterisk:
        assert await answers(asterisk)
        pid = asterisk.pid
        assert pid
    assert gone(pid)
    check_port("127.0.0.1", asterisk.sip_port, ("udp", "tcp"))
    log = asterisk.log_file.read_text()
    assert "ERROR" not in log and "WARNING" not in log, log


async def test_when_it_is_killed_it_comes_back_at_the_same_ports(tmp_path: Path, prefix: Prefix) -> None:
    async with started(tmp_path, prefix) as asterisk:
        first, access = asterisk.pid, asterisk.access
        assert first
        os.kill(first, signal.SIGKILL)
        await until(lambda: asterisk.pid not in (None, first))
        async with asyncio.timeout(10):
            while not await answers(asterisk):
                await asyncio.sleep(0.02)
        assert asterisk.access == access
        assert gone(first)


async def test_two_of_them_live_side_by_side(tmp_path: Path, prefix: Prefix) -> None:
    async with started(tmp_path / "one", prefix, ACME) as one, started(tmp_path / "two", prefix, ACME) as two:
        assert await answers(one) and await answers(two)
        assert one.password("acme-101") != two.password("acme-101")
        await one.stop()
        assert await answers(two)


async def test_an_asterisk_whose_engine_was_killed_is_taken_over(tmp_path: Path, prefix: Prefix) -> None:
    """Calls are to go on meanwhile."""
    orphan = orphan_of_a_killed_engine(settings(tmp_path, prefix))
    async with started(tmp_path, prefix, ACME) as asterisk:
        assert asterisk.pid == orphan
        assert await answers(asterisk)
    assert gone(orphan)


async def test_after_a_change_of_its_settings_it_is_not_taken_over_but_started_anew(
    tmp_path: Path, prefix: Prefix
) -> None:
    orphan = orphan_of_a_killed_engine(settings(tmp_path, prefix))
    async with started(tmp_path, prefix, sip=", tcp: no") as asterisk:
        assert asterisk.pid != orphan
        assert gone(orphan)


async def test_one_that_hangs_is_not_taken_over(
    tmp_path: Path, prefix: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pbx.asterisk._START_S", 3.0)
    orphan = orphan_of_a_killed_engine(settings(tmp_path, prefix))
    os.kill(orphan, signal.SIGSTOP)
    async with started(tmp_path, prefix, ACME) as asterisk:
        assert asterisk.pid != orphan
        assert gone(orphan)
        assert await answers(asterisk)


async def test_one_folder_has_one_engine(tmp_path: Path, prefix: Prefix) -> None:
    async with started(tmp_path, prefix):
        other = PrivateAsterisk(load_config(settings(tmp_path, prefix), {}), app="pbx-w1")
        with pytest.raises(AsteriskError, match=rf"another PBX \(process {os.getpid()}\) has the folder"):
            await other.start([])


async def test_a_start_that_is_cancelled_leaves_nothing(tmp_path: Path, prefix: Prefix) -> None:
    asterisk = PrivateAsterisk(load_config(settings(tmp_path, prefix), {}), app="pbx-w1")
    starting = asyncio.create_task(asterisk.start([ACME]))
    await until(lambda: asterisk.pid is not None)
    pid = asterisk.pid
    starting.cancel()
    with suppress(asyncio.CancelledError):
        await starting
    assert gone(pid)
    await asterisk.stop()


async def test_one_that_dies_at_its_start_says_why(tmp_path: Path, prefix: Prefix) -> None:
    asterisk = PrivateAsterisk(load_config(settings(tmp_path, prefix), {}), app="pbx-w1")
    (tmp_path / "var" / "asterisk-a1" / "lib" / "astdb.sqlite3").mkdir()
    with pytest.raises(AsteriskError, match=r"(?s)ended at its start \(exit status 1\); .*ASTdb init"):
        await asterisk.start([])
    await asterisk.stop()


async def test_it_serves_as_an_asterisk_elsewhere(tmp_path: Path, prefix: Prefix) -> None:
    async with started(tmp_path, prefix) as asterisk:
        elsewhere = ElsewhereAsterisk(asterisk.access)
        await elsewhere.start([])
        await elsewhere.stop()
        assert await answers(asterisk)
