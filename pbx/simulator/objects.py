"""What lives inside the simulated Asterisk: channels, bridges, playbacks and recordings, odd as the real ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any

from pbx.simulator.causes import TEXTS

if TYPE_CHECKING:
    from asyncio import TimerHandle

    from pbx.simulator.asterisk import Asterisk
    from pbx.simulator.people import Party

SOFT = 32  # what a hang-up request of our own, or of Asterisk's timer, carries instead of the cause that was asked for
BEEP_S = 0.35
KEY_ENDS_RECORDING_S = 0.1


class Thread:
    """A thread of Asterisk: commands run one after another, and none while it is occupied with sound."""

    def __init__(self, asterisk: Asterisk) -> None:
        self.asterisk = asterisk
        self.occupant: Playback | Recording | None = None
        self._commands: deque[Callable[[], None]] = deque()
        self._awake = False

    def do(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        self._wake()

    def occupied(self, by: Playback | Recording) -> None:
        self.occupant = by

    def free(self) -> None:
        self.occupant = None
        self._wake()

    def _wake(self) -> None:
        if self._commands and self.occupant is None and not self._awake:
            self._awake = True
            self.asterisk.soon(self._work)

    def _work(self) -> None:
        self._awake = False
        while self._commands and self.occupant is None:
            self._commands.popleft()()


class Channel(Thread):
    """A channel. `party` is who is at its other end.

    Its application hears of it from StasisStart to StasisEnd; to the very end (`heard_out`) only when the application
    made it, named it as originator of another, or subscribed to it.
    """

    def __init__(
        self, asterisk: Asterisk, channel_id: str, endpoint: str, party: Party, *, outbound: bool, app: str,
        dialplan: Mapping[str, Any], caller: tuple[str, str] = ("", ""),
    ) -> None:
        super().__init__(asterisk)
        self.id = channel_id
        self.endpoint = endpoint
        self.name = asterisk.channel_name(endpoint)
        self.state = "Down" if outbound else "Ring"
        self.caller = {"name": caller[0], "number": caller[1]}
        self.connected = {"name": "", "number": ""}
        self.dialplan = dialplan
        self.created = asterisk.timestamp()
        self.language = asterisk.language
        self.variables: dict[str, str] = {}
        self.reported: dict[str, str] = {}
        self.party = party
        self.outbound = outbound
        self.app = app
        self.entered = False  # its StasisStart was sent
        self.controlled = False  # it is in the application and takes commands
        self.heard_out = outbound
        self.ending = False
        self.cause = 0
        self.tech_cause = 0
        self.bridge: Bridge | None = None
        self.was_bridged = False
        self.dialled = False
        self.ring_timer: TimerHandle | None = None
        self._model: dict[str, Any] | None = None

    def model(self) -> dict[str, Any]:
        if self._model is None:
            self._model = {
                "id": self.id, "name": self.name, "state": self.state, "protocol_id": f"sip-{self.id}",
                "caller": self.caller, "connected": self.connected, "accountcode": "", "dialplan": self.dialplan,
                "creationtime": self.created, "language": self.language,
            }
            if self.reported:
                self._model["channelvars"] = dict(self.reported)
        return self._model

    def changed(self) -> None:
        self._model = None

    def tell(self, kind: str, **fields: Any) -> None:
        if self.controlled or self.heard_out:
            self.asterisk.publish(self.app, {"type": kind, **fields, "channel": self.model()})

    # -- into and out of the application ------------------------------------------------------

    def enter(self, args: list[str]) -> None:
        """Enters the application, as the thread does on its own some time after the channel was made."""
        if not self.asterisk.listens(self.app):
            self.party.fell_back = True
            self.hang_up(0, soft=False)
            self._destroy()
            return
        self.entered = self.controlled = True
        self.set_variable("STASISSTATUS", "")
        self.tell("StasisStart", args=args)
        if self.ending:
            self._leave()

    def hang_up(self, cause: int, tech_cause: int = 0, *, soft: bool) -> None:
        """Ends the channel. `soft`: Asterisk wants it; else the far end does.

        Another soft one, of a channel that is ending, is told again, and its cause takes the place of the first.
        """
        if self.ending and not soft:
            return
        self.cause = cause or 16
        said: dict[str, Any] = {"cause": SOFT, "soft": True} if soft else {"cause": cause} if tech_cause else {}
        if tech_cause and not soft:
            said["tech_cause"] = tech_cause
        self.tell("ChannelHangupRequest", **said)
        if not self.ending:
            self.ending = True
            self.tech_cause = tech_cause
            self._forget_ring_timer()
            if self.entered:
                self.asterisk.soon(self._leave)

    def _leave(self) -> None:
        """The thread notices the hang-up: what plays fails, what waits is done or dropped, then it leaves."""
        if self.occupant is not None:
            self.occupant.interrupted()
        while self._commands:
            self._commands.popleft()()
        if self.bridge is not None:
            self.bridge.leave(self)
        self.tell("StasisEnd")
        self.controlled = False
        self.set_variable("STASISSTATUS", "SUCCESS")
        self.asterisk.soon(self._destroy)

    def go_on(self, place: Mapping[str, Any]) -> None:
        """Leaves the application for a place in the dialplan; what is done there is soon over."""
        if self.ending:
            return
        self.dialplan = {**self.dialplan, **place}
        self.changed()
        self.party.fell_back = self.ending = True
        self._leave()

    def _destroy(self) -> None:
        tech = {"tech_cause": self.tech_cause} if self.tech_cause else {}
        self.tell("ChannelDestroyed", cause=self.cause, cause_txt=TEXTS.get(self.cause, "Unknown"), **tech)
        self.asterisk.forget_channel(self)
        self.party.ended(self.cause)

    # -- what happens to it -------------------------------------------------------------------

    def become(self, state: str) -> None:
        self.state = state
        self.changed()
        self.tell("ChannelStateChange")
        if state == "Up":
            self._forget_ring_timer()
            self.party.connected()
            if self.bridge is not None and self.outbound:
                self.bridge.answered()

    def answer(self) -> bool:
        """False when it is too late."""
        if self.ending:
            return False
        if self.state != "Up":
            self.become("Up")
        return True

    def dial(self, timeout_s: int) -> None:
        """Rings the far end. A second dial, though accepted, is the channel's end."""
        if self.dialled:
            self.hang_up(16, soft=False)
            return
        if self.ending:
            return
        self.dialled = True
        self.tell_dial("", self.party.address)
        if timeout_s > 0:
            self.ring_timer = self.asterisk.after(timeout_s, self._rang_out)
        self.party.invited()

    def tell_dial(self, status: str, dialstring: str = "") -> None:
        event = {"type": "Dial", "dialstatus": status, "forward": "", "dialstring": dialstring, "peer": self.model()}
        self.asterisk.publish(self.app, event)

    def progress(self, status: str, state: str | None = None) -> None:
        """The far end rings, sends early media or answers: two threads tell of it, in either order."""
        if self.ending and state != "Up":
            return
        first = self.asterisk.flip()
        if first:
            self.tell_dial(status)
        if state:
            self.become(state)
        if not first:
            self.tell_dial(status)

    def digit(self, digit: str, duration_ms: int) -> None:
        if self.controlled and not self.ending:
            self.tell("ChannelDtmfReceived", digit=digit, duration_ms=duration_ms)
            if isinstance(self.occupant, Recording):
                self.occupant.digit(digit)

    def set_variable(self, name: str, value: str, *, report: bool = False) -> None:
        if name.startswith("CONNECTEDLINE("):
            field = {"num,i": "number", "num": "number", "name,i": "name", "name": "name"}.get(name[14:-1])
            if field and value:
                self.connected = self.connected | {field: value}
                self.changed()
                self.tell("ChannelConnectedLine")
            return
        self.variables[name] = value
        if report:
            self.reported[name] = value
            self.changed()
        self.tell("ChannelVarset", variable=name, value=value)

    def _rang_out(self) -> None:
        self.hang_up(19, 480, soft=True)

    def _forget_ring_timer(self) -> None:
        if self.ring_timer is not None:
            self.ring_timer.cancel()
            self.ring_timer = None


class Bridge(Thread):
    """A bridge, and the hidden announcer that plays to everybody in it.

    The application hears of a bridge through the channels it has there. One that was taken out alive takes its
    subscription along, one that hung up leaves it behind: hence a BridgeDestroyed comes sometimes, and never of a
    bridge that was not used.
    """

    def __init__(self, asterisk: Asterisk, bridge_id: str, bridge_type: str, name: str) -> None:
        super().__init__(asterisk)
        self.id = bridge_id
        self.type = bridge_type
        self.name = name
        self.created = asterisk.timestamp()
        self.members: list[Channel] = []
        self.watchers: dict[str, int] = {}

    def model(self) -> dict[str, Any]:
        mixing = "simple_bridge" if len(self.members) < 3 else "softmix"
        return {
            "id": self.id, "technology": mixing if self.type == "mixing" else "holding_bridge",
            "bridge_type": self.type, "bridge_class": "stasis", "creator": "Stasis", "name": self.name,
            "channels": [channel.id for channel in self.members], "creationtime": self.created, "video_mode": "talker",
        }

    def tell(self, kind: str, **fields: Any) -> None:
        for app, count in self.watchers.items():
            if count > 0:
                self.asterisk.publish(app, {"type": kind, **fields})

    def join(self, channel: Channel) -> None:
        """Takes a channel in, out of whatever bridge it was in (even this one)."""
        if channel.bridge is not None:
            channel.bridge.leave(channel)
        channel.bridge = self
        channel.was_bridged = True
        self.members.append(channel)
        self.watchers[channel.app] = self.watchers.get(channel.app, 0) + 1
        channel.tell("ChannelEnteredBridge", bridge=self.model())
        self._company_changed(channel)

    def leave(self, channel: Channel) -> None:
        self.members.remove(channel)
        channel.bridge = None
        if not channel.ending:
            self.watchers[channel.app] -= 1
        channel.tell("ChannelLeftBridge", bridge=self.model())
        self._company_changed(channel)

    def answered(self) -> None:
        """A leg answered in here: the bridge passes that on, and a caller who was not answered yet is now."""
        for channel in self.members:
            if channel.state == "Ring":
                channel.answer()

    def destroy(self) -> None:
        if self.occupant is not None:
            self.occupant.interrupted()
        for channel in list(self.members):
            self.leave(channel)
        self.tell("BridgeDestroyed", bridge=self.model())

    def _company_changed(self, channel: Channel) -> None:
        for party in [channel.party, *(member.party for member in self.members)]:
            party.company_changed()


class Playback:
    """Sounds played one after another on a channel, or to everybody in a bridge."""

    def __init__(
        self, asterisk: Asterisk, playback_id: str, target: Channel | Bridge, media: list[str], language: str
    ) -> None:
        self.asterisk = asterisk
        self.id = playback_id
        self.target = target
        self.media = media
        self.language = language
        self.state = "queued"
        self.at = 0
        self._stopped = False
        self._timer: TimerHandle | None = None

    def model(self) -> dict[str, Any]:
        kind = "channel" if isinstance(self.target, Channel) else "bridge"
        model = {
            "id": self.id, "media_uri": self.media[self.at], "target_uri": f"{kind}:{self.target.id}",
            "language": self.language, "state": self.state,
        }
        if self.at + 1 < len(self.media):
            model["next_media_uri"] = self.media[self.at + 1]
        return model

    def start(self) -> None:
        """Its turn has come."""
        if self._stopped:
            self._finish("done")
        else:
            self._play()

    @property
    def controllable(self) -> bool:
        return self.media[self.at].partition(":")[0] in ("sound", "recording", "tone")

    def stop(self) -> None:
        """Cuts it short; one that waits for its turn ends when the turn comes, without ever having begun."""
        self._stopped = True
        if self._timer is not None:
            self._cut()
            self._finish("done")

    def interrupted(self) -> None:
        """The channel hangs up under it."""
        self._cut()
        self._finish("failed")

    def _play(self) -> None:
        uri = self.media[self.at]
        self._publish("PlaybackStarted", "playing")
        if isinstance(self.target, Channel) and self.target.ending:
            self._finish("failed")
            return
        length = self.asterisk.length_of(uri, self.language)
        if length is None and uri.startswith(("recording:", "number:", "digits:", "characters:")):
            self._skip()  # without a word
        elif length is None:
            self._next("failed")
        else:
            self.target.occupied(self)
            for party in self._audience():
                party.hears_begin(uri)
            self._timer = self.asterisk.after(length, self._ended)

    def _ended(self) -> None:
        self._timer = None
        self._tell_end(complete=True)
        self._next("done")

    def _next(self, state: str) -> None:
        if self.at + 1 == len(self.media):
            self._finish(state)
            return
        self._publish("PlaybackContinuing", "continuing")
        self.at += 1
        self._play()

    def _skip(self) -> None:
        if self.at + 1 == len(self.media):
            self.asterisk.forget_playback(self)
            self.target.free()
            return
        self.at += 1
        self._play()

    def _cut(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._tell_end(complete=False)

    def _finish(self, state: str) -> None:
        self._publish("PlaybackFinished", state)
        self.asterisk.forget_playback(self)
        self.target.free()

    def _publish(self, kind: str, state: str) -> None:
        self.state = state
        if isinstance(self.target, Bridge):
            self.target.tell(kind, playback=self.model())
        elif self.target.controlled:
            self.asterisk.publish(self.target.app, {"type": kind, "playback": self.model()})

    def _audience(self) -> list[Party]:
        if isinstance(self.target, Channel):
            return [self.target.party]
        return [member.party for member in self.target.members]

    def _tell_end(self, *, complete: bool) -> None:
        for party in self._audience():
            party.hears_end(self.media[self.at], complete=complete)


class Recording:
    """What the party of a channel says, written to a file of true length."""

    def __init__(
        self, channel: Channel, name: str, form: str, *, max_s: int, silence_s: int, terminate_on: str, beep: bool
    ) -> None:
        self.asterisk = channel.asterisk
        self.channel = channel
        self.name = name
        self.format = form
        self.state = "queued"
        self.max_s = max_s
        self.silence_s = silence_s
        self.terminate_on = terminate_on
        self.beep = beep
        self.began = 0.0
        self.length = 0.0
        self._timer: TimerHandle | None = None

    def model(self) -> dict[str, Any]:
        model: dict[str, Any] = {
            "name": self.name, "format": self.format, "state": self.state, "target_uri": f"channel:{self.channel.id}",
        }
        if self.state == "done":
            model["duration"] = int(self.length + 0.001)  # whole seconds, cut off
        return model

    def start(self) -> None:
        channel = self.channel
        if channel.outbound and not channel.was_bridged:
            # Up or not, a dialled leg sits in a hidden bridge until it has been in one of ours.
            self._finish("failed")
            return
        channel.answer()
        self.state = "recording"
        self._publish("RecordingStarted")
        self.began = self.asterisk.time()
        if channel.ending:
            self._finish("done")
            return
        channel.occupied(self)
        if self.beep:
            channel.party.hears_begin("beep")
            self._timer = self.asterisk.after(BEEP_S, self._beeped)
        else:
            self._listen()

    def digit(self, digit: str) -> None:
        if digit == self.terminate_on or self.terminate_on == "any":
            self._forget_timer()
            self._timer = self.asterisk.after(KEY_ENDS_RECORDING_S, self._finish, "done")

    def stop(self, state: str = "done") -> None:
        self._finish(state)

    def interrupted(self) -> None:
        self._finish("done")

    def _beeped(self) -> None:
        self.channel.party.hears_end("beep", complete=True)
        self.began = self.asterisk.time()
        self._listen()

    def _listen(self) -> None:
        """Arms the timer that ends it: the longest time, or the silence after the party's last word."""
        ends = []
        if self.max_s:
            ends.append(float(self.max_s))
        if self.silence_s and (speaks_s := self.channel.party.speaks_s) is not None:
            ends.append(speaks_s + self.silence_s)
        self._timer = self.asterisk.after(min(ends), self._finish, "done") if ends else None

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _finish(self, state: str) -> None:
        self._forget_timer()
        was_running = self.state == "recording"
        self.state = state
        self.length = self.asterisk.time() - self.began if was_running else 0.0
        self.asterisk.close_recording(self)
        self._publish("RecordingFailed" if state == "failed" else "RecordingFinished")
        if self.channel.occupant is self:
            self.channel.free()

    def _publish(self, kind: str) -> None:
        if self.channel.controlled:
            self.asterisk.publish(self.channel.app, {"type": kind, "recording": self.model()})
