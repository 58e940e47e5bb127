from __future__ import annotations

from pathlib import Path

import pytest
from office import office
from plans import calls
from plans import plan
from plans import record_of

from pbx.leg import Cause
from pbx.simulator import virtual


@pytest.mark.parametrize(
    "reason, cause, status",
    [
        ("busy", Cause.BUSY, 486),
        ("refused", Cause.REJECTED, 403),
        ("no answer", Cause.NO_ANSWER, 480),
        ("unavailable", Cause.SUBSCRIBER_ABSENT, 480),
        ("unknown number", Cause.UNALLOCATED, 404),
    ],
)
def test_the_callers_network_is_told_why(tmp_path: Path, reason: str, cause: int, status: int) -> None:
    @virtual
    async def story() -> None:
        async with office(plan(tmp_path, f"- reject: {reason}")) as company:
            caller = calls(company)
            await caller.over()
            assert (caller.status, caller.answered_at) == (status, None)
            assert (await record_of(company)).cause == cause

    story()


@virtual
async def test_a_call_that_was_answered_is_hung_up(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "[answer, reject]")) as company:
        caller = calls(company)
        await caller.over()
        assert caller.answered_at is not None and caller.status == 0
