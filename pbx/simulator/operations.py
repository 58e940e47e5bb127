"""The requests the simulated Asterisk understands, with the checks and the answers of the real one, in its order."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any
from urllib.parse import unquote

from pbx.simulator.objects import Bridge
from pbx.simulator.objects import Channel
from pbx.simulator.objects import Playback
from pbx.simulator.objects import Recording
from pbx.simulator.people import Party

if TYPE_CHECKING:
    from pbx.simulator.asterisk import Asterisk

log = logging.getLogger(__name__)

NOT_MODELLED = 501
_REASONS = {
    "normal": 16, "busy": 17, "congestion": 34, "no_answer": 19, "timeout": 102, "rejected": 21, "unallocated": 1,
    "normal_unspecified": 31, "number_incomplete": 28, "codec_mismatch": 58, "interworking": 127, "failure": 38,
    "answered_elsewhere": 26,
}
_FORMATS = ("wav", "wav16", "sln", "sln16", "ulaw", "alaw", "gsm", "g722")


class Refusal(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message


class Request:
    """One request and its answer, which may come now or when a thread of Asterisk has done its work."""

    def __init__(
        self, operation: str, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any],
        future: asyncio.Future[tuple[int, Any]],
        reply: Callable[[asyncio.Future[tuple[int, Any]], int, Any], None],
    ) -> None:
        self.operation = operation
        self.method = method
        self.path = path
        self.query = query
        self.body = body
        self.future = future
        self.answered = False
        self._reply = reply

    def answer(self, content: Any = None) -> None:
        self._settle(200 if content is not None else 204, content)

    def refuse(self, status: int, message: str) -> None:
        self._settle(status, message)

    def give_up(self, message: str) -> None:
        if not self.future.done():
            self.future.set_result((0, message))

    def _settle(self, status: int, content: Any) -> None:
        self.answered = True
        self._reply(self.future, status, content)

    def number(self, name: str) -> int:
        return int(self.query.get(name, 0))

    def listed(self, name: str) -> list[str]:
        return self.query[name].split(",")


Handler = Callable[..., None]
_HANDLERS: dict[str, tuple[str, re.Pattern[str], Handler]] = {}


def _operation(name: str, method: str, path: str) -> Callable[[Handler], Handler]:
    """Registers what serves an operation; `*` in its path are the arguments."""

    def register(handler: Handler) -> Handler:
        _HANDLERS[name] = method, re.compile(path.replace("*", "([^/]+)")), handler
        return handler

    return register


def perform(asterisk: Asterisk, request: Request) -> None:
    """Carries a request out, or refuses it as the real Asterisk does."""
    method, path, handler = _HANDLERS.get(request.operation, ("", None, _unknown))
    matched = path.fullmatch(request.path) if path and method == request.method else None
    try:
        if matched is None:
            _unknown(asterisk, request)
        else:
            handler(asterisk, request, *map(unquote, matched.groups()))
    except Refusal as refusal:
        request.refuse(refusal.status, refusal.message)


def _unknown(asterisk: Asterisk, request: Request) -> None:
    log.error("the simulator does not model %s: %s %s", request.operation, request.method, request.path)
    raise Refusal(NOT_MODELLED, f"the simulator does not model {request.method} {request.path}")


# -- what is there, and what may be done with it ------------------------------------------------


def _channel(asterisk: Asterisk, channel_id: str) -> Channel:
    try:
        return asterisk.channels[channel_id]
    except KeyError:
        raise Refusal(404, "Channel not found") from None


def _controlled(asterisk: Asterisk, channel_id: str) -> Channel:
    channel = _channel(asterisk, channel_id)
    if not channel.controlled:
        raise Refusal(409, "Channel not in Stasis application")
    return channel


def _spoken_to(asterisk: Asterisk, channel_id: str) -> Channel:
    """A channel in the application at whose end somebody is: not a leg that was not answered."""
    channel = _controlled(asterisk, channel_id)
    if channel.state in ("Down", "Ringing"):
        raise Refusal(412, "Channel in invalid state")
    return channel


def _bridge(asterisk: Asterisk, bridge_id: str) -> Bridge:
    try:
        return asterisk.bridges[bridge_id]
    except KeyError:
        raise Refusal(404, "Bridge not found") from None


def _playback(asterisk: Asterisk, playback_id: str) -> Playback:
    try:
        return asterisk.playbacks[playback_id]
    except KeyError:
        raise Refusal(404, "Playback not found") from None


def _recording(recordings: Mapping[str, Recording], name: str) -> Recording:
    try:
        return recordings[name]
    except KeyError:
        raise Refusal(404, "Recording not found") from None


# -- channels -----------------------------------------------------------------------------------


@_operation("channels.list", "GET", "/channels")
def _list_channels(asterisk: Asterisk, request: Request) -> None:
    request.answer([channel.model() for channel in asterisk.channels.values()])


@_operation("channels.get", "GET", "/channels/*")
def _get_channel(asterisk: Asterisk, request: Request, channel_id: str) -> None:
    request.answer(_channel(asterisk, channel_id).model())


@_operation("channels.create", "POST", "/channels/create")
def _create(asterisk: Asterisk, request: Request) -> None:
    query = request.query
    channel_id = query["channelId"]
    technology, _, address = query["endpoint"].partition("/")
    handset = asterisk.handsets.get(address.rpartition("@")[2]) if technology == "PJSIP" else None
    if channel_id in asterisk.channels:
        raise Refusal(409, "Channel with given unique ID already exists")
    if originator := asterisk.channels.get(query.get("originator", "")):
        originator.heard_out = True
    if handset is None or not handset.registered:
        # The real one says {"error": "Allocation failed"}, which has no message for the client to read.
        raise Refusal(500, "refused")
    party = Party(asterisk, address, handset.behaviour, caller=False)
    dialplan = {"context": "from-line", "exten": "s", "priority": 1, "app_name": "", "app_data": ""}
    channel = Channel(asterisk, channel_id, address, party, outbound=True, app=query["app"], dialplan=dialplan)
    party.channel = channel
    asterisk.channels[channel_id] = channel
    handset.called(party)
    for name, value in request.body.get("variables", {}).items():
        _set_variable(channel, name, value)
    asterisk.soon(channel.enter, [arg for arg in query.get("appArgs", "").split(",") if arg])
    request.answer(channel.model())


@_operation("channels.dial", "POST", "/channels/*/dial")
def _dial(asterisk: Asterisk, request: Request, channel_id: str) -> None:
    channel = _controlled(asterisk, channel_id)
    if channel.state != "Down":
        raise Refusal(409, "Channel is not in the 'Down' state")
    timeout = request.number("timeout")
    channel.do(lambda: channel.dial(timeout))
    request.answer()


@_operation("channels.hangup", "DELETE", "/channels/*")
def _hang_up(asterisk: Asterisk, request: Request, channel_id: str) -> None:
    query = request.query
    channel = _channel(asterisk, channel_id)
    if query.get("reason", "normal") not in _REASONS:
        raise Refusal(400, "Invalid Reason")
    cause = int(query["reason_code"]) if "reason_code" in query else _REASONS[query.get("reason", "normal")]
    channel.hang_up(cause, soft=True)
    request.answer()


@_operation("channels.answer", "POST", "/channels/*/answer")
def _answer(asterisk: Asterisk, request: Request, channel_id: str) -> None:
    channel = _spoken_to(asterisk, channel_id)

    def answer() -> None:
        if channel.answer():
            request.answer()
        else:
            request.refuse(500, "Failed to answer channel")

    channel.do(answer)


@_operation("channels.ring", "POST", "/channels/*/ring")
def _ring(asterisk: Asterisk, request: Request, channel_id: str) -> None:
    channel = _spoken_to(asterisk, channel_id)
    channel.do(channel.party.rings)
    request.answer()


@_operation("channels.ring_stop", "DELETE", "/channels/*/ring")
def _stop_ringing(asterisk: Asterisk, request: Request, channel_id: str) -> None:
    channel = _spoken_to(asterisk, channel_id)
    channel.do(channel.party.rings_no_more)
    request.answer()


@_operation("channels.progress", "POST", "/channels/*/progress")
def _progress(asterisk: Asterisk, request: Request, channel_id: str) -> None:
    _spoken_to(asterisk, channel_id)
    request.answer()


@_operation("channels.start_moh", "POST", "/channels/*/moh")
def _start_music(asterisk: Asterisk, request: Request, channel_id: str) -> None:
    channel = _spoken_to(asterisk, channel_id)
    channel.do(lambda: channel.party.music(on=True))
    request.answer()


@_operation("channels.stop_moh", "DELETE", "/channels/*/moh")
def _stop_music(asterisk: Asterisk, request: Request, channel_id: str) -> None:
    channel = _spoken_to(asterisk, channel_id)
    channel.do(lambda: channel.party.music(on=False))
    request.answer()


@_operation("channels.continue_in_dialplan", "POST", "/channels/*/continue")
def _continue(asterisk: Asterisk, request: Request, channel_id: str) -> None:
    channel, query = _controlled(asterisk, channel_id), request.query
    place = {"context": query["context"], "exten": query["extension"], "priority": int(query["priority"])}
    channel.do(lambda: channel.go_on(place))
    request.answer()


@_operation("channels.get_channel_var", "GET", "/channels/*/variable")
def _get_variable(asterisk: Asterisk, request: Request, channel_id: str) -> None:
    channel = _channel(asterisk, channel_id)
    if request.query["variable"] not in channel.variables:
        raise Refusal(404, "Provided variable was not found")
    request.answer({"value": channel.variables[request.query["variable"]]})


@_operation("channels.set_channel_var", "POST", "/channels/*/variable")
def _set_channel_variable(asterisk: Asterisk, request: Request, channel_id: str) -> None:
    channel = _controlled(asterisk, channel_id)
    query = request.query

    def set_variable() -> None:
        channel.set_variable(query["variable"], query.get("value", ""), report=query.get("report_events") == "true")
        request.answer()

    channel.do(set_variable)


def _set_variable(channel: Channel, name: str, value: str | Mapping[str, Any]) -> None:
    if isinstance(value, str):
        channel.set_variable(name, value)
    else:
        channel.set_variable(name, value["value"], report=bool(value.get("report_events")))


# -- playing and recording ----------------------------------------------------------------------


@_operation("channels.play_with_id", "POST", "/channels/*/play/*")
def _play_to_channel(asterisk: Asterisk, request: Request, channel_id: str, playback_id: str) -> None:
    channel = _spoken_to(asterisk, channel_id)
    _play(asterisk, request, channel, playback_id, request.query.get("lang") or channel.language)


@_operation("bridges.play_with_id", "POST", "/bridges/*/play/*")
def _play_to_bridge(asterisk: Asterisk, request: Request, bridge_id: str, playback_id: str) -> None:
    bridge = _bridge(asterisk, bridge_id)
    _play(asterisk, request, bridge, playback_id, request.query.get("lang") or asterisk.language)


def _play(asterisk: Asterisk, request: Request, target: Channel | Bridge, playback_id: str, language: str) -> None:
    playback = Playback(asterisk, playback_id, target, request.listed("media"), language)
    asterisk.playbacks[playback_id] = playback
    target.do(playback.start)
    request.answer(playback.model())


@_operation("playbacks.get", "GET", "/playbacks/*")
def _get_playback(asterisk: Asterisk, request: Request, playback_id: str) -> None:
    request.answer(_playback(asterisk, playback_id).model())


@_operation("playbacks.stop", "DELETE", "/playbacks/*")
def _stop_playback(asterisk: Asterisk, request: Request, playback_id: str) -> None:
    playback = _playback(asterisk, playback_id)
    if not playback.controllable:
        raise Refusal(500, "refused")
    asterisk.soon(playback.stop)
    request.answer()


@_operation("channels.record", "POST", "/channels/*/record")
def _record(asterisk: Asterisk, request: Request, channel_id: str) -> None:
    channel, query = _controlled(asterisk, channel_id), request.query
    name = query["name"]
    taken = name in asterisk.live or (name in asterisk.stored and query.get("ifExists", "fail") == "fail")
    if query["format"] not in _FORMATS:
        raise Refusal(422, "specified format is unknown on this system")
    if channel.bridge is not None:
        raise Refusal(409, "Cannot record channel while in bridge")
    if taken:
        raise Refusal(409, f"Recording '{name}' already exists and can not be overwritten")
    recording = Recording(
        channel, name, query["format"], max_s=request.number("maxDurationSeconds"),
        silence_s=request.number("maxSilenceSeconds"), terminate_on=query.get("terminateOn", "none"),
        beep=query.get("beep") == "true",
    )
    asterisk.live[name] = recording
    channel.do(recording.start)
    request.answer(recording.model())


@_operation("recordings.get_live", "GET", "/recordings/live/*")
def _get_live(asterisk: Asterisk, request: Request, name: str) -> None:
    request.answer(_recording(asterisk.live, name).model())


@_operation("recordings.stop", "POST", "/recordings/live/*/stop")
def _stop_recording(asterisk: Asterisk, request: Request, name: str) -> None:
    _recording(asterisk.live, name).stop()
    request.answer()


@_operation("recordings.cancel", "DELETE", "/recordings/live/*")
def _cancel_recording(asterisk: Asterisk, request: Request, name: str) -> None:
    _recording(asterisk.live, name).stop("canceled")
    request.answer()


@_operation("recordings.get_stored", "GET", "/recordings/stored/*")
def _get_stored(asterisk: Asterisk, request: Request, name: str) -> None:
    request.answer({"name": name, "format": _recording(asterisk.stored, name).format})


@_operation("recordings.delete_stored", "DELETE", "/recordings/stored/*")
def _delete_stored(asterisk: Asterisk, request: Request, name: str) -> None:
    asterisk.delete_recording(_recording(asterisk.stored, name))
    request.answer()


# -- bridges ------------------------------------------------------------------------------------


@_operation("bridges.list", "GET", "/bridges")
def _list_bridges(asterisk: Asterisk, request: Request) -> None:
    request.answer([bridge.model() for bridge in asterisk.bridges.values()])


@_operation("bridges.get", "GET", "/bridges/*")
def _get_bridge(asterisk: Asterisk, request: Request, bridge_id: str) -> None:
    request.answer(_bridge(asterisk, bridge_id).model())


@_operation("bridges.create_with_id", "POST", "/bridges/*")
def _create_bridge(asterisk: Asterisk, request: Request, bridge_id: str) -> None:
    if bridge_id in asterisk.bridges:
        raise Refusal(409, f"Bridge with id '{bridge_id}' already exists")
    kind = request.query.get("type", "mixing").partition(",")[0]
    bridge = Bridge(asterisk, bridge_id, kind, request.query.get("name", ""))
    asterisk.bridges[bridge_id] = bridge
    request.answer(bridge.model())


@_operation("bridges.destroy", "DELETE", "/bridges/*")
def _destroy_bridge(asterisk: Asterisk, request: Request, bridge_id: str) -> None:
    bridge = _bridge(asterisk, bridge_id)
    del asterisk.bridges[bridge_id]
    asterisk.soon(bridge.destroy)
    request.answer()


def _invited(asterisk: Asterisk, channel_id: str) -> Channel:
    if channel_id not in asterisk.channels:
        raise Refusal(400, "Channel not found")
    channel = asterisk.channels[channel_id]
    if not channel.controlled:
        raise Refusal(422, "Channel not in Stasis application")
    return channel


@_operation("bridges.add_channel", "POST", "/bridges/*/addChannel")
def _add_channels(asterisk: Asterisk, request: Request, bridge_id: str) -> None:
    bridge = _bridge(asterisk, bridge_id)
    channels = [_invited(asterisk, channel_id) for channel_id in request.listed("channel")]
    for channel in channels:
        if isinstance(channel.occupant, Recording):
            raise Refusal(409, f"Channel {channel.id} currently recording")

    def join(channel: Channel) -> None:
        # One that is hanging up may still get in for a moment, or not at all: the answer is the same.
        gone = bridge_id not in asterisk.bridges
        if not gone and (not channel.ending or asterisk.flip()):
            bridge.join(channel)

    _one_by_one(request, channels, join)


@_operation("bridges.remove_channel", "POST", "/bridges/*/removeChannel")
def _remove_channels(asterisk: Asterisk, request: Request, bridge_id: str) -> None:
    bridge = _bridge(asterisk, bridge_id)
    channels = [_invited(asterisk, channel_id) for channel_id in request.listed("channel")]
    if any(channel.bridge is not bridge for channel in channels):
        raise Refusal(422, "Channel not in this bridge")

    def leave(channel: Channel) -> None:
        if channel.bridge is bridge:
            bridge.leave(channel)

    _one_by_one(request, channels, leave)


def _one_by_one(request: Request, channels: list[Channel], act: Callable[[Channel], None]) -> None:
    """Has each channel's thread do something, the next when the one before is done; then answers."""
    if not channels:
        request.answer()
        return
    channel, *others = channels

    def on_its_thread() -> None:
        act(channel)
        _one_by_one(request, others, act)

    if channel.controlled:
        channel.do(on_its_thread)
    else:  # it left while the others were served
        _one_by_one(request, others, act)


# -- the rest -----------------------------------------------------------------------------------


@_operation("applications.get", "GET", "/applications/*")
def _get_application(asterisk: Asterisk, request: Request, app: str) -> None:
    request.answer(asterisk.application(app))


@_operation("applications.filter", "PUT", "/applications/*/eventFilter")
def _filter(asterisk: Asterisk, request: Request, app: str) -> None:
    asterisk.set_filter(app, frozenset(unwanted["type"] for unwanted in request.body.get("disallowed", ())))
    request.answer(asterisk.application(app))


@_operation("asterisk.ping", "GET", "/asterisk/ping")
def _ping(asterisk: Asterisk, request: Request) -> None:
    request.answer({"ping": "pong", "timestamp": asterisk.timestamp(), "asterisk_id": "00:00:00:00:00:00"})


@_operation("asterisk.get_info", "GET", "/asterisk/info")
def _get_info(asterisk: Asterisk, request: Request) -> None:
    request.answer({
        "system": {"version": "22.10.1", "entity_id": "00:00:00:00:00:00"},
        "status": {"startup_time": asterisk.started_at, "last_reload_time": asterisk.started_at},
    })
