"""Asterisk as the engine sees it: typed operations, events for the object they belong to, reconnection.

Events and answers reach us on different connections and in any order: choose the id of what you make, `listen` to it,
then send the request.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import re
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from typing import Protocol
from typing import cast

from pbx.ari_api import OBJECTS
from pbx.ari_api import Bridge
from pbx.ari_api import Channel
from pbx.ari_api import Event as Event
from pbx.ari_api import Operations
from pbx.ari_api import StasisStart
from pbx.clock import Clock
from pbx.clock import SystemClock

log = logging.getLogger(__name__)

Handler = Callable[[Event], None]

# Nobody reads these, and there are dozens of them in every call. Never an `allowed` list: it would drop answers too.
UNHEARD: Mapping[str, Any] = {"disallowed": [{"type": "ChannelDialplan"}, {"type": "ChannelVarset"}]}

_FIRST_RETRY = 0.1  # seconds; doubled by each failure
_LAST_RETRY = 2.0  # seconds
_WATCHDOG = 1.0  # seconds


class AriError(Exception):
    """Asterisk refused a request, or could not be asked. `status` is its HTTP status, 0 when there was none."""

    def __init__(self, operation: str, status: int, message: str) -> None:
        super().__init__(operation, status, message)
        self.operation = operation
        self.status = status
        self.message = message

    def __str__(self) -> str:
        return f"{self.operation}: {self.message}" + (f" ({self.status})" if self.status else "")


class Gone(AriError):
    """The object is not there, or the channel has just left: an ordinary outcome, callers hang up when they like.

    That is any 404, and what Asterisk says in other words of a channel on its way out. A 412 is not: a command that
    came too early, to a leg that has not been answered, is a mistake of ours.
    """


class Unreachable(AriError):
    """There was no answer before the deadline, or no connection. Whether the request was carried out is not known."""


class Replaced(AriError):
    """Another connection has taken our application over: its calls are no longer ours, and no request is sent."""


# What Asterisk says, with 400, 409, 422 or 500 according to the operation, of a channel that is just leaving.
_LEAVING = {
    "Channel not found", "Channel not in Stasis application", "Channel not in this bridge", "Failed to answer channel",
}


def refusal(operation: str, status: int, message: str) -> AriError:
    """The error that stands for Asterisk's refusal of a request."""
    if status == 404 or message in _LEAVING:
        return Gone(operation, status, message)
    return AriError(operation, status, message)


@dataclass(frozen=True)
class Snapshot:
    """What is alive just after a connection was made.

    `channels` are those in our application, without those whose arrival is yet to be told. `bridges` are all that were
    made over ARI: Asterisk does not say by which application, their ids do.
    """

    channels: list[Channel]
    bridges: list[Bridge]


class Wire(Protocol):
    """One Asterisk: pbx.ari_http.HttpWire, or the simulator."""

    async def connect(self, app: str, deliver: Callable[[Event], None]) -> None:
        """Opens the event stream of `app`, in place of the one before. `deliver` is called in order, on the loop.

        Raises AriError.
        """

    async def lost(self) -> str:
        """Waits until the stream is cut and all it brought was delivered; says why it was cut."""

    async def request(
        self, operation: str, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None,
        timeout: float,
    ) -> Any:
        """The parsed answer, None when there is none. `path` is quoted and starts below /ari. Raises AriError."""

    async def close(self) -> None:
        """Ends the stream and everything else; a closed wire is not used again."""


class Ari(Operations):
    """Asterisk's side of one application, over any wire. Its operations are in `channels`, `bridges`, and so on."""

    def __init__(
        self, wire: Wire, app: str, *, timeout: float = 3.0, clock: Clock | None = None,
        random: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(self._request)
        self.app = app
        self.connected = asyncio.Event()
        self.replaced = asyncio.Event()
        # Called with the StasisStart of a channel nobody listens to. It must listen before it returns.
        self.on_arrival: Callable[[StasisStart], None] = _unattended
        # Called after each connect, before the events that came meanwhile: it may send requests, not wait for events.
        self.on_snapshot: Callable[[Snapshot], Awaitable[None] | None] = lambda snapshot: None
        self._wire = wire
        self._timeout = timeout
        self._clock = clock or SystemClock()
        self._random = random
        self._listeners: dict[str, Handler] = {}
        self._held: list[Event] | None = None  # events that wait until stock was taken
        self._lost_at = self._clock.now()
        self._started = ""  # when the Asterisk that we were connected to last started
        self._flying: set[asyncio.Future[None]] = set()  # requests without an answer yet

    def listen(self, object_id: str, handler: Handler) -> None:
        """Has every event about an object given to `handler`, in place of an earlier one. Call it before the request.

        `object_id` is the id of a channel, bridge or playback, the name of a recording, `deviceState:NAME` or
        `endpoint:TECH/NAME`. A playback's events also go to the channel or bridge it plays to. A handler must not wait.

        After a cut, an object that ended meanwhile gets its closing event, and a channel that lives a
        ChannelStateChange, both marked `synthetic`, with the time of the cut. The cause of a channel's end is then 0,
        since nobody knows it, or 41 (temporary failure) when Asterisk itself went down. Ids of our own end in `.b1`
        (bridge), `.p1` (playback) or `.r1` (recording): that tells which event is the right one. Any other id is a
        channel's.
        """
        self._listeners[object_id] = handler

    def forget(self, object_id: str) -> None:
        """Stops listening to an object, if anybody did."""
        self._listeners.pop(object_id, None)

    async def alive(self) -> bool:
        """True when Asterisk still finds its way to a channel within a second.

        `ping` and the list of channels answer from a cache even when the lock on the channels hangs; this needs it.
        """
        try:
            await self.channels.get_channel_var("nobody", variable="x", timeout=_WATCHDOG)
        except Gone:
            return True
        except AriError:
            return False
        return False

    async def run(self) -> None:
        """Keeps the event stream open until cancelled, then closes the wire.

        Raises Replaced when another connection takes the application over.
        """
        loop = asyncio.get_running_loop()
        failures = 0
        try:
            while True:
                began = loop.time()
                reason = await self._connection()
                if self.replaced.is_set():
                    raise _replaced("events.event_websocket", self.app)
                failures = 0 if loop.time() - began > _LAST_RETRY else failures + 1
                delay = self._random() * min(_LAST_RETRY, _FIRST_RETRY * 2 ** min(failures, 10))
                log.warning("%s: no events from Asterisk (%s), next try in %.1f s", self.app, reason, delay)
                await asyncio.sleep(delay)
        finally:
            await self._wire.close()

    # -- connection ---------------------------------------------------------------------------

    async def _connection(self) -> str:
        """One event stream from its opening to its end; gives the reason of the end."""
        self._held = []
        try:
            await self._wire.connect(self.app, self._receive)
            await self._take_stock()
            self.connected.set()
            log.info("%s: connected to Asterisk", self.app)
            return await self._end()
        except AriError as error:
            return str(error)
        finally:
            if self.connected.is_set():
                self._lost_at = self._clock.now()
            self.connected.clear()

    async def _end(self) -> str:
        lost = asyncio.ensure_future(self._wire.lost())
        replaced = asyncio.ensure_future(self.replaced.wait())
        try:
            await asyncio.wait((lost, replaced), return_when=asyncio.FIRST_COMPLETED)
            return lost.result() if lost.done() else "replaced"
        finally:
            lost.cancel()
            replaced.cancel()
            await asyncio.wait((lost, replaced))

    async def _take_stock(self) -> None:
        """Finds out what is alive, makes up for what was missed, then lets the events go that came meanwhile."""
        suspects = list(self._listeners)
        if self._flying:
            # What they make may exist a moment from now: until then "not there" does not mean "ended".
            await asyncio.wait(self._flying, timeout=self._timeout)
        await self.applications.filter(self.app, filter=UNHEARD)
        application, channels, bridges, info = await asyncio.gather(
            self.applications.get(self.app), self.channels.list(), self.bridges.list(),
            self.asterisk.get_info(only=["status"]),
        )
        started = info["status"]["startup_time"]
        crashed = started != self._started
        ours = set(application["channel_ids"])
        living = {one["id"]: one for one in (*channels, *bridges)}
        missed = await asyncio.gather(*(self._missed(suspect, living, ours, crashed) for suspect in suspects))
        self._started = started

        held = self._held or []
        heard_of = {object_id for event in held for object_id in _objects_of(event)}
        for suspect, event in zip(suspects, missed):
            if event is not None and suspect not in heard_of:
                self._dispatch(event)
        arriving = {object_id for event in held if event["type"] == "StasisStart" for object_id in _objects_of(event)}
        await self._tell_snapshot(Snapshot(
            [channel for channel in channels if channel["id"] in ours - arriving],
            [bridge for bridge in bridges if bridge["creator"] == "Stasis"],
        ))
        for event in held:
            self._dispatch(event)
        self._held = None

    async def _tell_snapshot(self, snapshot: Snapshot) -> None:
        try:
            told = self.on_snapshot(snapshot)
            if inspect.isawaitable(told):
                await told
        except Exception:
            log.exception("%s: what is alive after the connect could not be dealt with", self.app)

    async def _missed(
        self, object_id: str, living: Mapping[str, Any], ours: set[str], crashed: bool
    ) -> Event | None:
        """The event that makes up for those of an object that were missed: how it ended, or a channel's state."""
        made: dict[str, Any] | None
        match _kind(object_id):
            case "channel" if object_id not in living:
                cause, text = (41, "Temporary failure") if crashed else (0, "Unknown")
                made = {"type": "ChannelDestroyed", "cause": cause, "cause_txt": text, "channel": _lost(object_id)}
            case "channel" if object_id not in ours:
                made = {"type": "StasisEnd", "channel": living[object_id]}
            case "channel":
                made = {"type": "ChannelStateChange", "channel": living[object_id]}
            case "bridge" if object_id not in living:
                made = {"type": "BridgeDestroyed", "bridge": {"id": object_id, "channels": []}}
            case "playback":
                made = await self._playback_ending(object_id)
            case "recording":
                made = await self._recording_ending(object_id)
            case _:
                made = None
        if made is None:
            return None
        timestamp = self._lost_at.isoformat(timespec="milliseconds")
        return cast(Event, made | {"application": self.app, "timestamp": timestamp, "synthetic": True})

    async def _playback_ending(self, playback_id: str) -> dict[str, Any] | None:
        try:
            await self.playbacks.get(playback_id)
        except Gone:
            playback = {"id": playback_id, "media_uri": "", "target_uri": "", "state": "done"}
            return {"type": "PlaybackFinished", "playback": playback}
        return None

    async def _recording_ending(self, name: str) -> dict[str, Any] | None:
        recording = {"name": name, "format": "", "target_uri": ""}
        try:
            await self.recordings.get_live(name)
        except Gone:
            try:
                stored = await self.recordings.get_stored(name)
            except Gone:
                return {"type": "RecordingFailed", "recording": recording | {"state": "failed"}}
            return {"type": "RecordingFinished", "recording": recording | stored | {"state": "done"}}
        return None

    # -- events and requests ------------------------------------------------------------------

    def _receive(self, event: Event) -> None:
        if event["type"] == "ApplicationReplaced":
            self.replaced.set()
        elif self._held is not None:
            self._held.append(event)
        else:
            self._dispatch(event)

    def _dispatch(self, event: Event) -> None:
        """Gives an event to those who listen to an object in it, once each."""
        told: list[Handler] = []
        for object_id in _objects_of(event):
            handler = self._listeners.get(object_id)
            if handler is not None and handler not in told:
                told.append(handler)
                self._tell(handler, event)
        if not told and event["type"] == "StasisStart":
            self._tell(cast(Handler, self.on_arrival), event)

    def _tell(self, handler: Handler, event: Event) -> None:
        try:
            handler(event)
        except Exception:
            # One call's mistake must not cost the others their events.
            log.exception("%s: a handler failed on %s", self.app, event)

    async def _request(
        self, operation: str, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None,
        timeout: float | None,
    ) -> Any:
        if self.replaced.is_set():
            raise _replaced(operation, self.app)
        answered = asyncio.get_running_loop().create_future()
        self._flying.add(answered)
        try:
            return await self._wire.request(
                operation, method, path, query, body, self._timeout if timeout is None else timeout
            )
        finally:
            self._flying.discard(answered)
            answered.set_result(None)


def _unattended(event: StasisStart) -> None:
    log.warning("nobody takes channel %s", event["channel"]["id"])


def _replaced(operation: str, app: str) -> Replaced:
    return Replaced(operation, 0, f"another connection has taken over the application {app}")


# -- what an event is about ---------------------------------------------------------------------


def _playback_ids(playback: Any) -> tuple[str, ...]:
    return playback["id"], playback["target_uri"].partition(":")[2]  # "channel:ID" or "bridge:ID"


# How each model names itself, in the words of `Ari.listen`.
_IDS: Mapping[str, Callable[[Any], tuple[str, ...]]] = {
    "Channel": lambda channel: (channel["id"],),
    "Bridge": lambda bridge: (bridge["id"],),
    "Playback": _playback_ids,
    "LiveRecording": lambda recording: (recording["name"],),
    "DeviceState": lambda state: (f"deviceState:{state['name']}",),
    "Endpoint": lambda endpoint: (f"endpoint:{endpoint['technology']}/{endpoint['resource']}",),
    # Of the channels in a transfer, the one that asked for it.
    "ReferredBy": lambda referred: (referred["source_channel"]["id"],),
}
_SUBJECTS = {
    kind: [(field, _IDS[model]) for field, model in fields.items() if model in _IDS] for kind, fields in OBJECTS.items()
}


def _objects_of(event: Event) -> Iterable[str]:
    """The ids of the objects an event is about; none for an event this code does not know."""
    fields: Any = event
    try:
        return [
            object_id
            for field, ids in _SUBJECTS.get(fields["type"], ())
            if fields.get(field)
            for object_id in ids(fields[field])
        ]
    except (AttributeError, KeyError, TypeError):
        log.warning("an event without what makes it one: %s", event)
        return ()


_OWN_ID = re.compile(r"\.([bpr])\d+$")
_KINDS = {"b": "bridge", "p": "playback", "r": "recording"}


def _kind(object_id: str) -> str:
    if object_id.startswith(("deviceState:", "endpoint:")):
        return "state"
    found = _OWN_ID.search(object_id)
    return _KINDS[found[1]] if found else "channel"


def _lost(channel_id: str) -> Channel:
    """All that is known of a channel whose end was not heard."""
    nobody = {"name": "", "number": ""}
    dialplan = {"context": "", "exten": "", "priority": 0, "app_name": "", "app_data": ""}
    return cast(Channel, {
        "id": channel_id, "protocol_id": "", "name": "", "state": "Unknown", "caller": nobody, "connected": nobody,
        "accountcode": "", "dialplan": dialplan, "creationtime": "", "language": "",
    })
