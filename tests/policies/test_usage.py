"""./run usage: what each line has used, and the end of a case."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pbx.__main__ import PROBLEMS
from pbx.__main__ import app
from pbx.clock import SystemClock
from pbx.store import State
from pbx.store import Store

CASE = {
    "activated": "2026-03-02",
    "case": {"state": "notified", "deadline": "2026-03-09T23:00:00+00:00", "month": "2026-03-02"},
    "months": {"2026-02-02": {"used_ms": 60_000, "allowance_ms": 300_000_000},
               "2026-03-02": {"used_ms": 300_030_000, "allowance_ms": 300_000_000}},
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The configuration of a PBX with one line under review, and one that never called."""

    async def fill() -> None:
        store = Store(f"sqlite:///{tmp_path}/pbx.db", clock=SystemClock(), spool=None)
        await store.open()
        await store.change("fair-use", "acme", "101", lambda state: state.update(CASE))
        idle: State = {"activated": "2026-03-02", "case": {"state": "observe"}, "months": {}}
        await store.change("fair-use", "duo", "10", lambda state: state.update(idle))
        await store.close()

    asyncio.run(fill())
    path = tmp_path / "pbx.yml"
    path.write_text(f"var: {tmp_path}\n")
    return path


def run(config: Path, *words: str) -> tuple[int, list[list[str]], str]:
    result = CliRunner().invoke(app, ["--config", str(config), "usage", *words])
    return result.exit_code, [line.split() for line in result.stdout.splitlines()[1:]], result.stderr


def test_the_table_shows_minutes_allowance_and_state_of_every_line(config: Path) -> None:
    code, rows, _ = run(config)
    assert code == 0 and rows == [
        ["acme", "101", "2026-03-02", "5000.5", "5000", "notified", "2026-03-09T23:00"],
        ["duo", "10", "0.0", "observe"],
    ]
    assert run(config, "--tenant", "duo")[1] == [["duo", "10", "0.0", "observe"]]


def test_a_case_is_closed_by_a_person_once(config: Path) -> None:
    code, rows, _ = run(config, "--cured", "acme/101")
    assert code == 0 and rows[0] == ["acme", "101", "2026-03-02", "5000.5", "5000", "cured"]
    for nothing in ("acme/101", "duo/10", "nobody"):
        code, _, said = run(config, "--cured", nothing)
        assert code == PROBLEMS and f'"{nothing}"' in said
