"""One channel of a call: what Asterisk last said about it, and the commands it takes."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING
from typing import Literal

from pbx.ari import Gone
from pbx.ari import Unreachable

if TYPE_CHECKING:
    from pbx.ari import Ari
    from pbx.ari import Event
    from pbx.ari_api import Channel
    from pbx.ari_api import ChannelDestroyed
    from pbx.policy import Refused

log = logging.getLogger(__name__)


Terminator = Literal["none", "any", "*", "#"]


class Cause:
    """Q.850 causes that the engine gives or understands; Asterisk turns them into SIP answers."""

    UNKNOWN = 0
    UNALLOCATED = 1
    NORMAL = 16
    BUSY = 17
    NO_USER_RESPONSE = 18
    NO_ANSWER = 19
    SUBSCRIBER_ABSENT = 20
    REJECTED = 21
    ANSWERED_ELSEWHERE = 26
    OUT_OF_ORDER = 27
    CONGESTION = 34
    TEMPORARY_FAILURE = 41


class Outcome(StrEnum):
    """How an attempt to reach somebody ended."""

    ANSWERED = "answered"
    BUSY = "busy"
    NO_ANSWER = "no_answer"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    ANSWERED_ELSEWHERE = "answered_elsewhere"


_OUTCOME_OF_CAUSE = {
    Cause.BUSY: Outcome.BUSY,
    Cause.NO_USER_RESPONSE: Outcome.NO_ANSWER,
    Cause.NO_ANSWER: Outcome.NO_ANSWER,
    Cause.REJECTED: Outcome.REFUSED,
    Cause.ANSWERED_ELSEWHERE: Outcome.ANSWERED_ELSEWHERE,
}
_OUTCOME_OF_DIALSTATUS = {
    "BUSY": Outcome.BUSY,
    "NOANSWER": Outcome.NO_ANSWER,
    "CANCEL": Outcome.CANCELLED,
    "CONGESTION": Outcome.UNREACHABLE,
    "CHANUNAVAIL": Outcome.UNREACHABLE,
}


class Playback:
    """Sounds being played to one channel, from the request to Asterisk's word that they ended."""

    def __init__(self, playback_id: str) -> None:
        self.id = playback_id
        self.finished = False
        self.failed = False

    def on_event(self, event: Event) -> None:
        if event["type"] == "PlaybackFinished":
            self.finished = True
            self.failed = event["playback"].get("state") == "failed"


class Recording:
    """What a channel says, being written to a file by Asterisk."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.started_at: datetime | None = None
        self.finished = False
        self.failed = False
        self.duration_ms = 0

    def on_event(self, event: Event, now: datetime) -> None:
        if event["type"] == "RecordingStarted":
            self.started_at = now
        elif event["type"] == "RecordingFinished":
            self.finished = True
            # Asterisk counts whole seconds; between its two events there is a finer figure.
            seconds = event["recording"].get("duration", 0)
            elapsed = int((now - self.started_at).total_seconds() * 1000) if self.started_at else 0
            self.duration_ms = max(elapsed, seconds * 1000)
        elif event["type"] == "RecordingFailed":
            self.finished = self.failed = True


class Leg:
    """A channel of a call. Its state follows the events; its methods send one command each.

    `changed` is called after every event, so that whoever waits on this leg looks again.
    Commands raise `pbx.ari.Gone` when the channel is not there any more.
    """

    def __init__(
        self, ari: Ari, channel_id: str, *, now: Callable[[], datetime], changed: Callable[[], None], target: str = ""
    ) -> None:
        self.id = channel_id
        self.target = target
        self.entered = False  # its StasisStart was seen: only now does it take commands
        self.ringing = False
        self.early_media = False
        self.up = False
        self.hanging_up = False  # Asterisk was told to hang it up, by the far end or by us
        self.gone = False
        self.crashed = False  # it went down with Asterisk itself
        self.cause = Cause.UNKNOWN
        self.dialstatus = ""
        self.bridge_id: str | None = None
        self.digits: deque[str] = deque()  # type-ahead: kept until somebody asks for them
        self.ringing_at: datetime | None = None
        self.answered_at: datetime | None = None
        self.ended_at: datetime | None = None
        self.refusal: Refused | None = None  # the word of the policy that forbade it
        self.released_with: int | None = None  # the cause with which the engine hung up, if it did
        self._ari = ari
        self._now = now
        self._changed = changed
        self._sequence = 0
        self._asked_to_hang_up = False
        ari.listen(self.id, self.on_event)

    @property
    def over(self) -> bool:
        """True once nothing more can be done with it, though Asterisk may still be clearing it away."""
        return self.gone or self.hanging_up

    @property
    def ended_by(self) -> str:
        if self.crashed:
            return "asterisk"
        if self.released_with is not None:
            return "engine"
        return "callee" if self.target else "caller"

    @property
    def outcome(self) -> Outcome:
        """How the attempt ended, from the cause and Asterisk's dial status (a cause can be missing or 0)."""
        if self.refusal is not None:
            return Outcome.REFUSED
        if self.answered_at is not None and self.released_with != Cause.ANSWERED_ELSEWHERE:
            return Outcome.ANSWERED
        if self.released_with == Cause.ANSWERED_ELSEWHERE:
            return Outcome.ANSWERED_ELSEWHERE
        if self.released_with in (Cause.NO_ANSWER, Cause.NORMAL):
            return Outcome.NO_ANSWER if self.released_with == Cause.NO_ANSWER else Outcome.CANCELLED
        by_cause = _OUTCOME_OF_CAUSE.get(self.cause)
        return by_cause or _OUTCOME_OF_DIALSTATUS.get(self.dialstatus, Outcome.UNREACHABLE)

    # -- events -------------------------------------------------------------------------------

    def on_event(self, event: Event) -> None:
        """Follows one event of this channel; called by the dispatcher, never waits."""
        if event["type"] == "ChannelDtmfReceived":
            self.digits.append(event["digit"])
        elif event["type"] == "StasisStart":
            self._entered(event["channel"])
        elif event["type"] == "ChannelStateChange":
            self._state(event["channel"]["state"])
        elif event["type"] == "Dial":
            self._dial(event)
        elif event["type"] == "ChannelEnteredBridge":
            self.bridge_id = event["bridge"]["id"]
        elif event["type"] == "ChannelLeftBridge":
            if self.bridge_id == event["bridge"]["id"]:
                self.bridge_id = None
        elif event["type"] == "ChannelHangupRequest":
            self.hanging_up = True
            # A soft one is our own, or Asterisk's timer's: it says 32, and the true cause comes at the end.
            self.cause = self.cause or (Cause.UNKNOWN if event.get("soft") else event.get("cause", Cause.UNKNOWN))
        elif event["type"] == "StasisEnd":
            self._left()
        elif event["type"] == "ChannelDestroyed":
            self._destroyed(event.get("cause", 0))
            if event.get("synthetic"):
                self._end_unheard(event)
        else:
            return
        self._changed()

    def _entered(self, channel: Channel) -> None:
        self.entered = True
        self._state(channel["state"])

    def _state(self, state: str) -> None:
        if state == "Ringing":
            self._ring()
        elif state == "Up" and not self.up:
            self.up = True
            self.answered_at = self._now()

    def _ring(self) -> None:
        self.ringing = True
        self.ringing_at = self.ringing_at or self._now()

    def _dial(self, event: Event) -> None:
        # Both ends of a dial hear of it; only the dialled one learns something about itself.
        if event["type"] != "Dial" or event["peer"]["id"] != self.id:
            return
        self.dialstatus = event["dialstatus"]
        if self.dialstatus == "RINGING":
            self._ring()
        elif self.dialstatus == "PROGRESS":
            self.early_media = True
        elif self.dialstatus == "ANSWER":
            self._state("Up")

    def _left(self) -> None:
        # It left because it ended; or we sent the caller on, who is no concern of ours from then on.
        self.hanging_up = True
        if not self.target:
            # Of a channel that we did not make, this is the last we hear.
            self._destroyed(Cause.NORMAL)

    def _destroyed(self, cause: int) -> None:
        self.gone = True
        # The first cause is the true one: later ones only echo our own hang-up (and may be 0).
        self.cause = self.cause or cause
        self.ended_at = self._now()
        self._ari.forget(self.id)

    def _end_unheard(self, event: ChannelDestroyed) -> None:
        """It ended while there was no event stream, and is known to have lived until then."""
        self.ended_at = datetime.fromisoformat(event["timestamp"])
        # Only an Asterisk that went down is known as the cause of such an end.
        self.crashed = not self.hanging_up and event.get("cause", 0) != Cause.UNKNOWN

    # -- commands -----------------------------------------------------------------------------

    def next_id(self, letter: str) -> str:
        self._sequence += 1
        return f"{self.id}.{letter}{self._sequence}"

    async def answer(self) -> None:
        await self._ari.channels.answer(self.id)

    async def dial(self, timeout_ms: int) -> None:
        """Sends a created leg out; its answer, or how it failed, comes as events."""
        await self._ari.channels.dial(self.id, timeout_seconds=_seconds(timeout_ms))

    async def ring(self) -> None:
        await self._ari.channels.ring(self.id)

    async def ring_stop(self) -> None:
        await self._ari.channels.ring_stop(self.id)

    async def progress(self) -> None:
        await self._ari.channels.progress(self.id)

    async def play(self, sounds: Sequence[str], language: str) -> Playback:
        """Starts the sounds, one after another; the playback's `finished` tells when they ended."""
        playback = Playback(self.next_id("p"))

        def follow(event: Event) -> None:
            playback.on_event(event)
            if playback.finished:
                self._ari.forget(playback.id)
            self._changed()

        self._ari.listen(playback.id, follow)
        try:
            await self._ari.channels.play_with_id(self.id, playback.id, media=list(sounds), lang=language)
        except BaseException:
            self._ari.forget(playback.id)
            raise
        return playback

    async def stop(self, playback: Playback) -> None:
        """Ends a playback; one that just ended by itself is as good."""
        try:
            await self._ari.playbacks.stop(playback.id)
        except Gone:
            playback.finished = True
            self._ari.forget(playback.id)

    async def lives(self, playback: Playback) -> bool:
        """Asks Asterisk whether a playback still runs: a missing file can end one without an event."""
        try:
            await self._ari.playbacks.get(playback.id)
        except Unreachable:
            pass  # nothing is known; one that stands still goes on later
        except Gone:
            playback.finished = True
            self._ari.forget(playback.id)
        return not playback.finished

    async def record(
        self, name: str, *, max_ms: int, silence_ms: int, terminator: Terminator, beep: bool
    ) -> Recording:
        """Starts writing what this channel says to the recording `name` (wav, 8 kHz)."""
        recording = Recording(name)

        def follow(event: Event) -> None:
            recording.on_event(event, self._now())
            if recording.finished:
                self._ari.forget(name)
            self._changed()

        self._ari.listen(name, follow)
        try:
            await self._ari.channels.record(
                self.id, name=name, format="wav", max_duration_seconds=_seconds(max_ms),
                max_silence_seconds=_seconds(silence_ms), if_exists="fail", beep=beep, terminate_on=terminator,
            )
        except BaseException:
            self._ari.forget(name)
            raise
        return recording

    def never_was(self, cause: int) -> None:
        """Ends a leg whose channel could not be made, so that nobody waits for its events."""
        self._destroyed(cause)
        self._changed()

    def refuse(self, refusal: Refused) -> None:
        """Ends a leg that no channel was made for, because a policy forbade it."""
        self.refusal = refusal
        self.never_was(refusal.cause)

    async def end_within(self, ms: int) -> None:
        """Lets Asterisk itself end the channel when this time has passed, even without us; 0 takes that back."""
        await self._ari.channels.set_channel_var(self.id, variable="TIMEOUT(absolute)", value=f"{ms / 1000:.3f}")

    async def hangup(self, cause: int) -> None:
        """Asks Asterisk to hang up with this cause; does nothing if it is already gone, or was asked before."""
        # Of two requests that come in close order, the cause of the second is the one that the far end is told.
        if self.gone or self._asked_to_hang_up:
            return
        if not self.hanging_up and self.released_with is None:
            self.released_with = cause
        self._asked_to_hang_up = True
        try:
            await self._ari.channels.hangup(self.id, reason_code=str(cause))
        except Gone:
            pass
        except BaseException:
            self._asked_to_hang_up = False
            raise

    def forget(self) -> None:
        self._ari.forget(self.id)


def _seconds(ms: int) -> int:
    """Asterisk takes whole seconds here; half a second of patience must not become none."""
    return -(-ms // 1000)
