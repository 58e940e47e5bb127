"""An Asterisk in memory, behind the seam of pbx.ari: the same answers, events and traps, in no time."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from typing import cast

from pbx.ari import Unreachable
from pbx.ari import refusal
from pbx.ari_api import Event
from pbx.clock import Clock
from pbx.simulator.loop import VirtualClock
from pbx.simulator.objects import Bridge
from pbx.simulator.objects import Channel
from pbx.simulator.objects import Playback
from pbx.simulator.objects import Recording
from pbx.simulator.operations import Request
from pbx.simulator.operations import perform
from pbx.simulator.people import Behaviour
from pbx.simulator.people import Handset
from pbx.simulator.people import Party
from pbx.simulator.people import answers
from pbx.simulator.sounds import silence

# Seconds, (shortest, longest): measured on a quiet machine, and a little more.
_TRAVEL = (0.0002, 0.002)  # of a request, and of its answer
_EVENT = (0.0001, 0.003)  # from an event to our ears; events of one stream do not overtake each other
_THREAD = (0.0001, 0.002)  # until a thread of Asterisk takes up its next work
_LATE = 0.02  # how much later an event is now and then, a machine being busy
_LATE_SHARE = 0.01

Lengths = Callable[[str, str], float | None]


def one_second(uri: str, language: str) -> float | None:
    """Every sound is there, and lasts a second."""
    return 1.0


class Asterisk:
    """A simulated Asterisk. It is a Wire itself; `wire()` gives more of them, for more engines.

    The same `seed` gives the same order of events, another one another order that the real Asterisk allows, too.
    `length_of(media URI, language)` gives seconds, or None for a file that is not there. Finished recordings are
    written to `recordings`, as silence of true length, if that is given.
    """

    def __init__(
        self, seed: int = 0, *, length_of: Lengths = one_second, recordings: Path | None = None, language: str = "en",
        clock: Clock | None = None,
    ) -> None:
        self.random = random.Random(seed)
        self.language = language
        self.channels: dict[str, Channel] = {}
        self.bridges: dict[str, Bridge] = {}
        self.playbacks: dict[str, Playback] = {}
        self.live: dict[str, Recording] = {}
        self.stored: dict[str, Recording] = {}
        self.handsets: dict[str, Handset] = {}
        self.reachable = True  # False: requests get no answer
        self._length_of = length_of
        self._recordings = recordings
        self._loop = asyncio.get_running_loop()
        self._clock = clock or VirtualClock(self._loop)
        self._streams: dict[str, _Stream] = {}
        self._filters: dict[str, frozenset[str]] = {}
        self._made = 0
        self._own = _Connection(self)
        self.started_at = self.timestamp()

    # -- the wire -----------------------------------------------------------------------------

    def wire(self) -> _Connection:
        """One more connection to this Asterisk."""
        return _Connection(self)

    async def connect(self, app: str, deliver: Callable[[Event], None]) -> None:
        await self._own.connect(app, deliver)

    async def lost(self) -> str:
        return await self._own.lost()

    async def request(
        self, operation: str, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None,
        timeout: float,
    ) -> Any:
        return await self._own.request(operation, method, path, query, body, timeout)

    async def close(self) -> None:
        await self._own.close()

    # -- the world ----------------------------------------------------------------------------

    def handset(self, name: str, behaviour: Behaviour = answers(), *, registered: bool = True) -> Handset:
        """Sets up an endpoint: a line's handset ("acme-101") or a trunk ("trunk-voipms")."""
        self.handsets[name] = Handset(self, name, behaviour, registered=registered)
        return self.handsets[name]

    def call(self, endpoint: str, dialled: str, *, caller: str = "", name: str = "", app: str = "") -> Party:
        """Somebody calls: from a line, or from outside through a trunk. Without an engine the dialplan falls back."""
        kind = "trunk" if endpoint.startswith("trunk-") else "line"
        app = app or next(reversed(self._streams), "")
        party = Party(self, endpoint, (), caller=True)
        args = [kind, endpoint, dialled]
        dialplan = {
            "context": f"from-{kind}", "exten": dialled, "priority": 2, "app_name": "Stasis",
            "app_data": ",".join([app, *args]),
        }
        self._made += 1
        channel = Channel(
            self, f"{int(self._clock.now().timestamp())}.{self._made}", endpoint, party, outbound=False, app=app,
            dialplan=dialplan, caller=(name, caller),
        )
        party.channel = channel
        self.channels[channel.id] = channel
        self.soon(channel.enter, args)
        return party

    def cut(self, reason: str = "the connection was cut") -> None:
        """Cuts all event streams. Some of what was under way still arrives; the rest is lost, as it really is."""
        for stream in self._streams.values():
            stream.cut(reason, keep=self.random.randint(0, len(stream.pending)))

    @property
    def idle(self) -> bool:
        """True when nothing lives here any more: no channel, bridge, playback or recording."""
        return not (self.channels or self.bridges or self.playbacks or self.live)

    # -- time ---------------------------------------------------------------------------------

    def time(self) -> float:
        return self._loop.time()

    def timestamp(self) -> str:
        return self._clock.now().isoformat(timespec="milliseconds").replace("+00:00", "+0000")

    def after(self, seconds: float, act: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        return self._loop.call_at(self._loop.time() + seconds, act, *args)

    def soon(self, act: Callable[..., object], *args: object) -> None:
        """When the thread concerned gets to it."""
        self.after(self._between(_THREAD), act, *args)

    def flip(self) -> bool:
        return self.random.random() < 0.5

    def length_of(self, uri: str, language: str) -> float | None:
        """Seconds that a media URI plays; None when there is no such thing."""
        scheme, _, name = uri.partition(":")
        if scheme == "recording":
            recording = self.stored.get(name)
            return recording.length if recording else None
        if scheme in ("digits", "number", "characters"):
            return 0.6 * len(name) if name and (scheme == "characters" or name.isdigit()) else None
        return self._length_of(uri, language)

    def _between(self, bounds: tuple[float, float]) -> float:
        shortest, longest = bounds
        return shortest + self.random.random() * (longest - shortest)

    def _until_heard(self) -> float:
        late = _LATE * self.random.random() if self.random.random() < _LATE_SHARE else 0.0
        return self._between(_EVENT) + late

    # -- called by its objects ----------------------------------------------------------------

    def listens(self, app: str) -> bool:
        stream = self._streams.get(app)
        return stream is not None and stream.open

    def publish(self, app: str, event: dict[str, Any]) -> None:
        if event["type"] in self._filters.get(app, ()):
            return
        stream = self._streams.get(app)
        if stream is not None and stream.open:
            event["application"] = app
            event["timestamp"] = self.timestamp()
            stream.send(event, self._until_heard())

    def channel_name(self, endpoint: str) -> str:
        self._made += 1
        return f"PJSIP/{endpoint.rpartition('@')[2]}-{self._made:08x}"

    def forget_channel(self, channel: Channel) -> None:
        del self.channels[channel.id]

    def forget_playback(self, playback: Playback) -> None:
        self.playbacks.pop(playback.id, None)

    def close_recording(self, recording: Recording) -> None:
        self.live.pop(recording.name, None)
        if recording.state == "done":
            self.stored[recording.name] = recording
            if self._recordings is not None:
                silence(self._recordings / f"{recording.name}.{recording.format}", recording.length)

    def delete_recording(self, recording: Recording) -> None:
        del self.stored[recording.name]
        if self._recordings is not None:
            (self._recordings / f"{recording.name}.{recording.format}").unlink()

    def application(self, app: str) -> dict[str, Any]:
        """What an application hears of; it is there as long as somebody listens to it or it has channels."""
        return {
            "name": app, "endpoint_ids": [], "device_names": [], "events_allowed": [], "events_disallowed": [],
            "channel_ids": [channel.id for channel in self.channels.values() if channel.app == app and channel.entered],
            "bridge_ids": [bridge.id for bridge in self.bridges.values() if bridge.watchers.get(app)],
        }

    def set_filter(self, app: str, disallowed: frozenset[str]) -> None:
        self._filters[app] = disallowed

    # -- called by its connections --------------------------------------------------------------

    async def open(self, app: str, deliver: Callable[[Event], None]) -> _Stream:
        await asyncio.sleep(self._between(_TRAVEL))
        if not self.reachable:
            raise Unreachable("events.event_websocket", 0, "connection refused")
        former = self._streams.pop(app, None)
        if former is not None and former.open:
            replaced = {"type": "ApplicationReplaced", "application": app, "timestamp": self.timestamp()}
            former.send(replaced, self._until_heard())
            former.open = False
        self._streams[app] = _Stream(self._loop, deliver)
        return self._streams[app]

    async def answer(
        self, operation: str, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None,
        timeout: float,
    ) -> Any:
        answered = self._loop.create_future()
        request = Request(operation, method, path, query, body or {}, answered, self._reply)
        self.after(self._between(_TRAVEL), self._perform, request, timeout)
        status, content = await answered
        if status >= 300:
            raise refusal(operation, status, content)
        if status == 0:
            raise Unreachable(operation, 0, content)
        return content

    def _perform(self, request: Request, timeout: float) -> None:
        if self.reachable:
            perform(self, request)
        if not request.answered:
            # It waits for a channel's thread: the client may lose patience, the command stays.
            patience = self.after(timeout, request.give_up, f"no answer within {timeout:g} s")
            request.future.add_done_callback(lambda _: patience.cancel())

    def _reply(self, future: asyncio.Future[tuple[int, Any]], status: int, content: Any) -> None:
        self.after(self._between(_TRAVEL), _resolve, future, (status, content))


class _Connection:
    """A Wire to a simulated Asterisk (see pbx.ari.Wire)."""

    def __init__(self, asterisk: Asterisk) -> None:
        self._asterisk = asterisk
        self._stream: _Stream | None = None

    async def connect(self, app: str, deliver: Callable[[Event], None]) -> None:
        if self._stream is not None:
            self._stream.cut("closed", keep=0)
        self._stream = await self._asterisk.open(app, deliver)

    async def lost(self) -> str:
        return await asyncio.shield(self._stream.lost) if self._stream else "never connected"

    async def request(
        self, operation: str, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None,
        timeout: float,
    ) -> Any:
        return await self._asterisk.answer(operation, method, path, query, body, timeout)

    async def close(self) -> None:
        if self._stream is not None:
            self._stream.cut("closed", keep=0)


class _Stream:
    """One event stream: what is sent arrives in order, each event some time after it was sent."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deliver: Callable[[Event], None]) -> None:
        self.open = True
        self.lost: asyncio.Future[str] = loop.create_future()
        self.pending: deque[tuple[float, dict[str, Any]]] = deque()
        self._loop = loop
        self._deliver = deliver
        self._timer: asyncio.TimerHandle | None = None
        self._reason = ""

    def send(self, event: dict[str, Any], delay: float) -> None:
        arrives = self._loop.time() + delay
        if self.pending:
            arrives = max(arrives, self.pending[-1][0])
        self.pending.append((arrives, event))
        self._arm()

    def cut(self, reason: str, *, keep: int) -> None:
        """Ends it after the next `keep` of the events that are under way."""
        if self._reason:
            return
        self.open = False
        self._reason = reason
        while len(self.pending) > keep:
            self.pending.pop()
        self._arm()

    def _arm(self) -> None:
        if self.pending:
            if self._timer is None:
                self._timer = self._loop.call_at(self.pending[0][0], self._arrive)
        elif self._reason:
            _resolve(self.lost, self._reason)

    def _arrive(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self.pending and self.pending[0][0] <= now:
            self._deliver(cast(Event, self.pending.popleft()[1]))
        self._arm()


def _resolve(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)
