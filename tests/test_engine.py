"""The switchboard: who called, whose number it was, and how calls end when the engine does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from office import office
from plans import calls
from plans import noted
from plans import plan
from plans import record_of

from pbx.simulator import answers
from pbx.simulator import run
from pbx.simulator import virtual


@pytest.mark.parametrize("written", ["+33199000100", "33199000100", "0199000100", "0033199000100"])
def test_a_company_number_is_found_however_the_carrier_writes_it(tmp_path: Path, written: str) -> None:
    async def story() -> None:
        async with office(plan(tmp_path, "- say: Bonjour")) as company:
            caller = calls(company, dialled=written)
            await caller.over()
            assert caller.sounds == ["sound:fr/Bonjour"]

    run(story())


@virtual
async def test_a_number_of_nobody_is_refused_as_unallocated(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "- say: Bonjour")) as company:
        calls(company, dialled="+33199000999")
        record = await record_of(company)
        assert (record.outcome, record.cause, record.tenant) == ("rejected", 1, "")
        assert noted(record, "unknown_number") == [{"dialled": "+33199000999", "trunk": "trunk-x"}]


@pytest.mark.parametrize("number, name, kept", [
    ("+33536490001", "Zoé", ("+33536490001", "Zoé")),
    ("anonymous", "Anonymous", ("", "")),
    ("1\r\nInjected", "a\x00b\x7fc", ("1Injected", "abc")),
    ("9" * 2000, "n" * 2000, ("9" * 80, "n" * 80)),
])
@virtual
async def test_what_callers_say_of_themselves_is_made_fit_to_keep(
    tmp_path: Path, number: str, name: str, kept: tuple[str, str]
) -> None:
    async with office(plan(tmp_path, "- say: Bonjour")) as company:
        company.asterisk.call("trunk-x", "+33199000100", caller=number, name=name)
        record = await record_of(company)
        assert (record.caller_number, record.caller_name) == kept


@virtual
async def test_callers_are_released_with_a_cause_when_the_engine_stops(tmp_path: Path) -> None:
    async with office(plan(tmp_path, '- dial: "101"')) as company:
        company.asterisk.handset("acme-101", answers(1.0))
        talking = calls(company)
        await asyncio.sleep(5)
        waiting = calls(company)
        await asyncio.sleep(0.5)
        await company.engine.stop()
        await talking.over()
        await waiting.over()
        records = await company.records()
        assert len(records) == 2
        for record in records:
            assert (record.cause, record.ended_by) == (41, "engine")
            assert noted(record, "engine_stopped") == [{}]


@virtual
async def test_a_message_being_recorded_is_kept_when_the_engine_stops(tmp_path: Path) -> None:
    async with office(plan(tmp_path, '- voicemail: "101"')) as company:
        caller = calls(company)
        await caller.hears("beep")
        await asyncio.sleep(5)
        await company.engine.stop()
        (message,) = await company.store.messages("acme", "101")
        assert message.duration_ms >= 4_000
        assert (await record_of(company)).outcome == "voicemail"


@virtual
async def test_a_call_that_arrives_while_the_engine_stops_is_refused(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "- say: Bonjour")) as company:
        await company.engine.stop()
        caller = calls(company)
        await caller.over()
        assert caller.sounds == []
        assert (await record_of(company)).cause == 34


@virtual
async def test_channels_and_bridges_of_a_former_engine_are_released(tmp_path: Path) -> None:
    """Nobody else would end them; what belongs to another worker stays."""
    async with office(plan(tmp_path, "- say: Bonjour")) as company:
        await company.ari.bridges.create_with_id("a1.w1.0.7.b1", type="mixing")
        await company.ari.bridges.create_with_id("a1.w2.0.7.b1", type="mixing")
        company.asterisk.cut("gone")
        await asyncio.sleep(10)
        assert [bridge["id"] for bridge in await company.ari.bridges.list()] == ["a1.w2.0.7.b1"]
        await company.ari.bridges.destroy("a1.w2.0.7.b1")
