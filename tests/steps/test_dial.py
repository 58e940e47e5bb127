from __future__ import annotations

from pathlib import Path

import pytest
from office import Office
from office import office
from plans import COMPANY
from plans import calls
from plans import noted
from plans import plan
from plans import record_of
from switchboard import in_every_order

from pbx.leg import Cause
from pbx.simulator import Behaviour
from pbx.simulator import answers
from pbx.simulator import busy
from pbx.simulator import refuses
from pbx.simulator import rings
from pbx.simulator import virtual

BRANCHES = """
    - dial: {to: "101", for: 4s, busy: {say: Occupé}, no_answer: {say: Absent}, unreachable: {say: Perdu}}
    - say: Fin
"""


def shown(company: Office, channel: str) -> str:
    """The number that a leg was made to present."""
    return company.asterisk.handsets[channel].calls[0].channel.connected["number"]


def test_an_answered_call_ends_with_the_conversation(tmp_path: Path) -> None:
    async def story(seed: int) -> None:
        async with office(plan(tmp_path, BRANCHES), seed) as company:
            handset = company.asterisk.handset("acme-101", answers(after=2, leaves=30))
            caller = calls(company)
            assert await caller.meets() is await handset.rung()
            await caller.over()
            assert caller.sounds == ["ringing"] and caller.cause == Cause.NORMAL
            record = await record_of(company)
            assert (record.outcome, record.ended_by) == ("answered", "callee")
            assert [leg.target for leg in record.legs] == ["101"]

    in_every_order(story)


@pytest.mark.parametrize(
    "behaviour, heard",
    [
        (busy(), "Occupé"),
        (refuses(603), "Occupé"),
        (rings(), "Absent"),
        (refuses(404), "Perdu"),
        (refuses(503), "Perdu"),
    ],
)
def test_each_outcome_has_its_branch_and_then_the_next_step_follows(
    tmp_path: Path, behaviour: Behaviour, heard: str
) -> None:
    async def story(seed: int) -> None:
        async with office(plan(tmp_path, BRANCHES), seed) as company:
            company.asterisk.handset("acme-101", behaviour)
            caller = calls(company)
            await caller.over()
            assert [sound for sound in caller.sounds if sound != "ringing"] == [f"sound:fr/{heard}", "sound:fr/Fin"]

    in_every_order(story)


@virtual
async def test_a_handset_that_is_not_registered_is_unreachable(tmp_path: Path) -> None:
    async with office(plan(tmp_path, BRANCHES)) as company:
        company.asterisk.handset("acme-101", registered=False)
        caller = calls(company)
        await caller.over()
        assert caller.sounds == ["sound:fr/Perdu", "sound:fr/Fin"]


@virtual
async def test_several_ring_at_once_and_one_answers(tmp_path: Path) -> None:
    async with office(plan(tmp_path, '- dial: ["101", sales, "103"]')) as company:
        handsets = [company.asterisk.handset(f"acme-{line}", rings()) for line in ("101", "102")]
        winner = company.asterisk.handset("acme-103", answers(after=3, leaves=5))
        caller = calls(company)
        assert await caller.meets() is await winner.rung()
        record = await record_of(company)
        assert [len(handset.calls) for handset in handsets] == [1, 1]  # 101 stands there twice, and rings once
        assert sorted(leg.outcome for leg in record.legs) == ["answered", "answered_elsewhere", "answered_elsewhere"]


@virtual
async def test_a_group_in_order_rings_one_after_another(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "[dial: team, say: Fin]")) as company:
        first = company.asterisk.handset("acme-101", rings())
        second = company.asterisk.handset("acme-102", busy())
        caller = calls(company)
        await caller.over()
        one, two = await first.rung(), await second.rung()
        assert one.ended_at is not None and two.ended_at is not None and one.ended_at < two.ended_at
        record = await record_of(company)
        assert [(leg.target, leg.outcome) for leg in record.legs] == [("101", "no_answer"), ("102", "busy")]


@virtual
async def test_the_time_of_the_line_is_the_default_and_the_step_may_set_another(tmp_path: Path) -> None:
    async with office(plan(tmp_path, '[dial: "101", dial: {to: "102", for: 3s}]')) as company:
        for line in ("101", "102"):
            company.asterisk.handset(f"acme-{line}", rings())
        calls(company)
        assert [moment["ring_ms"] for moment in noted(await record_of(company), "dial")] == [10_000, 3_000]


@virtual
async def test_an_outside_number_goes_through_the_trunk_and_shows_the_company_number(tmp_path: Path) -> None:
    async with office(plan(tmp_path, '- dial: ["+33639980042", "101"]')) as company:
        trunk = company.asterisk.handset("trunk-x", answers(leaves=5))
        company.asterisk.handset("acme-101", rings())
        caller = calls(company)
        assert (await caller.meets()).address == "+33639980042@trunk-x"
        assert len(trunk.calls) == 1
        assert shown(company, "trunk-x") == COMPANY
        assert shown(company, "acme-101") == "+33199000177"
        await caller.over()


@pytest.mark.parametrize("typed, target", [("102", "102"), ("200", "101")])
def test_a_caller_may_choose_a_line_or_a_group(tmp_path: Path, typed: str, target: str) -> None:
    @virtual
    async def story() -> None:
        async with office(plan(tmp_path, '[ask: {prompt: Poste, max: 3}, dial: "{digits}"]')) as company:
            handset = company.asterisk.handset(f"acme-{target}", answers(leaves=3))
            caller = calls(company)
            await caller.hears("sound:fr/Poste")
            caller.press(typed)
            assert await caller.meets() is await handset.rung()
            await caller.over()

    story()


@pytest.mark.parametrize("typed", ["+33639980042", "0639980042", "999", "300"])
def test_a_caller_cannot_choose_a_number_outside(tmp_path: Path, typed: str) -> None:
    steps = f'[set: {{digits: "{typed}"}}, dial: {{to: "{{digits}}", unreachable: {{say: Non}}}}]'

    @virtual
    async def story() -> None:
        async with office(plan(tmp_path, steps)) as company:
            trunk = company.asterisk.handset("trunk-x", answers())
            caller = calls(company)
            await caller.over()
            assert trunk.calls == [] and caller.sounds == ["sound:fr/Non"]

    story()


@virtual
async def test_a_caller_who_gives_up_ends_the_ringing(tmp_path: Path) -> None:
    async with office(plan(tmp_path, BRANCHES)) as company:
        handset = company.asterisk.handset("acme-101", rings())
        caller = calls(company)
        party = await handset.rung()
        caller.hang_up(after=1)
        await party.over()
        record = await record_of(company)
        assert record.ended_by == "caller" and record.legs[0].outcome == "cancelled"
