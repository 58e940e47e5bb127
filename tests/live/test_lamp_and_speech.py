"""A real handset on a real Asterisk: its message lamp, and a text that it hears spoken."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextlib import suppress
from pathlib import Path

import pytest
from live import sound
from live.phone import Phone
from live.sound import Sound

from pbx.ami import Ami
from pbx.asterisk import PrivateAsterisk
from pbx.config import load_config
from pbx.instance import Handset
from pbx.instance import Office
from pbx.prefix import Prefix
from pbx.speech import Speech

ACME = Office("acme", ["fr"], [Handset("acme-101", "101", "Alice Martin", "fr")], emergency={}, rings={})
HELLO = sound.tone(440, 0.5)
WELCOME = "Bienvenue chez Acme. Pour le service commercial, tapez 1. Pour le support, tapez 2."


@pytest.fixture
async def asterisk(prefix: Prefix, tmp_path: Path) -> AsyncIterator[PrivateAsterisk]:
    """An Asterisk that knows Alice's handset and, when it dies, is started again."""
    settings = tmp_path / "pbx.yml"
    settings.write_text(
        f"var: {tmp_path}/var\nsip: {{bind: 127.0.0.1, port: auto}}\nrtp: auto\n"
        f"asterisk: {{private: {{prefix: {prefix.path}}}}}\n"
    )
    asterisk = PrivateAsterisk(load_config(settings, {}), app="pbx-w1")
    await asterisk.start([ACME])
    watching = asyncio.create_task(asterisk.run())
    yield asterisk
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    await asterisk.stop()


@pytest.fixture
async def ami(asterisk: PrivateAsterisk) -> AsyncIterator[Ami]:
    access = asterisk.access
    ami = Ami(access.ami_host, access.ami_port, access.ami_user, access.ami_password)
    running = asyncio.create_task(ami.run())
    async with asyncio.timeout(10):
        await ami.connected.wait()
    yield ami
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


@asynccontextmanager
async def alice(
    folder: Path, prefix: Prefix, asterisk: PrivateAsterisk, *, wideband: bool = False
) -> AsyncIterator[Phone]:
    """Alice's telephone, registered."""
    async with Phone("Alice", folder, prefix, wideband=wideband) as phone:
        await phone.start(HELLO)
        await phone.registers(f"acme-101@127.0.0.1:{asterisk.sip_port}", asterisk.password("acme-101"))
        yield phone


async def test_a_handset_sees_its_lamp_lit_and_put_out(
    tmp_path: Path, prefix: Prefix, asterisk: PrivateAsterisk, ami: Ami
) -> None:
    async with alice(tmp_path / "alice", prefix, asterisk) as phone:
        await ami.lamp("acme-101", 3, 1)
        await phone.lamp_shows(3, 1)
        await ami.lamp("acme-101", 0, 4)
        await phone.lamp_shows(0, 4)


async def test_a_handset_that_registers_later_finds_its_lamp_lit_even_after_asterisk_died(
    tmp_path: Path, prefix: Prefix, asterisk: PrivateAsterisk, ami: Ami
) -> None:
    await ami.lamp("acme-101", 2, 0)
    async with alice(tmp_path / "first", prefix, asterisk) as phone:
        await phone.lamp_shows(2, 0)
    assert asterisk.pid
    os.kill(asterisk.pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        while ami.connected.is_set():
            await asyncio.sleep(0.02)
        await ami.connected.wait()
    async with alice(tmp_path / "second", prefix, asterisk) as phone:
        await phone.lamp_shows(2, 0)


@pytest.mark.parametrize("wideband", [False, True], ids=["narrowband", "wideband"])
async def test_a_spoken_text_is_heard_on_any_handset(
    tmp_path: Path, prefix: Prefix, asterisk: PrivateAsterisk, ami: Ami, wideband: bool
) -> None:
    spoken = (await Speech(tmp_path / "speech", prefix).sound(WELCOME, "fr")).removeprefix("sound:")
    async with alice(tmp_path / "alice", prefix, asterisk, wideband=wideband) as phone:
        ringing = asyncio.create_task(
            ami.action("Originate", Channel="PJSIP/acme-101", Application="Playback", Data=spoken, Async="true")
        )
        await phone.rings()
        await phone.answers()
        await ringing
        await phone.hears(Sound.read(Path(f"{spoken}.wav16")))
        await phone.is_released()
