"""ARI on a real Asterisk: what pbx.ari promises about it holds, also when the connection does not."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from collections.abc import Iterator
from contextlib import asynccontextmanager
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pbx.ari import UNHEARD
from pbx.ari import Ari
from pbx.ari import Event
from pbx.ari import Gone
from pbx.ari import Replaced
from pbx.ari import Snapshot
from pbx.ari import Unreachable
from pbx.ari_http import HttpWire
from pbx.prefix import Prefix

APP = "pbx-w1"
USER, PASSWORD = "pbx", "Zx9-secret"
VOICE = "en_US_f_Allison"  # as Debian names the folder of the English prompts

# `incoming` is a caller; `listener` is somebody who answers and then only listens.
DIALPLAN = f"""
[test]
exten => incoming,1,Stasis({APP},line,acme-101,102)
exten => listener,1,Answer
 same => n,Wait(600)
"""
MODULES = """
    pbx_config res_timing_timerfd res_sorcery_config res_http_websocket res_websocket_client res_stasis
    res_stasis_answer res_stasis_playback res_stasis_recording res_stasis_snoop res_stasis_device_state app_stasis
    res_ari res_ari_model res_ari_applications res_ari_asterisk res_ari_bridges res_ari_channels
    res_ari_device_states res_ari_events res_ari_playbacks res_ari_recordings bridge_simple bridge_softmix
    bridge_holding codec_ulaw codec_g722 codec_resample format_pcm format_sln format_wav
"""
EMPTY = "acl ccss cdr cel features indications stasis udptl"


@pytest.fixture(scope="module")
def asterisk_port(prefix: Prefix, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """An Asterisk with nothing but ARI; its HTTP port."""
    folder = tmp_path_factory.mktemp("asterisk")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    configure(folder, prefix, port)
    log = (folder / "console").open("w")
    command = [*prefix.command("asterisk"), "-C", str(folder / "etc/asterisk.conf"), "-f"]
    process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for _ in range(600):
            assert process.poll() is None, (folder / "console").read_text()
            if accepts(port):
                break
            time.sleep(0.05)
        yield port
        assert process.poll() is None, "Asterisk died: " + (folder / "console").read_text()[-2000:]
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


def configure(folder: Path, prefix: Prefix, port: int) -> None:
    for name in ("etc", "lib", "log", "run", "cache", "spool/recording", "spool/tmp"):
        (folder / name).mkdir(parents=True)
    files = {
        "asterisk": f"""
            [directories]
            astetcdir => {folder}/etc\nastvarlibdir => {folder}/lib\nastdbdir => {folder}/lib\nastkeydir => {folder}/lib
            astlogdir => {folder}/log\nastrundir => {folder}/run\nastcachedir => {folder}/cache
            astspooldir => {folder}/spool\nastmoddir => {prefix.modules}\nastdatadir => {prefix.data}""",
        "modules": "[modules]\nautoload = no\n" + "".join(f"load = {name}.so\n" for name in MODULES.split()),
        "http": f"[general]\nenabled = yes\nbindaddr = 127.0.0.1\nbindport = {port}\n",
        "ari": f"[general]\nenabled = yes\n[{USER}]\ntype = user\npassword = {PASSWORD}\npassword_format = plain\n",
        "extensions": DIALPLAN,
        "logger": "[general]\n[logfiles]\nmessages => notice,warning,error\n",
    } | dict.fromkeys(EMPTY.split(), "")
    for name, text in files.items():
        (folder / "etc" / f"{name}.conf").write_text("\n".join(line.strip() for line in text.splitlines()) + "\n")


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Line:
    """A TCP proxy between engine and Asterisk that can be cut."""

    def __init__(self, port: int) -> None:
        self.url = ""
        self._target = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._whole = True

    @asynccontextmanager
    async def laid(self) -> AsyncIterator[Line]:
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
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
async def line(asterisk_port: int) -> AsyncIterator[Line]:
    """To an Asterisk on which nothing is left of the test afterwards."""
    async with Line(asterisk_port).laid() as line:
        yield line
    direct = Ari(HttpWire(f"http://127.0.0.1:{asterisk_port}", USER, PASSWORD), "after")
    for channel in await direct.channels.list():
        with suppress(Gone):
            await direct.channels.hangup(channel["id"])
    for bridge in await direct.bridges.list():
        with suppress(Gone):
            await direct.bridges.destroy(bridge["id"])
    while await direct.channels.list():
        await asyncio.sleep(0.01)
    await direct._wire.close()


@dataclass
class Engine:
    """As much of an engine as these tests need: it keeps what it is told."""

    ari: Ari
    snapshots: asyncio.Queue[Snapshot]
    arrivals: asyncio.Queue[Any]
    running: asyncio.Task[None]


@asynccontextmanager
async def engine(url: str) -> AsyncIterator[Engine]:
    ari = Ari(HttpWire(url, USER, PASSWORD), APP)
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
async def ari(line: Line) -> AsyncIterator[Ari]:
    async with engine(line.url) as one:
        yield one.ari


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


async def call(ari: Ari, leg_id: str) -> Ear:
    """A leg of ours that has been answered.

    Not by create and dial: Asterisk 22.10 cannot record such a leg until it has been in a bridge.
    """
    leg = Ear(ari, leg_id)
    await ari.channels.originate_with_id(leg_id, endpoint="Local/listener@test/n", app=APP)
    await leg.hears("StasisStart")
    return leg


async def test_asterisk_says_its_version_and_is_alive(ari: Ari) -> None:
    info = await ari.asterisk.get_info(only=["system"])
    assert int(info["system"]["version"].split(".")[0]) >= 22
    assert (await ari.asterisk.ping())["ping"] == "pong"
    assert await ari.alive()


async def test_a_leg_is_made_plays_and_is_hung_up(ari: Ari) -> None:
    leg = Ear(ari, "t.w1.1.1.l1")
    await ari.channels.create(endpoint="Local/listener@test/n", app=APP, channel_id="t.w1.1.1.l1")
    await leg.hears("StasisStart")
    await ari.channels.dial("t.w1.1.1.l1", timeout_seconds=20)
    while (await leg.hears("Dial"))["dialstatus"] != "ANSWER":
        pass
    playback = Ear(ari, "t.w1.1.1.p1")
    await ari.channels.play_with_id("t.w1.1.1.l1", "t.w1.1.1.p1", media=["sound:digits/1"], lang=VOICE)
    assert (await playback.hears("PlaybackFinished"))["playback"]["state"] == "done"
    await leg.hears("PlaybackFinished")
    await ari.channels.hangup("t.w1.1.1.l1", reason_code="17")
    destroyed = await leg.hears("ChannelDestroyed")
    assert destroyed["cause"] == 17 and "synthetic" not in destroyed
    with pytest.raises(Gone):
        await ari.channels.answer("t.w1.1.1.l1")


async def test_a_caller_arrives_with_what_the_dialplan_says_of_him(line: Line) -> None:
    async with engine(line.url) as one:
        leg = Ear(one.ari, "t.w1.1.2.l1")
        await one.ari.channels.create(endpoint="Local/incoming@test/n", app=APP, channel_id="t.w1.1.2.l1")
        await leg.hears("StasisStart")
        await one.ari.channels.dial("t.w1.1.2.l1", timeout_seconds=20)
        arrival = await soon(one.arrivals.get())
        assert arrival["args"] == ["line", "acme-101", "102"]
        await one.ari.channels.answer(arrival["channel"]["id"])
        await leg.hears("ChannelStateChange")
        await one.ari.channels.hangup(arrival["channel"]["id"])
        await leg.hears("ChannelDestroyed")


async def test_names_and_values_arrive_as_they_were_meant(ari: Ari) -> None:
    await ari.asterisk.set_global_var(variable="ODD", value="a b+c&d=é/%41")
    assert (await ari.asterisk.get_global_var(variable="ODD"))["value"] == "a b+c&d=é/%41"
    leg = await call(ari, "t w1/é.l1")
    name = "folder/t.w1.1.3.r1"
    recording = Ear(ari, name)
    await ari.channels.record("t w1/é.l1", name=name, format="wav", if_exists="overwrite", beep=False)
    await recording.hears("RecordingStarted")
    await ari.recordings.stop(name)
    await recording.hears("RecordingFinished")
    assert (await ari.recordings.get_stored_file(name)).startswith(b"RIFF")
    await ari.channels.hangup("t w1/é.l1")
    await leg.hears("ChannelDestroyed")


async def test_the_filter_holds(ari: Ari) -> None:
    leg = await call(ari, "t.w1.1.4.l1")
    await ari.channels.set_channel_var("t.w1.1.4.l1", variable="X", value="1")
    await ari.channels.hangup("t.w1.1.4.l1")
    await leg.hears("ChannelDestroyed")
    assert not {"ChannelVarset", "ChannelDialplan"} & set(leg.all)
    assert (await ari.applications.get(APP))["events_disallowed"] == UNHEARD["disallowed"]


async def test_a_command_that_waits_for_a_prompt_holds_up_no_other(ari: Ari) -> None:
    leg = await call(ari, "t.w1.1.5.l1")
    await ari.channels.play_with_id("t.w1.1.5.l1", "t.w1.1.5.p1", media=["sound:demo-congrats"], lang=VOICE)
    await leg.hears("PlaybackStarted")
    with pytest.raises(Unreachable):
        await ari.channels.set_channel_var("t.w1.1.5.l1", variable="X", value="1", timeout=0.2)
    await ari.playbacks.stop("t.w1.1.5.p1")
    await leg.hears("PlaybackFinished")
    await ari.channels.set_channel_var("t.w1.1.5.l1", variable="X", value="2")
    assert (await ari.channels.get_channel_var("t.w1.1.5.l1", variable="X"))["value"] == "2"
    await ari.channels.hangup("t.w1.1.5.l1")
    await leg.hears("ChannelDestroyed")


async def test_a_call_survives_a_cut_and_is_heard_again(line: Line) -> None:
    async with engine(line.url) as one:
        await soon(one.snapshots.get())
        leg = await call(one.ari, "t.w1.1.6.l1")
        await one.ari.bridges.create_with_id("t.w1.1.6.b1", type="mixing")
        line.cut()
        line.mend()
        snapshot = await soon(one.snapshots.get())
        assert "t.w1.1.6.l1" in [channel["id"] for channel in snapshot.channels]
        assert [bridge["id"] for bridge in snapshot.bridges] == ["t.w1.1.6.b1"]
        await one.ari.bridges.destroy("t.w1.1.6.b1")
        await one.ari.channels.hangup("t.w1.1.6.l1", reason_code="21")
        destroyed = await leg.hears("ChannelDestroyed")
        assert destroyed["cause"] == 21 and "synthetic" not in destroyed


async def test_what_ends_while_nobody_hears_is_told_afterwards(line: Line, asterisk_port: int) -> None:
    other = Ari(HttpWire(f"http://127.0.0.1:{asterisk_port}", USER, PASSWORD), "pbx-w2")
    async with engine(line.url) as one:
        ari = one.ari
        legs = [await call(ari, f"t.w1.1.7.l{number}") for number in (1, 2, 3)]
        bridge, playback, recording = (Ear(ari, f"t.w1.1.7.{kind}") for kind in ("b1", "p1", "r1"))
        await ari.bridges.create_with_id("t.w1.1.7.b1", type="mixing")
        await ari.channels.play_with_id("t.w1.1.7.l2", "t.w1.1.7.p1", media=["sound:demo-congrats"], lang=VOICE)
        await ari.channels.record("t.w1.1.7.l3", name="t.w1.1.7.r1", format="wav", if_exists="overwrite")
        await playback.hears("PlaybackStarted")
        await recording.hears("RecordingStarted")
        line.cut()
        await other.channels.hangup("t.w1.1.7.l1")
        await other.bridges.destroy("t.w1.1.7.b1")
        await other.playbacks.stop("t.w1.1.7.p1")
        await other.recordings.stop("t.w1.1.7.r1")
        line.mend()
        assert (await legs[0].hears("ChannelDestroyed"))["synthetic"]
        assert (await bridge.hears("BridgeDestroyed"))["synthetic"]
        assert (await playback.hears("PlaybackFinished"))["synthetic"]
        assert (await recording.hears("RecordingFinished"))["synthetic"]
        for leg, number in zip(legs[1:], (2, 3)):
            await ari.channels.hangup(f"t.w1.1.7.l{number}")
            assert "synthetic" not in await leg.hears("ChannelDestroyed")
    await other._wire.close()


async def test_a_second_engine_takes_the_calls_over(line: Line, asterisk_port: int) -> None:
    async with engine(line.url) as first:
        await call(first.ari, "t.w1.1.8.l1")
        async with engine(f"http://127.0.0.1:{asterisk_port}") as second:
            with pytest.raises(Replaced):
                await soon(first.running)
            snapshot = await soon(second.snapshots.get())
            assert "t.w1.1.8.l1" in [channel["id"] for channel in snapshot.channels]
            leg = Ear(second.ari, "t.w1.1.8.l1")
            await second.ari.channels.hangup("t.w1.1.8.l1")
            assert (await leg.hears("ChannelDestroyed"))["cause"] == 16
