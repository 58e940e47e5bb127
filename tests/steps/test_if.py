from __future__ import annotations

from pathlib import Path

import pytest
from office import office
from plans import calls
from plans import noted
from plans import plan
from plans import record_of

from pbx.simulator import virtual


@pytest.mark.parametrize(
    "condition, heard",
    [
        ('caller starts_with "+33" and not language == en', "Oui"),
        ("caller == anonymous", "Non"),
        ("dialled == +33199000100", "Oui"),
        ("line", "Non"),
        ("caller_name or digits", "Non"),
    ],
)
def test_the_condition_chooses_the_branch_and_then_the_next_step_follows(
    tmp_path: Path, condition: str, heard: str
) -> None:
    @virtual
    async def story() -> None:
        steps = f"[if: {{when: '{condition}', then: {{say: Oui}}, else: {{say: Non}}}}, say: Fin]"
        async with office(plan(tmp_path, steps)) as company:
            caller = calls(company)
            await caller.over()
            assert caller.sounds == [f"sound:fr/{heard}", "sound:fr/Fin"]
            assert noted(await record_of(company), "if") == [{"when": condition, "holds": heard == "Oui"}]

    story()


@virtual
async def test_without_else_the_next_step_follows(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "[if: {when: line == 101, then: hangup}, say: Fin]")) as company:
        caller = calls(company)
        await caller.over()
        assert caller.sounds == ["sound:fr/Fin"]
