"""The PBX as a process: stopped in the middle of calls, and side by side with another one."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from live.pbx import ROOT
from live.pbx import Pbx
from live.pbx import running
from live.sound import tone

from pbx.prefix import Prefix
from pbx.store import CallRecord

PLAN = ROOT / "dialplans" / "acme.yml"
COMPANY = "+33199000100"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_stopped_in_the_middle_of_calls_it_releases_callers_and_loses_nothing(
    number: signal.Signals, tmp_path: Path, prefix: Prefix
) -> None:
    """One caller talks, one is in the menu, one leaves a message. Afterwards no process and no port is left."""
    async with running(tmp_path / "pbx", prefix, PLAN, rings_for="3s") as pbx:
        alice = await pbx.handset("101", playing=tone(440, 60))
        talking = await pbx.carrier.calls("+33199000101", playing=tone(620, 60))
        await alice.rings()
        await alice.answers()
        await alice.hears_tone(620)
        in_the_menu = await pbx.carrier.calls(COMPANY)
        await in_the_menu.hears(await pbx.spoken("Bonjour, vous êtes bien chez Acme."))
        chloe = await pbx.handset("103")
        leaving_a_message = await pbx.handset("102", playing=tone(520, 60))
        await leaving_a_message.dials("103")
        await chloe.rings()
        greeting = "Votre correspondant n'est pas disponible. Laissez votre message après le bip, puis raccrochez."
        await leaving_a_message.hears(await pbx.spoken(greeting), within=20)
        await asyncio.sleep(4)  # of message

        pbx.signal(number)

        for phone in (talking, in_the_menu, leaving_a_message, alice):
            await phone.is_released()
        assert await pbx.ended() == 0
        records = [await pbx.record(caller) for caller in (talking.name, in_the_menu.name, "102")]
        assert [_end(record) for record in records] == [(41, "engine")] * 3
        (message,) = await pbx.messages("103")
        assert message.duration_ms > 2_000
        assert pbx.recording(message).seconds > 2


async def test_two_of_them_on_one_machine_do_not_disturb_each_other(tmp_path: Path, prefix: Prefix) -> None:
    async with running(tmp_path / "one", prefix, PLAN) as one, running(tmp_path / "two", prefix, PLAN) as two:
        await asyncio.gather(_a_conversation(one, 440, 620), _a_conversation(two, 480, 700))
        assert [record.outcome for record in await one.store.calls()] == ["answered"]
        assert [record.outcome for record in await two.store.calls()] == ["answered"]
        assert one.problems() + two.problems() == []


async def _a_conversation(pbx: Pbx, alice_hz: int, caller_hz: int) -> None:
    alice = await pbx.handset("101", playing=tone(alice_hz, 60))
    caller = await pbx.carrier.calls("+33199000101", playing=tone(caller_hz, 60))
    await alice.rings()
    await alice.answers()
    await alice.hears_tone(caller_hz)
    await caller.hears_tone(alice_hz)
    await caller.hangs_up()
    await alice.is_released()
    await pbx.record(caller.name)


def _end(record: CallRecord) -> tuple[int, str]:
    return record.cause, record.ended_by
