"""The PBX stops during calls: people hear of it, records are written, and nothing stays behind."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from live.pbx import ROOT
from live.pbx import Pbx
from live.pbx import running
from live.sound import tone
from live.sound import tone_seconds

from pbx.clock import SystemClock
from pbx.prefix import Prefix
from pbx.store import CallRecord
from pbx.store import Store

ACME = ROOT / "dialplans" / "acme.yml"
COMPANY = "+33199000100"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_during_calls_releases_everybody_and_keeps_the_records(
    number: signal.Signals, tmp_path: Path, prefix: Prefix
) -> None:
    pbx = Pbx(tmp_path / "pbx", prefix)
    await pbx.start(ACME)
    try:
        alice, bob = await pbx.handset("101"), await pbx.handset("102", playing=tone(520, 60))
        listener = await pbx.carrier.calls(COMPANY)
        await listener.is_connected()
        ringing = await pbx.carrier.calls(COMPANY)
        await ringing.is_connected()
        await ringing.presses("2")
        await bob.rings()
        await alice.dials("102")
        await alice.is_ringing()
        pbx.signal(number)
        for phone in (listener, ringing, alice, bob):
            await phone.is_released()
        assert await pbx.ended() == 0
    finally:
        await pbx.stop()
    assert pbx.remains() == []
    records = {record.caller_number: record for record in await _records(pbx)}
    assert set(records) == {listener.name, ringing.name, "101"}
    assert {record.ended_by for record in records.values()} == {"engine"}
    assert all(record.ended_at for record in records.values())


async def test_a_message_that_is_being_left_at_the_stop_is_kept(tmp_path: Path, prefix: Prefix) -> None:
    async with running(tmp_path / "pbx", prefix, ACME, rings_for="1s") as pbx:
        chloe = await pbx.handset("103")
        bob = await pbx.handset("102", playing=tone(520, 60))
        await bob.dials("103")
        await chloe.rings()
        await bob.hears(await pbx.prompt("beep"), within=20)
        await bob.says(tone(520, 3))
        pbx.signal(signal.SIGTERM)
        await bob.is_released()
        assert await pbx.ended() == 0
        (message,) = await pbx.messages("103")
        assert tone_seconds(520, pbx.recording(message)) > 2


async def test_two_pbxs_side_by_side_do_not_disturb_each_other(tmp_path: Path, prefix: Prefix) -> None:
    async with running(tmp_path / "one", prefix, ACME) as one:
        alice = await one.handset("101")
        async with running(tmp_path / "two", prefix, ACME) as two:
            bob = await two.handset("102", playing=tone(520, 60))
            for pbx, phone, key, hz in ((one, alice, "1", 440), (two, bob, "2", 520)):
                call = await pbx.carrier.calls(COMPANY)
                await call.is_connected()
                await call.presses(key)
                await phone.rings()
                await phone.answers()
                await call.hears_tone(hz)
        # The other one has stopped, and Alice still talks.
        await alice.hears_tone(620)
        await alice.hangs_up()
        [record] = await one.records(1)
        assert record.legs[0].target == "101"


async def _records(pbx: Pbx) -> list[CallRecord]:
    store = Store(pbx.config.database_url, clock=SystemClock(), spool=None)
    await store.open()
    try:
        return await store.calls()
    finally:
        await store.close()
