"""A call and its legs: everything a flow can do with a caller, and all of its waiting.

One task drives a call. Whatever it waits for goes through `Call.until`, which ends with `Hangup` as soon as the
caller is gone, so no step has to think of it. Every outbound leg is made by `Call.place`, and by nothing else: it asks
the tenant's policies first, except in an emergency.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import Protocol

from pbx import metrics
from pbx.ari import Ari
from pbx.ari import AriError
from pbx.ari import Gone
from pbx.clock import Clock
from pbx.dial import Attempt
from pbx.dial import CallerId
from pbx.dial import Destination
from pbx.dial import Dialled
from pbx.dial import ms_until
from pbx.dial import presented
from pbx.leg import Cause
from pbx.leg import Leg
from pbx.leg import Outcome
from pbx.leg import Playback
from pbx.leg import Terminator
from pbx.policy import Gate
from pbx.policy import LegRequest
from pbx.policy import Refused
from pbx.store import CallRecord
from pbx.store import LegRecord
from pbx.store import Moment
from pbx.watch import Watch

log = logging.getLogger(__name__)

ANSWER_MS = 3_000
BRIDGE_MS = 3_000
FINAL_MS = 5_000  # how long the last events of hung-up channels are waited for
FIRST_CHECK_MS = 3_000  # a playback that says nothing is asked after, first soon, then now and then
NEXT_CHECK_MS = 20_000
SOUNDS_PER_REQUEST = 40  # the list travels in a header line of at most 4,096 bytes


class Hangup(Exception):
    """The caller is gone (or was sent away): the flow ends, quietly."""

    def __init__(self, cause: int) -> None:
        super().__init__(f"hung up, cause {cause}")
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Asked:
    """Digits that were typed, and what ended the typing.

    `reason`: "complete", "max", "terminator", "inter_digit", "first_digit" (nothing came) or "total".
    """

    digits: str
    reason: str


@dataclass(frozen=True, slots=True)
class Recorded:
    name: str
    duration_ms: int


class Speaker(Protocol):
    async def sound(self, text: str, language: str) -> str:
        """Gives the media URI of a file in which the text is spoken."""


class Call:
    """A caller's channel, the legs made for it, and the record of it all.

    `record` is filled as the call goes on; `release()` completes it. Times in parameters are milliseconds.
    `line` is the number of the line that calls, "" for a call from outside: its legs go out on behalf of that line.
    `emergency` is the emergency number that was called, if one was: its legs pass without asking a policy.
    """

    def __init__(
        self, ari: Ari, channel_id: str, record: CallRecord, *, app: str, clock: Clock, speaker: Speaker, language: str,
        gate: Gate = Gate(),
    ) -> None:
        self.id = record.id
        self.record = record
        self.language = language
        self.clock = clock
        self.caller = Leg(ari, channel_id, now=clock.now, changed=self._wake)
        self.last_dial: Dialled | None = None
        self.line = self.emergency = ""
        self._ari = ari
        self._app = app
        self._speaker = speaker
        self._gate = gate
        self.result = ""  # set by a step that served the caller otherwise: "voicemail"
        self._legs: list[Leg] = []
        self._watches: list[Watch] = []
        self._bridges: list[str] = []
        self._bridges_made = 0
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def tenant(self) -> str:
        return self.record.tenant

    @property
    def direction(self) -> str:
        return self.record.direction

    @property
    def dialled(self) -> str:
        return self.record.dialled

    @property
    def caller_number(self) -> str:
        return self.record.caller_number

    @property
    def caller_name(self) -> str:
        return self.record.caller_name

    @property
    def channels(self) -> list[str]:
        """The ids of the caller's channel and of every leg made so far."""
        return [self.caller.id, *(leg.id for leg in self._legs)]

    @property
    def bridges(self) -> list[str]:
        return list(self._bridges)

    def note(self, kind: str, **detail: Any) -> None:
        """Adds a line to the call's timeline."""
        now = self.clock.now()
        offset = int((now - self.record.started_at).total_seconds() * 1000)
        self.record.timeline.append(Moment(at=now, offset_ms=offset, kind=kind, detail=detail))

    # -- waiting ------------------------------------------------------------------------------

    async def until(self, ready: Callable[[], bool], ms: int | None = None, *, caller_needed: bool = True) -> bool:
        """Waits until `ready()` holds; it is looked at after every event of the call.

        Gives False when `ms` pass first. Raises Hangup when the caller is gone, unless `caller_needed` is False.
        """
        loop = asyncio.get_running_loop()
        deadline = None if ms is None else loop.time() + ms / 1000
        while True:
            if caller_needed and self.caller.over:
                raise Hangup(self.caller.cause)
            if ready():
                return True
            if deadline is not None and loop.time() >= deadline:
                return False
            await self._event(deadline)

    async def _event(self, deadline: float | None) -> None:
        """Sleeps until the next event of any leg, or the deadline (loop time)."""
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        timer = None if deadline is None else loop.call_at(deadline, _resolve, woken)
        self._waiters.add(woken)
        try:
            await woken
        finally:
            self._waiters.discard(woken)
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        for watch in self._watches:
            watch.look()
        for waiter in self._waiters:
            _resolve(waiter)

    async def tell_caller(self, command: Awaitable[object]) -> None:
        """Sends a command for the caller's channel; a channel that is gone is a hang-up, not an error."""
        try:
            await command
        except Gone:
            raise await self._gone() from None

    async def _gone(self) -> Hangup:
        """The hang-up behind a channel that was not there: its last event, which says why, is about to come."""
        await self.until(lambda: self.caller.over, FINAL_MS, caller_needed=False)
        return Hangup(self.caller.cause)

    async def wait(self, ms: int) -> None:
        """Does nothing for a while; the caller hears what was there before."""
        await self.until(lambda: False, ms)

    # -- the caller -----------------------------------------------------------------------------

    async def answer(self) -> None:
        """Takes the call, once; later calls do nothing."""
        if not self.caller.up:
            await self.tell_caller(self.caller.answer())
            await self.until(lambda: self.caller.up, ANSWER_MS)
            self.note("answered")

    async def ring(self) -> None:
        """Lets the caller hear ringing: from his own handset before the answer, from us after it."""
        await self.tell_caller(self.caller.ring())

    async def play(self, sounds: Sequence[str]) -> None:
        """Plays media URIs one after another to their end; before the answer as early media."""
        for start in range(0, len(sounds), SOUNDS_PER_REQUEST):
            playback = await self._start(sounds[start:start + SOUNDS_PER_REQUEST])
            await self._finish(playback)

    async def say(self, text: str, language: str | None = None) -> None:
        """Speaks a text to the caller."""
        await self.play([await self.sound(text, language)])

    async def sound(self, text: str, language: str | None = None) -> str:
        """Gives the media URI of a spoken text, in the call's language unless another is named."""
        return await self._speaker.sound(text, language or self.language)

    async def _start(self, sounds: Sequence[str]) -> Playback:
        # A caller who is known to be leaving is not played to, though Asterisk may still accept it.
        await self.until(lambda: True)
        try:
            return await self.caller.play(sounds, self.language)
        except Gone:
            raise await self._gone() from None

    async def _finish(self, playback: Playback, ready: Callable[[], bool] = lambda: False) -> None:
        """Waits for the end of a playback, or for `ready()`."""
        patience = FIRST_CHECK_MS
        while not await self.until(lambda: playback.finished or ready(), patience):
            # Asterisk skips some unplayable media without any event: ask, do not wait for ever.
            if not await self.caller.lives(playback):
                break
            patience = NEXT_CHECK_MS
        if playback.failed:
            self.note("sound_failed", playback=playback.id)
            log.warning("call %s: Asterisk could not play a sound (%s)", self.id, playback.id)

    async def ask(
        self,
        sounds: Sequence[str] = (),
        *,
        max_digits: int = 1,
        first_ms: int = 5_000,
        between_ms: int = 2_500,
        total_ms: int = 60_000,
        terminator: str = "#",
        complete: Callable[[str], bool] | None = None,
    ) -> Asked:
        """Collects digits, over a prompt that the first of them cuts short.

        What was typed before counts at once, so a caller who knows the menu need not hear it. `first_ms` runs from
        the end of the prompt, `between_ms` from each digit, `total_ms` from the first chance to type.
        `complete(digits)` true ends the typing; the terminator ends it too and is not given.
        """
        typed = self.caller.digits
        if sounds and not typed:
            await self._prompt(sounds)
        end = asyncio.get_running_loop().time() + total_ms / 1000
        digits = ""
        while True:
            patience = between_ms if digits else first_ms
            left = ms_until(end)
            if not await self.until(lambda: bool(typed), min(patience, left)):
                late = "total" if left <= patience else ("inter_digit" if digits else "first_digit")
                return Asked(digits, late)
            digit = typed.popleft()
            if digit == terminator and not (complete and complete(digits + digit)):
                return Asked(digits, "terminator")
            digits += digit
            if complete and complete(digits):
                return Asked(digits, "complete")
            if len(digits) >= max_digits:
                return Asked(digits, "max")

    async def _prompt(self, sounds: Sequence[str]) -> None:
        typed = self.caller.digits
        for start in range(0, len(sounds), SOUNDS_PER_REQUEST):
            playback = await self._start(sounds[start:start + SOUNDS_PER_REQUEST])
            await self._finish(playback, lambda: bool(typed))
            if typed:
                # Stopped and seen to be over: a channel that still plays holds up the next command (asterisk.md).
                if not playback.finished:
                    await self.caller.stop(playback)
                    await self._finish(playback)
                return

    async def capture(
        self, name: str, *, max_ms: int, silence_ms: int = 0, terminator: Terminator = "#", beep: bool = True
    ) -> Recorded | None:
        """Records what the caller says, until he stops (terminator, silence, hang-up) or `max_ms` pass.

        Waits for the closed file even when the caller hangs up, and gives it: the next wait ends the flow.
        None when Asterisk could not record.
        """
        try:
            recording = await self.caller.record(
                name, max_ms=max_ms, silence_ms=silence_ms, terminator=terminator, beep=beep
            )
        except Gone:
            raise await self._gone() from None
        closed = await self.until(lambda: recording.finished, max_ms + FINAL_MS, caller_needed=False)
        # The key that ended the recording reaches us as a digit as well; it is no answer to the next question.
        if self.caller.digits and self.caller.digits[-1] == terminator:
            self.caller.digits.pop()
        if not closed or recording.failed:
            self.note("recording_failed", recording=name)
            return None
        self.note("recorded", recording=name, duration_ms=recording.duration_ms)
        return Recorded(name, recording.duration_ms)

    async def discard(self, recording: str) -> None:
        """Deletes a recording that nobody needs, whether the caller is still there or not."""
        try:
            await self._ari.recordings.delete_stored(recording)
        except Gone:
            pass
        except AriError as error:
            log.warning("call %s: recording %s could not be deleted: %s", self.id, recording, error)

    async def hangup(self, cause: int = Cause.NORMAL) -> None:
        """Sends the caller away with this Q.850 cause; always raises Hangup."""
        self.note("hangup", cause=cause)
        await self.caller.hangup(cause)
        raise Hangup(cause)

    async def let_go(self) -> None:
        """Ends a call whose flow has ended; always raises Hangup.

        A caller who was not answered is told by his network what became of the last dialling: busy, no answer.
        """
        dialled = None if self.caller.up else self.last_dial
        await self.hangup((dialled.cause if dialled else 0) or Cause.NORMAL)

    async def reject(self, cause: int = Cause.REJECTED) -> None:
        """Refuses a call that was not answered, so that the caller's network says why; always raises Hangup."""
        self.note("rejected", cause=cause)
        if self.last_dial is None:  # else what became of the dialling says more
            self.result = self.result or "rejected"
        await self.caller.hangup(cause)
        raise Hangup(cause)

    async def send_on(self, context: str, extension: str) -> None:
        """Gives the caller back to Asterisk's dialplan, which serves him there without us; always raises Hangup."""
        self.note("sent_on", context=context, extension=extension)
        self.result = "sent_on"
        command = self._ari.channels.continue_in_dialplan(
            self.caller.id, context=context, extension=extension, priority=1
        )
        await self.tell_caller(command)
        raise await self._gone()

    # -- other legs ---------------------------------------------------------------------------

    async def dial(
        self, to: Sequence[Destination], *, ring_ms: int, caller: CallerId, sign_ms: int | None = None
    ) -> Dialled:
        """Rings destinations at once; the first to answer is joined with the caller, the others are let go.

        With ANSWERED the two are in one bridge: `talk` waits for the end of their conversation. Any other outcome is
        the most telling of all legs: somebody busy says more than a handset that is not there. `sign_ms` is how long
        nothing at all may come back before it is given up; the caller then hears ringing from the start.
        """
        self.last_dial = None
        self.note("dial", to=[destination.target for destination in to], ring_ms=ring_ms)
        self.last_dial = await Attempt(self, to, caller, ring_ms, sign_ms).run()
        outcome, leg, cause = self.last_dial.outcome, self.last_dial.leg, self.last_dial.cause
        self.note("dialled", outcome=outcome, target=leg.target if leg else "", cause=cause)
        return self.last_dial

    async def talk(self, leg: Leg) -> None:
        """Waits while caller and callee talk. Returns when the callee is gone; the caller then hears nothing."""
        self.note("talking", target=leg.target)
        await self.until(lambda: leg.over)
        self.record.ended_by = leg.ended_by
        self.note("callee_left", target=leg.target, cause=leg.cause)
        await self.part([leg])

    async def place(self, to: Destination, caller: CallerId) -> Leg:
        """Creates one outbound channel: the one door through which every leg goes out, if the policies allow it.

        One that they forbid, or that cannot be made, is over at once.
        """
        leg = self._new_leg(to)
        try:
            shown = await self._admit(leg, to, to.caller or caller)
            await self._ari.channels.create(
                endpoint=to.endpoint, app=self._app, channel_id=leg.id, originator=self.caller.id,
                variables={**presented(shown), **to.variables},
            )
        except Refused as refused:
            leg.refuse(refused)
        except AriError as error:
            # Asterisk answers so for a handset that is not registered, too.
            self.leg_failed(leg, error)
        return leg

    def _new_leg(self, to: Destination) -> Leg:
        number = len(self.record.legs) + 1
        leg = Leg(self._ari, f"{self.id}.l{number}", now=self.clock.now, changed=self._wake, target=to.target)
        self._legs.append(leg)
        self.record.legs.append(LegRecord(
            id=leg.id, number=number, target=to.target, endpoint=to.endpoint, name=to.name, created_at=self.clock.now(),
        ))
        return leg

    async def _admit(self, leg: Leg, to: Destination, caller: CallerId) -> CallerId:
        """Asks the policies; gives the caller that the leg is to present. Raises Refused."""
        if self.emergency:
            return caller
        request = LegRequest(
            leg.id, self.id, self.tenant, self.line, self.direction, to.target, to.outside, caller, self.clock.now()
        )
        try:
            admitted = await self._gate.admit(request, self.note)
        except asyncio.CancelledError:
            leg.never_was(Cause.UNKNOWN)  # nobody must wait for the end of a channel that was never asked for
            raise
        if admitted:
            self._watches.append(Watch(self, leg, admitted))
        return admitted.request.caller

    def leg_failed(self, leg: Leg, error: AriError) -> None:
        # With 500 Asterisk refuses to create a channel to where no handset is registered; it does not say so.
        nobody = error.operation == "channels.create" and error.status == 500
        self.note("leg_failed", target=leg.target, why="nobody is registered there" if nobody else str(error))
        if not leg.entered:
            leg.never_was(Cause.SUBSCRIBER_ABSENT)

    async def join(self, winner: Leg) -> None:
        """Puts caller and callee into one bridge; a callee who left again meanwhile is noticed by `talk`."""
        await self.answer()
        try:
            bridge_id = winner.bridge_id or await self.make_bridge()
            waiting = [leg for leg in (winner, self.caller) if leg.bridge_id != bridge_id]
            await self.enter(bridge_id, *waiting)
        except AriError as error:
            self.note("join_failed", target=winner.target, status=error.status, message=error.message)
            await winner.hangup(Cause.TEMPORARY_FAILURE)

    async def make_bridge(self) -> str:
        self._bridges_made += 1
        bridge_id = f"{self.id}.b{self._bridges_made}"
        self._bridges.append(bridge_id)
        await self._ari.bridges.create_with_id(bridge_id, type="mixing")
        return bridge_id

    async def enter(self, bridge_id: str, *legs: Leg) -> None:
        """Adds legs to a bridge. Asterisk's 204 promises nothing: only the event says that a channel is in."""
        if not legs:
            return
        await self._ari.bridges.add_channel(bridge_id, channel=[leg.id for leg in legs])
        await self.until(lambda: all(leg.bridge_id == bridge_id or leg.over for leg in legs), BRIDGE_MS)

    async def part(self, legs: Sequence[Leg]) -> None:
        """Clears away legs that are done, and their bridges, so that the caller can be served again."""
        await self.hang_up(legs, Cause.NORMAL)
        await self.until(lambda: all(leg.gone for leg in legs), FINAL_MS)
        await self._destroy_bridges()
        await self.until(lambda: self.caller.bridge_id is None, BRIDGE_MS)

    async def hang_up(self, legs: Sequence[Leg], cause: int) -> None:
        for result in await asyncio.gather(*(leg.hangup(cause) for leg in legs), return_exceptions=True):
            if isinstance(result, AriError):
                self.note("hangup_failed", message=str(result))
                log.warning("call %s: a channel could not be hung up: %s", self.id, result)
            elif isinstance(result, BaseException):
                raise result

    async def _destroy_bridges(self) -> None:
        while self._bridges:
            bridge_id = self._bridges.pop()
            try:
                await self._ari.bridges.destroy(bridge_id)
            except Gone:
                pass
            except AriError as error:
                log.warning("call %s: bridge %s could not be destroyed: %s", self.id, bridge_id, error)

    # -- the end ------------------------------------------------------------------------------

    async def release(self, cause: int = Cause.NORMAL) -> None:
        """Hangs up whatever is left, clears bridges and listeners, and completes the record. Never raises AriError."""
        legs = [self.caller, *self._legs]
        for _ in range(2):  # an Asterisk that stood still at the first word hears the second
            await self.hang_up(legs, cause)
            if await self.until(lambda: all(leg.gone for leg in legs), FINAL_MS, caller_needed=False):
                break
        else:
            left = [leg.id for leg in legs if not leg.gone]
            log.warning("call %s: Asterisk did not confirm the end of %s", self.id, ", ".join(left))
            self.note("unconfirmed", channels=left)
        await self._destroy_bridges()
        for watch in self._watches:
            await watch.close()
        for leg in legs:
            leg.forget()
        self._complete_record()

    def _complete_record(self) -> None:
        record = self.record
        for leg, row in zip(self._legs, record.legs, strict=True):
            row.ringing_at, row.answered_at = leg.ringing_at, leg.answered_at
            row.ended_at = leg.ended_at or self.clock.now()
            row.outcome, row.cause, row.ended_by = leg.outcome, leg.cause, leg.ended_by
            metrics.legs.labels(record.tenant, leg.outcome).inc()
        record.answered_at = self.caller.answered_at
        record.ended_at = self.caller.ended_at or self.clock.now()
        record.cause = self.caller.released_with if self.caller.released_with is not None else self.caller.cause
        record.ended_by = record.ended_by or self.caller.ended_by
        record.outcome = self._outcome()

    def _outcome(self) -> str:
        """What became of the caller's wish, in one word for statistics."""
        if any(leg.outcome is Outcome.ANSWERED for leg in self._legs):
            return Outcome.ANSWERED
        if self.result:
            return self.result
        if self.last_dial:
            return self.last_dial.outcome
        return {"caller": "abandoned", "asterisk": "failed"}.get(self.record.ended_by, "completed")


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
