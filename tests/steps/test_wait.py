from __future__ import annotations

from pathlib import Path

from office import office
from plans import calls
from plans import plan
from plans import record_of

from pbx.simulator import virtual


@virtual
async def test_it_waits_and_the_caller_hears_nothing(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "[answer, wait: 1min30, hangup]")) as company:
        caller = calls(company)
        await caller.over()
        assert caller.sounds == []
        assert 90_000 <= (await record_of(company)).talk_ms < 90_500


@virtual
async def test_a_caller_who_hangs_up_ends_the_wait(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "[answer, wait: 1h]")) as company:
        caller = calls(company)
        await caller.answered()
        caller.hang_up(after=5)
        assert (await record_of(company)).talk_ms < 6_000
