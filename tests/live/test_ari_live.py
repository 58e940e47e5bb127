"""ARI on a real Asterisk: what pbx.ari promises about it holds, also when the connection does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from pbx.ari import UNHEARD
from pbx.ari import Ari
from pbx.ari import Event
from pbx.ari import Gone
from pbx.ari import Replaced
from pbx.ari import Snapshot
from pbx.ari import Unreachable
from pbx.ari_http import HttpWire
from pbx.access import Access
from pbx.asterisk import PrivateAsterisk
from pbx.config import load_config
from pbx.prefix import Prefix

APP = "pbx-w1"
LANGUAGE = "en"


@pytest.fixture
async def access(prefix: Prefix, tmp_path: Path) -> AsyncIterator[Access]:
    """To an Asterisk of the test's own."""
    settings = tmp_path / "pbx.yml"
    settings.write_text(
        f"var: {tmp_path}/var\nsip: {{bind: 127.0.0.1, port: auto}}\nrtp: auto\n"
        f"asterisk: {{private: {{prefix: {prefix.path}}}}}\n"
    )
    asterisk = PrivateAsterisk(load_config(settings, {}), app=APP)
    await asterisk.start([])
    pid = asterisk.pid
    yield asterisk.access
    assert pid is not None and Path(f"/proc/{pid}").exists(), f"Asterisk died: {asterisk.log_file.read_text()[-2000:]}"
    await asterisk.stop()


class Line:
    """A TCP proxy between engine and Asterisk that can be cut."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._target = URL(access.url).port
        self._writers: set[asyncio.StreamWriter] = set()
        self._whole = True

    @asynccontextmanager
    async def laid(self) -> AsyncIterator[Line]:
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.access = replace(self.access, url=f"http://127.0.0.1:{port}")
        try:
            yield self
        finally:
            self.cut()
            server.close()
            await server.wait_closed()

    def cut(self) -> None:
        self._whole = False
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        self._whole = True

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._whole:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, far_writer}
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        self._writers -= {writer, far_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def line(access: Access) -> AsyncIterator[Line]:
    async with Line(access).laid() as line:
        yield line


def wire(access: Access) -> HttpWire:
    return HttpWire(access.url, access.user, access.password)


@dataclass
class Engine:
    """As much of an engine as these tests need: it keeps what it is told."""

    ari: Ari
    snapshots: asyncio.Queue[Snapshot]
    arrivals: asyncio.Queue[Any]
    running: asyncio.Task[None]


@asynccontextmanager
async def engine(access: Access) -> AsyncIterator[Engine]:
    ari = Ari(wire(access), APP)
    one = Engine(ari, asyncio.Queue(), asyncio.Queue(), asyncio.create_task(ari.run()))
    ari.on_snapshot = one.snapshots.put_nowait
    ari.on_arrival = one.arrivals.put_nowait
    try:
        await soon(ari.connected.wait())
        yield one
    finally:
        one.running.cancel()
        await asyncio.wait((one.running,))


@pytest.fixture
async def one(line: Line) -> AsyncIterator[Engine]:
    async with engine(line.access) as one:
        yield one


class Ear:
    """Listens to one object, and lets a test wait for the event that it is after."""

    def __init__(self, ari: Ari, object_id: str) -> None:
        self._heard: asyncio.Queue[Any] = asyncio.Queue()
        self.all: list[str] = []
        ari.listen(object_id, self._hear)

    def _hear(self, event: Event) -> None:
        self.all.append(event["type"])
        self._heard.put_nowait(event)

    async def hears(self, kind: str) -> Any:
        while (event := await soon(self._heard.get()))["type"] != kind:
            pass
        return event


async def soon(wait: Any) -> Any:
    """What must happen, however slow the machine."""
    return await asyncio.wait_for(wait, 15)


async def call(one: Engine, leg_id: str) -> Ear:
    """A leg of ours that the other end, a caller to us as well, has answered.

    Not by create and dial: Asterisk 22.10 cannot record such a leg until it has been in a bridge.
    """
    leg = Ear(one.ari, leg_id)
    await one.ari.channels.originate_with_id(leg_id, endpoint="Local/102@from-line/n", app=APP)
    arrival = await soon(one.arrivals.get())
    await one.ari.channels.answer(arrival["channel"]["id"])
    await leg.hears("StasisStart")
    return leg


async def test_asterisk_says_its_version_and_is_alive(one: Engine) -> None:
    info = await one.ari.asterisk.get_info(only=["system"])
    assert int(info["system"]["version"].split(".")[0]) >= 22
    assert (await one.ari.asterisk.ping())["ping"] == "pong"
    assert await one.ari.alive()


async def test_a_leg_is_made_is_answered_plays_and_is_hung_up(one: Engine) -> None:
    ari = one.ari
    leg, playback = Ear(ari, "t.l1"), Ear(ari, "t.p1")
    await ari.channels.create(endpoint="Local/102@from-line/n", app=APP, channel_id="t.l1")
    await leg.hears("StasisStart")
    await ari.channels.dial("t.l1", timeout_seconds=20)
    arrival = await soon(one.arrivals.get())
    assert arrival["args"] == ["line", "", "102"]
    await ari.channels.answer(arrival["channel"]["id"])
    while (await leg.hears("Dial"))["dialstatus"] != "ANSWER":
        pass
    await ari.channels.play_with_id("t.l1", "t.p1", media=["sound:digits/1"], lang=LANGUAGE)
    assert (await playback.hears("PlaybackFinished"))["playback"]["state"] == "done"
    await leg.hears("PlaybackFinished")
    await ari.channels.hangup("t.l1", reason_code="17")
    destroyed = await leg.hears("ChannelDestroyed")
    assert destroyed["cause"] == 17 and "synthetic" not in destroyed
    with pytest.raises(Gone):
        await ari.channels.answer("t.l1")


async def test_names_and_values_arrive_as_they_were_meant(one: Engine) -> None:
    await one.ari.asterisk.set_global_var(variable="ODD", value="a b+c&d=é/%41")
    assert (await one.ari.asterisk.get_global_var(variable="ODD"))["value"] == "a b+c&d=é/%41"
    await call(one, "t w1/é.l1")
    name = "folder/t.r1"
    recording = Ear(one.ari, name)
    await one.ari.channels.record("t w1/é.l1", name=name, format="wav", if_exists="overwrite", beep=False)
    await recording.hears("RecordingStarted")
    await one.ari.recordings.stop(name)
    await recording.hears("RecordingFinished")
    assert (await one.ari.recordings.get_stored_file(name)).startswith(b"RIFF")


async def test_the_filter_holds(one: Engine) -> None:
    leg = await call(one, "t.l1")
    await one.ari.channels.set_channel_var("t.l1", variable="X", value="1")
    await one.ari.channels.hangup("t.l1")
    await leg.hears("ChannelDestroyed")
    assert not {"ChannelVarset", "ChannelDialplan"} & set(leg.all)
    assert (await one.ari.applications.get(APP))["events_disallowed"] == UNHEARD["disallowed"]


async def test_a_command_that_waits_for_a_prompt_holds_up_no_other(one: Engine) -> None:
    leg = await call(one, "t.l1")
    await one.ari.channels.play_with_id("t.l1", "t.p1", media=["sound:demo-congrats"], lang=LANGUAGE)
    await leg.hears("PlaybackStarted")
    with pytest.raises(Unreachable):
        await one.ari.channels.set_channel_var("t.l1", variable="X", value="1", timeout=0.2)
    await one.ari.playbacks.stop("t.p1")
    await leg.hears("PlaybackFinished")
    await one.ari.channels.set_channel_var("t.l1", variable="X", value="2")
    assert (await one.ari.channels.get_channel_var("t.l1", variable="X"))["value"] == "2"


async def test_a_call_survives_a_cut_and_is_heard_again(line: Line, one: Engine) -> None:
    await soon(one.snapshots.get())
    leg = await call(one, "t.l1")
    await one.ari.bridges.create_with_id("t.b1", type="mixing")
    line.cut()
    line.mend()
    snapshot = await soon(one.snapshots.get())
    assert "t.l1" in [channel["id"] for channel in snapshot.channels]
    assert [bridge["id"] for bridge in snapshot.bridges] == ["t.b1"]
    assert (await leg.hears("ChannelStateChange"))["channel"]["state"] == "Up"
    await one.ari.channels.hangup("t.l1", reason_code="21")
    destroyed = await leg.hears("ChannelDestroyed")
    assert destroyed["cause"] == 21 and "synthetic" not in destroyed


async def test_what_ends_while_nobody_hears_is_told_afterwards(line: Line, access: Access, one: Engine) -> None:
    direct = wire(access)
    other = Ari(direct, "pbx-w2")
    first, second, third = [await call(one, f"t.l{number}") for number in (1, 2, 3)]
    bridge, playback, recording = (Ear(one.ari, f"t.{kind}") for kind in ("b1", "p1", "r1"))
    await one.ari.bridges.create_with_id("t.b1", type="mixing")
    await one.ari.channels.play_with_id("t.l2", "t.p1", media=["sound:demo-congrats"], lang=LANGUAGE)
    await one.ari.channels.record("t.l3", name="t.r1", format="wav", if_exists="overwrite")
    await playback.hears("PlaybackStarted")
    await recording.hears("RecordingStarted")
    line.cut()
    await other.channels.hangup("t.l1")
    await other.bridges.destroy("t.b1")
    await other.playbacks.stop("t.p1")
    await other.recordings.stop("t.r1")
    await direct.close()
    line.mend()
    assert (await first.hears("ChannelDestroyed"))["synthetic"]
    assert (await bridge.hears("BridgeDestroyed"))["synthetic"]
    assert (await playback.hears("PlaybackFinished"))["synthetic"]
    assert (await recording.hears("RecordingFinished"))["synthetic"]
    for leg, leg_id in ((second, "t.l2"), (third, "t.l3")):
        await one.ari.channels.hangup(leg_id)
        assert "synthetic" not in await leg.hears("ChannelDestroyed")


async def test_a_second_engine_takes_the_calls_over(access: Access, one: Engine) -> None:
    await call(one, "t.l1")
    async with engine(access) as heir:
        with pytest.raises(Replaced):
            await soon(one.running)
        snapshot = await soon(heir.snapshots.get())
        assert "t.l1" in [channel["id"] for channel in snapshot.channels]
        leg = Ear(heir.ari, "t.l1")
        await heir.ari.channels.hangup("t.l1")
        assert (await leg.hears("ChannelDestroyed"))["cause"] == 16
