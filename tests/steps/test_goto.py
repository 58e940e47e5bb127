from __future__ import annotations

from pathlib import Path

from office import office
from plans import calls
from plans import noted
from plans import plan
from plans import record_of

from pbx.simulator import virtual


@virtual
async def test_another_flow_takes_over_for_good(tmp_path: Path) -> None:
    flows = """
        other:
          - say: Là
    """
    steps = "[menu: {prompt: Ici, keys: {'1': {goto: other}}}, say: Jamais]"
    async with office(plan(tmp_path, steps, flows=flows)) as company:
        caller = calls(company)
        await caller.hears("sound:fr/Ici")
        caller.press("1")
        await caller.over()
        assert caller.sounds == ["sound:fr/Ici", "sound:fr/Là"]
        assert [flow["flow"] for flow in noted(await record_of(company), "flow")] == ["welcome", "other"]


@virtual
async def test_flows_that_called_this_one_are_left_as_well(tmp_path: Path) -> None:
    flows = """
        sub:
          - goto: other
        other:
          - say: Là
    """
    async with office(plan(tmp_path, "[call: sub, say: Jamais]", flows=flows)) as company:
        caller = calls(company)
        await caller.over()
        assert caller.sounds == ["sound:fr/Là"]


@virtual
async def test_a_flow_may_come_round_again_and_again(tmp_path: Path) -> None:
    steps = "[menu: {prompt: Encore, keys: {'1': {goto: welcome}}, tries: 1}]"
    async with office(plan(tmp_path, steps)) as company:
        caller = calls(company)
        for times in range(1, 50):
            await caller.hears("sound:fr/Encore", times)
            caller.press("1", after=0.5)
        await caller.over()
        assert caller.sounds == ["sound:fr/Encore"] * 50
