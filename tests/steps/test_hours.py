from __future__ import annotations

from pathlib import Path

from office import office
from plans import calls
from plans import noted
from plans import plan
from plans import record_of

from pbx.simulator import virtual

# Stories begin on a Monday at 9:00 UTC, 10:00 in Paris.
STEPS = "[hours: {in: office, then: {say: Ouvert}, else: {say: Fermé}}, say: Fin]"


def with_hours(folder: Path, hours: str, steps: str = STEPS) -> Path:
    path = plan(folder, steps)
    path.write_text(path.read_text().replace('{weekdays: "09:00-18:00"}', hours))
    return path


@virtual
async def test_during_the_hours_then_is_done_and_the_next_step_follows(tmp_path: Path) -> None:
    async with office(with_hours(tmp_path, '{monday: "10:00-11:00"}')) as company:
        caller = calls(company)
        await caller.over()
        assert caller.sounds == ["sound:fr/Ouvert", "sound:fr/Fin"]
        (decided,) = noted(await record_of(company), "hours")
        assert decided == {"hours": "office", "open": True, "local": "2026-03-02T10:00+01:00"}


@virtual
async def test_outside_the_hours_else_is_done(tmp_path: Path) -> None:
    """Nine o'clock has passed in Paris, though not in UTC."""
    async with office(with_hours(tmp_path, '{monday: "09:00-10:00"}')) as company:
        caller = calls(company)
        await caller.over()
        assert caller.sounds == ["sound:fr/Fermé", "sound:fr/Fin"]


@virtual
async def test_a_branch_that_is_left_out_does_nothing(tmp_path: Path) -> None:
    steps = "[answer, hours: {in: office, else: {say: Fermé}}, say: Fin]"
    async with office(with_hours(tmp_path, "{everyday: all day}", steps)) as company:
        caller = calls(company)
        await caller.over()
        assert caller.sounds == ["sound:fr/Fin"]


@virtual
async def test_a_call_that_goes_on_into_the_evening_is_decided_anew(tmp_path: Path) -> None:
    steps = f"[wait: 1h, wait: 1h, {STEPS[1:]}"
    async with office(with_hours(tmp_path, '{monday: "10:00-11:30"}', steps)) as company:
        caller = calls(company)
        await caller.until(lambda: caller.state == "over", timeout=10_000)
        assert caller.sounds == ["sound:fr/Fermé", "sound:fr/Fin"]
