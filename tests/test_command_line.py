"""What an admin who types `./run CMD` reads, and what his scripts get as exit status."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from datetime import UTC
from datetime import datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pbx import ports
from pbx.__main__ import app
from pbx.__main__ import story
from pbx.app import AppError
from pbx.app import running
from pbx.clock import SystemClock
from pbx.config import load_config
from pbx.store import CallRecord
from pbx.store import Moment
from pbx.store import Store

STARTED = datetime(2026, 3, 2, 9, 14, 7, 120_000, tzinfo=UTC)
RECORD = CallRecord(
    id="a1.w1.1.1", node="a1", worker="w1", epoch=1, tenant="acme", direction="inbound", caller_number="+33199000199",
    caller_name="", dialled="+33199000100", plan_version="4f1c02ab", started_at=STARTED, ended_at=STARTED,
    outcome="answered", cause=16, ended_by="caller",
    timeline=[Moment(STARTED, 0, "emergency_without_location", {"trunk": "carrier"})],
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "pbx.yml"
    path.write_text(f"var: {tmp_path / 'var'}\nplans: {tmp_path / 'plans'}\n")
    (tmp_path / "var").mkdir()
    (tmp_path / "plans").mkdir()
    return path


def module(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pbx", *words], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_names_the_command_that_was_typed(word: str) -> None:
    helped = module(word)
    assert helped.returncode == 0
    assert "Usage: ./run [OPTIONS] COMMAND" in helped.stdout and "./run demo" in helped.stdout


def test_a_check_that_finds_nothing_to_check_fails(config: Path) -> None:
    checked = module("-c", str(config), "check")
    assert checked.returncode == 1 and "no plan (NAME.yml) is in this folder" in checked.stderr


def test_one_problem_is_not_several(config: Path, tmp_path: Path) -> None:
    (tmp_path / "plans" / "acme.yml").write_text("")
    checked = CliRunner().invoke(app, ["-c", str(config), "check"])
    assert checked.exit_code == 1 and checked.stderr == "1 error, 0 warnings\n"


def test_records_as_json_have_the_form_of_the_api(config: Path, tmp_path: Path) -> None:
    async def fill() -> None:
        store = Store(f"sqlite:///{tmp_path}/var/pbx.db", clock=SystemClock(), spool=None)
        await store.open()
        store.save(RECORD)
        await store.flush()
        await store.close()

    asyncio.run(fill())
    for command in (["calls", "--json"], ["explain", RECORD.id, "--json"]):
        shown = CliRunner().invoke(app, ["-c", str(config), *command])
        assert shown.exit_code == 0 and json.loads(shown.stdout)["started_at"] == "2026-03-02T09:14:07.120000Z"


def test_the_longest_event_does_not_run_into_what_it_tells() -> None:
    assert "emergency_without_location trunk=carrier" in story(RECORD)


async def test_a_port_that_the_api_cannot_have_is_told_with_its_holder_before_asterisk_starts(
    config: Path, tmp_path: Path
) -> None:
    (tmp_path / "plans" / "acme.yml").write_text("tenant: acme\ncountry: FR\nlanguage: fr\ntimezone: Europe/Paris\n")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        config.write_text(config.read_text() + f"api: {{port: {port}}}\nasterisk: {{private: {{prefix: /none}}}}\n")
        with pytest.raises(AppError, match=rf"^TCP port {port} on 127\.0\.0\.1 is taken by .*api: {{port: "):
            async with running(load_config(config), on_failure=lambda: None):
                pass


def test_a_program_that_a_loader_started_has_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "comm").write_text("ld-linux-x86-64\n")
    words = ("/pbx/usr/lib64/ld-linux-x86-64.so.2", "--library-path", "/pbx/usr/lib", "/pbx/usr/sbin/asterisk", "-f")
    (tmp_path / "cmdline").write_text("\0".join(words) + "\0")
    assert ports._program(tmp_path) == "asterisk"
