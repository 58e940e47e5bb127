"""Events on a server of our own: who hears which, and what is known again after the connection was cut."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from collections.abc import Callable
from collections.abc import Mapping
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

import pytest
from ari_server import APP
from ari_server import PASSWORD
from ari_server import USER
from ari_server import AriServer
from ari_server import Ear
from ari_server import Reply
from ari_server import ari_server
from ari_server import bridge
from ari_server import channel
from ari_server import connected
from ari_server import metric
from ari_server import soon

from pbx.ari import UNHEARD
from pbx.ari import Ari
from pbx.ari import Event
from pbx.ari import Replaced
from pbx.ari import Snapshot
from pbx.ari import Unreachable
from pbx.ari_http import HttpWire
from pbx.simulator import virtual


@pytest.fixture
async def server() -> AsyncIterator[AriServer]:
    async with ari_server() as running:
        yield running


@pytest.fixture
async def ari(server: AriServer) -> AsyncIterator[Ari]:
    """Connected to `server`; back after a cut without delay."""
    async with connected(server) as one:
        yield one


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


async def test_what_went_down_with_asterisk_has_ended_when_the_stream_did(server: AriServer, ari: Ari) -> None:
    ear = Ear()
    ari.listen("dead", ear)
    server.started = "2026-03-02T09:30:00.000+0000"
    before = datetime.now(UTC)
    await server.cut()
    made = await ear.next()
    assert (made["type"], made["cause"], made["synthetic"]) == ("ChannelDestroyed", 41, True)
    assert before - timedelta(milliseconds=1) <= datetime.fromisoformat(made["timestamp"]) <= datetime.now(UTC)


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
