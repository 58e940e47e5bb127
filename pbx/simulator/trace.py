"""What happened between the engine and its Asterisk, in a form that two runs of the same story share."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import cast

from pbx.ari import AriError
from pbx.ari import Wire
from pbx.ari_api import Event

# Per object, what was asked of it and each kind of thing that was told of it: lists that are free against each other.
Trace = dict[str, list[str]]

# Asterisk says these when it likes, or more often than once.
_NOISE = {"ChannelVarset", "ChannelConnectedLine", "ChannelDialplan", "ChannelCallerId", "BridgeDestroyed"}
# What is asked of something that may just be ending by itself: in time or too late is a matter of microseconds.
_RACING = {"channels.hangup", "bridges.destroy", "playbacks.stop", "playbacks.get", "recordings.stop"}
_TELLING = ("media", "type", "reason_code", "format", "terminateOn", "maxDurationSeconds", "lang")
_HOUSEKEEPING = ("applications.", "asterisk.")
_LISTS = ("channels.list", "bridges.list", "channels.get_channel_var")


class Tap:
    """A Wire that notes what passes through it. Objects get names by their first appearance: caller, leg1, bridge1."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._names: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._notes: dict[str, list[_Note]] = {}
        self._ending: set[str] = set()

    @property
    def trace(self) -> Trace:
        return {
            stream: lines for stream, notes in sorted(self._notes.items())
            if (lines := [str(note) for note in notes if not note.moot])
        }

    async def connect(self, app: str, deliver: Callable[[Event], None]) -> None:
        def tapped(event: Event) -> None:
            self._note_event(cast(dict[str, Any], event))
            deliver(event)

        await self._wire.connect(app, tapped)

    async def lost(self) -> str:
        return await self._wire.lost()

    async def close(self) -> None:
        await self._wire.close()

    async def request(
        self, operation: str, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None,
        timeout: float,
    ) -> Any:
        note = self._note_request(operation, path, query)
        try:
            return await self._wire.request(operation, method, path, query, body, timeout)
        except AriError as error:
            if operation in _RACING:
                note.moot = True
            else:
                note.result = f" -> {error.status}"
            raise

    def _note_request(self, operation: str, path: str, query: Mapping[str, str]) -> _Note:
        if operation.startswith(_HOUSEKEEPING) or operation in _LISTS:
            return _Note(operation)
        kind, object_id, *_ = path.strip("/").split("/")
        if operation == "channels.create":
            object_id = query["channelId"]
        elif kind == "recordings":
            object_id = path.split("/")[3]
        name = self._name(object_id, {"channels": "leg", "bridges": "bridge", "playbacks": "playback"}.get(kind, kind))
        words = [operation, *(f"{key}={query[key]}" for key in _TELLING if key in query)]
        if operation == "channels.record":
            words = [operation, self._name(query["name"], "recording"), *words[1:]]
        if "channel" in query:
            words += [self._name(one, "leg") for one in query["channel"].split(",")]
        if "/play/" in path:
            words.append(self._name(path.rpartition("/")[2], "playback"))
        note = _Note(" ".join(words))
        note.moot = object_id in self._ending
        self._notes.setdefault(f"{name} asked", []).append(note)
        return note

    def _note_event(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind in _NOISE:
            return
        if "playback" in event:
            playback = event["playback"]
            said = f"{kind} {playback['media_uri']} {playback['state']}"
            self._note(self._name(playback["id"], "playback"), "plays", said)
        elif "recording" in event:
            recording = event["recording"]
            self._note(self._name(recording["name"], "recording"), "records", f"{kind} {recording['state']}")
        elif kind == "Dial":
            self._note(self._name(event["peer"]["id"], "leg"), "dials", f"Dial {event['dialstatus']}".strip())
        elif "channel" in event:
            self._note_channel(kind, event)

    def _note_channel(self, kind: str, event: dict[str, Any]) -> None:
        channel = event["channel"]
        known = channel["id"] in self._names
        name = self._name(channel["id"], "leg" if known or kind != "StasisStart" else "caller")
        if kind == "ChannelHangupRequest":
            if channel["id"] in self._ending:
                return  # once more, from a second hang-up or from the dialplan that the channel went back to
            self._ending.add(channel["id"])
            self._note(name, "lives", kind + (" soft" if event.get("soft") else ""))
        elif kind in ("ChannelEnteredBridge", "ChannelLeftBridge"):
            self._note(name, "meets", f"{kind} {self._name(event['bridge']['id'], 'bridge')}")
        elif kind == "ChannelDtmfReceived":
            self._note(name, "types", event["digit"])
        elif kind == "ChannelDestroyed":
            self._note(name, "lives", f"{kind} {event['cause']}")
        else:
            self._note(name, "lives", f"{kind} {channel['state']}")

    def _note(self, name: str, stream: str, text: str) -> None:
        self._notes.setdefault(f"{name} {stream}", []).append(_Note(text))

    def _name(self, object_id: str, kind: str) -> str:
        if object_id not in self._names:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._names[object_id] = f"{kind}{self._counts[kind]}"
        return self._names[object_id]


class _Note:
    """One line; what came of a request is added when it is known. Moot is what was asked of something at its end."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.result = ""
        self.moot = False

    def __str__(self) -> str:
        return self.text + self.result
