from __future__ import annotations

from pathlib import Path

from office import office
from plans import calls
from plans import plan

from pbx.simulator import virtual


@virtual
async def test_a_flow_is_done_and_comes_back_with_its_variables(tmp_path: Path) -> None:
    flows = """
        greeting:
          - say: Bonjour
          - set: {who: vous}
    """
    async with office(plan(tmp_path, '[call: greeting, call: greeting, say: "Et {who}"]', flows=flows)) as company:
        caller = calls(company)
        await caller.over()
        assert caller.sounds == ["sound:fr/Bonjour", "sound:fr/Bonjour", "sound:fr/Et vous"]


@virtual
async def test_a_flow_that_hangs_up_does_not_come_back(tmp_path: Path) -> None:
    flows = """
        end:
          - hangup
    """
    async with office(plan(tmp_path, "[answer, call: end, say: Jamais]", flows=flows)) as company:
        caller = calls(company)
        await caller.over()
        assert caller.sounds == []
