"""ARI on a server of our own: what is sent, who hears which event, and what happens when a connection does not hold."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from collections.abc import Callable
from collections.abc import Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from ari_server import APP
from ari_server import PASSWORD
from ari_server import USER
from ari_server import AriServer
from ari_server import Asked
from ari_server import Reply
from ari_server import ari_server
from ari_server import bridge
from ari_server import channel
from prometheus_client import REGISTRY

from pbx.ari import UNHEARD
from pbx.ari import Ari
from pbx.ari import AriError
from pbx.ari import Event
from pbx.ari import Gone
from pbx.ari import Replaced
from pbx.ari import Snapshot
from pbx.ari import Unreachable
from pbx.ari_http import HttpWire
from pbx.prefix import Prefix
from pbx.simulator import virtual

ROOT = Path(__file__).parent.parent


@pytest.fixture
async def server() -> AsyncIterator[AriServer]:
    async with ari_server() as running:
        yield running


@pytest.fixture
async def ari(server: AriServer) -> AsyncIterator[Ari]:
    """Connected to `server`; back after a cut without delay."""
    async with connected(server) as one:
        yield one


@asynccontextmanager
async def connected(server: AriServer, **options: Any) -> AsyncIterator[Ari]:
    ari = Ari(HttpWire(server.url, USER, PASSWORD), APP, random=lambda: 0.0, **options)
    running = asyncio.create_task(ari.run())
    await soon(ari.connected.wait())
    yield ari
    running.cancel()
    await asyncio.wait((running,))


async def soon(wait: Any) -> Any:
    """What must happen, however slow the machine."""
    return await asyncio.wait_for(wait, 10)


class Ear:
    """Listens, and lets a test wait for what it heard."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[Any] = asyncio.Queue()

    def __call__(self, event: Event) -> None:
        self.heard.put_nowait(event)

    async def next(self) -> Any:
        return await soon(self.heard.get())

    async def types(self, count: int) -> list[str]:
        return [(await self.next())["type"] for _ in range(count)]


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


# -- operations ---------------------------------------------------------------------------------


def test_the_committed_operations_are_those_of_asterisk(prefix: Prefix, tmp_path: Path) -> None:
    made = tmp_path / "ari_api.py"
    generator = [sys.executable, str(ROOT / "asterisk/generate-ari")]
    subprocess.run([*generator, "--from", prefix.data / "rest-api", "--to", made], check=True)
    assert made.read_text() == (ROOT / "pbx/ari_api.py").read_text(), "run asterisk/generate-ari and commit the result"


def test_the_generator_says_where_the_description_is_to_be_had(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, ROOT / "asterisk/generate-ari", "--from", tmp_path], capture_output=True, text=True
    )
    assert answer.returncode == 2
    assert "run asterisk/install var/asterisk" in answer.stderr


async def test_an_operation_is_sent_as_asterisk_reads_it(server: AriServer, ari: Ari) -> None:
    await ari.channels.create(
        endpoint="PJSIP/acme-101", app=APP, channel_id="a1.w1.7.1.l1", formats="alaw,ulaw",
        variables={"CALLERID(name)": "Zoé", "CALL": {"value": "a1.w1.7.1", "report_events": True}},
    )
    await ari.channels.play_with_id("a b/c", "p?1", media=["sound:one", "digits:2+3 é"], lang="fr", skipms=0)
    await ari.bridges.add_channel("b1", channel=["x", "y"], absorb_dtmf=True, mute=False)
    await ari.channels.dial("x", caller="y", timeout_seconds=20)
    await ari.endpoints.send_message(to="pjsip:acme-101", from_="pbx", body="hello")
    await ari.applications.filter(APP, filter={"disallowed": []})
    assert server.asked[-6:] == [
        Asked(
            "POST", "/channels/create",
            {"endpoint": "PJSIP/acme-101", "app": APP, "channelId": "a1.w1.7.1.l1", "formats": "alaw,ulaw"},
            {"variables": {"CALLERID(name)": "Zoé", "CALL": {"value": "a1.w1.7.1", "report_events": True}}},
        ),
        Asked(
            "POST", "/channels/a%20b%2Fc/play/p%3F1",
            {"media": "sound:one,digits:2+3 é", "lang": "fr", "skipms": "0"},
        ),
        Asked("POST", "/bridges/b1/addChannel", {"channel": "x,y", "absorbDTMF": "true", "mute": "false"}),
        Asked("POST", "/channels/x/dial", {"caller": "y", "timeout": "20"}),
        Asked("PUT", "/endpoints/sendMessage", {"to": "pjsip:acme-101", "from": "pbx", "body": "hello"}),
        Asked("PUT", f"/applications/{APP}/eventFilter", {}, {"disallowed": []}),
    ]


async def test_an_answer_is_parsed_json_or_nothing_or_a_file(server: AriServer, ari: Ari) -> None:
    server.replies["GET /channels/x"] = 200, channel("x") | {"news": "of Asterisk 30"}
    server.replies["GET /recordings/stored/r/file"] = 200, b"RIFF"
    assert (await ari.channels.get("x"))["state"] == "Up"
    assert await ari.recordings.get_stored_file("r") == b"RIFF"
    await ari.channels.answer("x")


@pytest.mark.parametrize(
    "status, message, error",
    [
        (404, "Channel not found", Gone),
        (409, "Channel not in Stasis application", Gone),
        (400, "Channel not found", Gone),
        (422, "Channel not in this bridge", Gone),
        (412, "Channel in invalid state", AriError),
        (409, "Channel with given unique ID already exists", AriError),
        (500, "Allocation failed", AriError),
    ],
)
async def test_a_refusal_says_whether_the_object_is_gone(
    server: AriServer, ari: Ari, status: int, message: str, error: type[AriError]
) -> None:
    before = metric("pbx_ari_requests_total", operation="channels.answer", status=str(status))
    server.replies["POST /channels/x/answer"] = status, {"message": message}
    with pytest.raises(AriError) as refused:
        await ari.channels.answer("x")
    assert type(refused.value) is error
    assert str(refused.value) == f"channels.answer: {message} ({status})"
    assert metric("pbx_ari_requests_total", operation="channels.answer", status=str(status)) == before + 1


async def test_a_refusal_need_not_be_json(server: AriServer, ari: Ari) -> None:
    server.replies["POST /channels/x/answer"] = 503, b"<html>down</html>"
    with pytest.raises(AriError, match=r"channels.answer: refused \(503\)"):
        await ari.channels.answer("x")
    server.replies["POST /channels/x/answer"] = 500, {"error": "Allocation failed"}
    with pytest.raises(AriError, match=r"Allocation failed"):
        await ari.channels.answer("x")


async def test_a_request_has_a_deadline_and_the_others_go_on(server: AriServer, ari: Ari) -> None:
    server.replies["POST /channels/busy/answer"] = never
    with pytest.raises(Unreachable, match="channels.answer: no answer within 0.05 s"):
        await ari.channels.answer("busy", timeout=0.05)
    await ari.channels.answer("free")


async def test_a_cancelled_request_spoils_no_connection(server: AriServer) -> None:
    """Its answer comes late, and must not be taken for that of the next request on the same connection."""
    release = asyncio.Event()

    async def late() -> Reply:
        await release.wait()
        return 200, channel("late")

    server.replies["GET /channels/late"] = late
    wire = HttpWire(server.url, USER, PASSWORD, connections=1)
    ari = Ari(wire, APP)
    server.replies["GET /channels/next"] = 200, channel("next")
    for _ in range(3):
        asking = asyncio.create_task(ari.channels.get("late"))
        while not server.requests("GET", "/channels/late"):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait((asking,))
        release.set()
        assert (await ari.channels.get("next"))["id"] == "next"
        release.clear()
        server.asked.clear()
    await wire.close()


async def test_a_server_that_closes_kept_connections_costs_no_request(server: AriServer, ari: Ari) -> None:
    server.hangs_up_after_each_answer = True
    for number in range(5):
        await ari.channels.answer(f"c{number}")
        await asyncio.sleep(0.03)  # the connection is closed meanwhile
    assert len([asked for asked in server.asked if asked.path.endswith("/answer")]) == 5


async def test_nothing_is_sent_over_a_closed_wire(server: AriServer) -> None:
    wire = HttpWire(server.url, USER, PASSWORD)
    await wire.close()
    with pytest.raises(Unreachable, match="has been closed"):
        await wire.request("asterisk.ping", "GET", "/asterisk/ping", {}, None, 1.0)


async def test_a_refused_password_is_reported_and_not_told(
    server: AriServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wire = HttpWire(server.url, USER, "not-" + PASSWORD)
    with pytest.raises(AriError) as opening:
        await wire.connect(APP, print)
    with pytest.raises(AriError) as asking:
        await wire.request("asterisk.ping", "GET", "/asterisk/ping", {}, None, 1.0)
    await wire.close()
    assert "user or password refused" in str(opening.value)
    assert asking.value.status == 401
    assert PASSWORD not in caplog.text + repr(opening.value) + repr(asking.value) + repr(vars(opening.value))


async def test_a_password_does_not_belong_into_the_address() -> None:
    with pytest.raises(ValueError, match="give them on their own") as refused:
        HttpWire(f"http://{USER}:{PASSWORD}@127.0.0.1:8088", USER, PASSWORD)
    assert PASSWORD not in str(refused.value)


async def test_asterisk_is_alive_when_it_finds_no_channel_of_that_name(server: AriServer, ari: Ari) -> None:
    assert await ari.alive()
    server.replies["GET /channels/nobody/variable"] = 500, {"message": "Allocation failed"}
    assert not await ari.alive()


async def never() -> Reply:
    await asyncio.Event().wait()
    raise AssertionError


# -- events -------------------------------------------------------------------------------------


async def test_an_event_may_outrun_the_answer_that_it_belongs_to(server: AriServer, ari: Ari) -> None:
    async def playing() -> Reply:
        await server.send({"type": "PlaybackFinished", "playback": {"id": "c.p1", "target_uri": "channel:c"}})
        await soon(arrived.wait())
        return 201, {"id": "c.p1"}

    server.replies["POST /channels/c/play/c.p1"] = playing
    arrived = asyncio.Event()
    ari.listen("c.p1", lambda event: arrived.set())
    await ari.channels.play_with_id("c", "c.p1", media=["sound:hello"])
    assert arrived.is_set()


CHANNEL, OTHER = channel("c1"), channel("c2")
PLAYBACK = {"id": "c1.p1", "media_uri": "sound:x", "target_uri": "channel:c1", "state": "done"}
ENDPOINT = {"technology": "PJSIP", "resource": "acme-101", "channel_ids": []}


@pytest.mark.parametrize(
    "event, listeners",
    [
        ({"type": "ChannelDestroyed", "channel": CHANNEL, "cause": 16}, {"c1"}),
        ({"type": "PlaybackFinished", "playback": PLAYBACK}, {"c1.p1", "c1"}),
        ({"type": "PlaybackStarted", "playback": PLAYBACK | {"target_uri": "bridge:b1"}}, {"c1.p1", "b1"}),
        ({"type": "RecordingFinished", "recording": {"name": "a/b.r1", "target_uri": "channel:c1"}}, {"a/b.r1"}),
        ({"type": "ChannelEnteredBridge", "channel": CHANNEL, "bridge": bridge("b1")}, {"c1", "b1"}),
        ({"type": "BridgeMerged", "bridge": bridge("b1"), "bridge_from": bridge("b2")}, {"b1", "b2"}),
        ({"type": "Dial", "caller": CHANNEL, "peer": OTHER, "dialstatus": "RINGING"}, {"c1", "c2"}),
        ({"type": "Dial", "peer": OTHER, "dialstatus": ""}, {"c2"}),
        ({"type": "StasisStart", "args": [], "channel": OTHER, "replace_channel": CHANNEL}, {"c1", "c2"}),
        ({"type": "DeviceStateChanged", "device_state": {"name": "PJSIP/acme-101"}}, {"deviceState:PJSIP/acme-101"}),
        ({"type": "EndpointStateChange", "endpoint": ENDPOINT}, {"endpoint:PJSIP/acme-101"}),
        ({"type": "ContactStatusChange", "endpoint": ENDPOINT, "contact_info": {}}, {"endpoint:PJSIP/acme-101"}),
        (
            {
                "type": "ChannelTransfer", "refer_to": {"destination_channel": OTHER},
                "referred_by": {"source_channel": CHANNEL, "connected_channel": OTHER},
            },
            {"c1"},
        ),
    ],
)
async def test_an_event_reaches_the_objects_it_is_about(
    server: AriServer, ari: Ari, event: dict[str, Any], listeners: set[str]
) -> None:
    told: list[str] = []
    states = ("deviceState:PJSIP/acme-101", "endpoint:PJSIP/acme-101")
    everybody = ("c1", "c2", "b1", "b2", "c1.p1", "a/b.r1", *states)
    for object_id in everybody:
        ari.listen(object_id, lambda event, object_id=object_id: told.append(object_id))  # type: ignore[misc]
    await everything_before(server, ari, event)
    assert sorted(told) == sorted(listeners)


async def everything_before(server: AriServer, ari: Ari, *events: dict[str, Any] | str) -> None:
    """Sends events, and waits until they have been dealt with."""
    for event in events:
        await server.send(event)
    last = Ear()
    ari.listen("the last", last)
    await server.send({"type": "ChannelDestroyed", "channel": channel("the last")})
    await last.next()
    ari.forget("the last")


async def test_one_who_listens_to_several_objects_of_an_event_hears_it_once(server: AriServer, ari: Ari) -> None:
    ear = Ear()
    ari.listen("c1", ear)
    ari.listen("b1", ear)
    await everything_before(
        server, ari, {"type": "ChannelEnteredBridge", "channel": CHANNEL, "bridge": bridge("b1")}
    )
    assert ear.heard.qsize() == 1


async def test_who_is_forgotten_hears_nothing_more(server: AriServer, ari: Ari) -> None:
    ear = Ear()
    ari.listen("c1", ear)
    ari.forget("c1")
    ari.forget("c1")
    await everything_before(server, ari, {"type": "ChannelDestroyed", "channel": CHANNEL})
    assert ear.heard.empty()


async def test_a_channel_nobody_expected_is_an_arrival(server: AriServer, ari: Ari) -> None:
    arrivals: list[str] = []
    caller, leg = Ear(), Ear()

    def arrived(event: Any) -> None:
        arrivals.append(event["channel"]["id"])
        ari.listen(event["channel"]["id"], caller)

    ari.on_arrival = arrived
    ari.listen("leg", leg)
    await everything_before(
        server, ari,
        {"type": "StasisStart", "args": ["line", "acme-101"], "channel": channel("caller")},
        {"type": "ChannelDestroyed", "channel": channel("caller"), "cause": 16},
        {"type": "StasisStart", "args": [], "channel": channel("leg")},
    )
    assert arrivals == ["caller"]
    assert await caller.types(1) == ["ChannelDestroyed"]
    assert await leg.types(1) == ["StasisStart"]


async def test_what_is_unknown_or_broken_does_no_harm(
    server: AriServer, ari: Ari, caplog: pytest.LogCaptureFixture
) -> None:
    unknown, invalid = (metric("pbx_ari_events_total", type=kind) for kind in ("unknown", "invalid"))
    await everything_before(
        server, ari,
        {"type": "ChannelTeleported", "channel": CHANNEL},
        {"type": "ChannelDestroyed"},
        {"type": "ChannelDestroyed", "channel": "c1"},
        {"type": "StasisStart", "args": []},
        {"type": "ChannelHold", "channel": CHANNEL, "mood": "fine", "timestamp": "yesterday"},
        '{"type": "ChannelDestroyed", "chan', "[1, 2]", "null", "{}", "",
    )
    assert metric("pbx_ari_events_total", type="unknown") == unknown + 1
    assert metric("pbx_ari_events_total", type="invalid") == invalid + 5
    assert "not an event: b'[1, 2]'" in caplog.text


async def test_one_handlers_mistake_costs_the_others_nothing(
    server: AriServer, ari: Ari, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: Event) -> None:
        raise ZeroDivisionError

    ear = Ear()
    ari.listen("c1", broken)
    ari.listen("b1", ear)
    await everything_before(
        server, ari, {"type": "ChannelEnteredBridge", "channel": CHANNEL, "bridge": bridge("b1")}
    )
    assert await ear.types(1) == ["ChannelEnteredBridge"]
    assert "a handler failed on {" in caplog.text and "ZeroDivisionError" in caplog.text


async def test_a_slow_handler_loses_no_event_and_no_connection(server: AriServer, ari: Ari) -> None:
    """More comes than fits into any buffer on the way while nobody reads."""
    ear = Ear()
    padded = channel("c1") | {"channelvars": {"padding": "x" * 10_000}}
    count = 3_000

    def slow(event: Event) -> None:
        if ear.heard.empty():
            time.sleep(0.2)
        ear(event)

    ari.listen("c1", slow)
    sending = asyncio.create_task(send_all(server, padded, count))
    numbers = [(await ear.next())["duration_ms"] for _ in range(count)]
    await sending
    assert numbers == list(range(count))
    assert len(server.streams) == 1


async def send_all(server: AriServer, about: dict[str, Any], count: int) -> None:
    for number in range(count):
        await server.send({"type": "ChannelDtmfReceived", "digit": "1", "duration_ms": number, "channel": about})


# -- connection ---------------------------------------------------------------------------------


async def test_what_nobody_reads_is_filtered_after_each_connect(server: AriServer, ari: Ari) -> None:
    await server.cut()
    await soon(server.streams_opened(2))
    await soon(ari.connected.wait())
    asked = server.requests("PUT", f"/applications/{APP}/eventFilter")
    assert [one.body for one in asked] == [UNHEARD, UNHEARD]
    assert set(UNHEARD) == {"disallowed"}


async def test_after_a_cut_the_snapshot_tells_what_is_alive(server: AriServer, ari: Ari) -> None:
    snapshots: asyncio.Queue[Snapshot] = asyncio.Queue()
    ari.on_snapshot = snapshots.put_nowait
    server.channels = [channel("ours"), channel("another application's")]
    server.in_application = {"ours"}
    server.bridges = [bridge("b1"), bridge("not over ARI", creator="ConfBridge")]
    await server.cut()
    snapshot = await soon(snapshots.get())
    assert [one["id"] for one in snapshot.channels] == ["ours"]
    assert [one["id"] for one in snapshot.bridges] == ["b1"]


async def test_what_was_missed_is_made_up_for(server: AriServer, ari: Ari) -> None:
    ears = {name: Ear() for name in (
        "dead", "elsewhere", "living", "x.b1", "x.b2", "x.p1", "x.p2", "x.r1", "x.r2", "x.r3", "deviceState:Stasis:x"
    )}
    for name, ear in ears.items():
        ari.listen(name, ear)
    server.channels = [channel("living", "Ringing"), channel("elsewhere")]
    server.in_application = {"living"}
    server.bridges, server.playbacks = [bridge("x.b2")], {"x.p2"}
    server.live_recordings, server.stored_recordings = {"x.r3"}, {"x.r2"}
    await server.cut()
    made = [await ears[name].next() for name in ("dead", "elsewhere", "living", "x.b1", "x.p1", "x.r1", "x.r2")]
    assert [event["type"] for event in made] == [
        "ChannelDestroyed", "StasisEnd", "ChannelStateChange", "BridgeDestroyed", "PlaybackFinished",
        "RecordingFailed", "RecordingFinished",
    ]
    assert all(event["synthetic"] for event in made)
    assert made[0]["channel"]["id"] == "dead" and made[0]["cause"] == 0
    assert made[2]["channel"]["state"] == "Ringing"
    assert made[-1]["recording"]["format"] == "wav"
    await soon(ari.connected.wait())
    assert all(ear.heard.empty() for ear in ears.values())


async def test_events_wait_until_stock_was_taken(server: AriServer, ari: Ari) -> None:
    """An event that comes meanwhile follows the snapshot, and it, not a made-up one, tells of the end."""
    story: list[str] = []
    ear = Ear()

    async def held_up() -> Reply:
        await server.send({"type": "ChannelDestroyed", "channel": CHANNEL, "cause": 17})
        await server.send({"type": "StasisStart", "args": [], "channel": channel("new")})
        return 200, [channel("old"), channel("new")]

    async def dealt_with(snapshot: Snapshot) -> None:
        await ari.channels.hangup("old")
        story.append(f"snapshot of {[one['id'] for one in snapshot.channels]}")

    def heard(event: Event) -> None:
        story.append(f"{event['type']} {event.get('cause')}")
        ear(event)

    ari.listen("c1", heard)
    ari.on_snapshot = dealt_with
    ari.on_arrival = lambda event: story.append(f"arrival of {event['channel']['id']}")
    server.in_application = {"old", "new"}
    server.replies["GET /channels"] = held_up
    await server.cut()
    await ear.next()
    await soon(ari.connected.wait())
    assert story == ["snapshot of ['old']", "ChannelDestroyed 17", "arrival of new"]


async def test_what_is_just_being_made_is_not_taken_for_dead(server: AriServer, ari: Ari) -> None:
    """Asterisk has the request already, but not yet the channel, when the new stream is open."""
    ear = Ear()

    async def slowly() -> Reply:
        await server.cut()
        await soon(server.streams_opened(2))
        await asyncio.sleep(0.1)  # for who does not wait for our answer
        server.channels = [channel("leg")]
        return 200, channel("leg")

    server.replies["POST /channels/create"] = slowly
    ari.listen("leg", ear)
    await ari.channels.create(endpoint="PJSIP/acme-101", app=APP, channel_id="leg")
    await soon(ari.connected.wait())
    assert (await ear.next())["type"] == "ChannelStateChange"


async def test_a_failing_snapshot_handler_does_not_stop_the_events(
    server: AriServer, ari: Ari, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(snapshot: Snapshot) -> None:
        raise ZeroDivisionError

    ari.on_snapshot = broken
    await server.cut()
    await soon(server.streams_opened(2))
    await soon(ari.connected.wait())
    await everything_before(server, ari)
    assert "ZeroDivisionError" in caplog.text


async def test_a_stock_taking_that_fails_is_begun_anew(server: AriServer) -> None:
    failures = [(500, {"message": "Allocation failed"}), (200, [])]

    async def second_time() -> Reply:
        return failures.pop(0)

    server.replies["GET /bridges"] = second_time
    async with connected(server) as ari:
        await everything_before(server, ari)
    assert len(server.streams) == 2


async def test_another_engine_takes_over(server: AriServer) -> None:
    ari = Ari(HttpWire(server.url, USER, PASSWORD), APP)
    running = asyncio.create_task(ari.run())
    await soon(ari.connected.wait())
    await server.send({"type": "ApplicationReplaced"})
    with pytest.raises(Replaced, match=f"taken over the application {APP}"):
        await soon(running)
    before = len(server.asked)
    with pytest.raises(Replaced):
        await ari.channels.hangup("c1")
    assert len(server.asked) == before


class Refusing:
    """A wire to nowhere."""

    def __init__(self) -> None:
        self.attempts: list[float] = []
        self.closed = False

    async def connect(self, app: str, deliver: Callable[[Event], None]) -> None:
        self.attempts.append(asyncio.get_running_loop().time())
        raise Unreachable("events.event_websocket", 0, "connection refused")

    async def lost(self) -> str:
        raise AssertionError

    async def request(
        self, operation: str, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None,
        timeout: float,
    ) -> Any:
        raise Unreachable(operation, 0, "connection refused")

    async def close(self) -> None:
        self.closed = True


@virtual
async def test_attempts_to_reconnect_become_rarer_and_never_stop() -> None:
    wire = Refusing()
    running = asyncio.create_task(Ari(wire, APP, random=lambda: 1.0).run())
    await asyncio.sleep(60)
    running.cancel()
    await asyncio.wait((running,))
    pauses = [round(after - before, 3) for before, after in zip(wire.attempts, wire.attempts[1:])]
    assert pauses[:5] == [0.2, 0.4, 0.8, 1.6, 2.0]
    assert set(pauses[5:]) == {2.0}
    assert wire.closed


@virtual
async def test_the_pauses_are_drawn_so_that_engines_do_not_come_all_at_once() -> None:
    wire = Refusing()
    drawn = iter([0.5, 0.0, 1.0])
    running = asyncio.create_task(Ari(wire, APP, random=lambda: next(drawn, 1.0)).run())
    await asyncio.sleep(1)
    running.cancel()
    await asyncio.wait((running,))
    assert wire.attempts[:4] == pytest.approx([0.0, 0.1, 0.1, 0.9])
