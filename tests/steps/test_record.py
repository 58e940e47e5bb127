from __future__ import annotations

from pathlib import Path

from office import office
from plans import calls
from plans import plan
from plans import record_of

from pbx.simulator import virtual

STEPS = """
    - record: {prompt: "Votre nom", into: name, max: 10s}
    - menu: {prompt: ["Vous avez dit", {recording: name}], tries: 1, keys: {"1": hangup}}
    - if: {when: name, then: {say: Gardé}, else: {say: Rien}}
"""


@virtual
async def test_what_the_caller_says_is_recorded_and_played_back(tmp_path: Path) -> None:
    async with office(plan(tmp_path, STEPS)) as company:
        caller = calls(company)
        await caller.hears("beep")
        caller.press("#", after=3)
        await caller.over()
        (recording,) = company.asterisk.stored
        assert caller.sounds == [
            "sound:fr/Votre nom", "beep", "sound:fr/Vous avez dit", f"recording:{recording}", "sound:fr/Gardé",
        ]


@virtual
async def test_it_ends_after_its_time(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "- record: {into: name, max: 10s, beep: no}")) as company:
        caller = calls(company)
        await caller.over()
        assert caller.sounds == []
        assert 10_000 <= (await record_of(company)).talk_ms < 11_500


@virtual
async def test_silence_ends_it(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "- record: name")) as company:
        caller = calls(company)
        caller.speaks_s = 2.0
        await caller.over()
        assert (await record_of(company)).talk_ms < 10_000


@virtual
async def test_two_recordings_of_one_call_have_two_names(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "[record: first, record: second]")) as company:
        caller = calls(company)
        caller.speaks_s = 2.0
        await caller.over()
        assert len(company.asterisk.stored) == 2
