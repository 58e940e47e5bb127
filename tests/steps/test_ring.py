from __future__ import annotations

from pathlib import Path

from office import office
from plans import calls
from plans import plan

from pbx.simulator import virtual


@virtual
async def test_the_caller_hears_ringing_and_nobody_is_rung(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "[ring: 4s, reject]")) as company:
        handset = company.asterisk.handset("acme-101")
        caller = calls(company)
        await caller.over()
        assert caller.sounds == ["ringing"] and caller.answered_at is None
        ringing = caller.heard[0]
        assert ringing.until is not None and 3.9 < ringing.until - ringing.at < 4.5
        assert handset.calls == []


@virtual
async def test_after_the_answer_the_ringing_ends_before_the_next_step(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "[answer, ring: 4s, say: Bonjour]")) as company:
        caller = calls(company)
        await caller.over()
        ringing, greeting = caller.heard
        assert (ringing.what, greeting.what) == ("ringing", "sound:fr/Bonjour")
        assert ringing.until is not None and ringing.until <= greeting.at
