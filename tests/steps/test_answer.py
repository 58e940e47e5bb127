from __future__ import annotations

from pathlib import Path

from office import office
from plans import calls
from plans import plan
from plans import record_of

from pbx.simulator import virtual


@virtual
async def test_the_call_is_answered_once(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "[answer, wait: 1s, answer, wait: 1s]")) as company:
        caller = calls(company)
        await caller.over()
        assert caller.answered_at is not None
        record = await record_of(company)
        assert [moment.kind for moment in record.timeline].count("answered") == 1
        assert 2_000 <= record.talk_ms < 2_500
