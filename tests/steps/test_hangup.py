from __future__ import annotations

from pathlib import Path

from office import office
from plans import calls
from plans import plan
from plans import record_of

from pbx.leg import Cause
from pbx.simulator import virtual


@virtual
async def test_the_call_ends_at_once(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "[say: Au revoir, if: {when: caller, then: hangup}, say: Jamais]")) as company:
        caller = calls(company)
        await caller.over()
        assert caller.sounds == ["sound:fr/Au revoir"]
        record = await record_of(company)
        assert (record.cause, record.ended_by) == (Cause.NORMAL, "engine")


@virtual
async def test_the_end_of_a_flow_ends_the_call_all_the_same(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "[answer]")) as company:
        caller = calls(company)
        await caller.over()
        assert caller.cause == Cause.NORMAL
