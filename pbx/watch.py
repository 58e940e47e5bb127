"""What holds one leg to the word of the policies that admitted it: the end of its talk, and the warnings before."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from datetime import timedelta
from typing import TYPE_CHECKING
from typing import Any

from pbx.ari import AriError
from pbx.ari import Gone
from pbx.leg import Cause
from pbx.leg import Leg
from pbx.policy import Admitted
from pbx.policy import Announcement
from pbx.policy import LegRequest
from pbx.speech import SpeechError

if TYPE_CHECKING:
    from pbx.call import Call

log = logging.getLogger(__name__)

BACKSTOP_MS = 250  # by how much Asterisk's own end of the talk comes later than ours
REST_MS = 30_000  # between two warnings
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class _Limit:
    when: datetime
    clause: str
    warnings: Mapping[int, Announcement]


class Watch:
    """One admitted leg, as its policies see it (`pbx.policy.LiveLeg`). The call looks in after each of its events."""

    def __init__(self, call: Call, leg: Leg, admitted: Admitted) -> None:
        self._call = call
        self._leg = leg
        self._admitted = admitted
        self._told_answer = False
        self._told_end = False
        self._hung_up = False
        self._limits: dict[str, _Limit] = {}
        self._timers: list[asyncio.TimerHandle] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._backstop: _Limit | None = None  # what Asterisk was told last
        self._renewing = False
        self._warned_at: datetime | None = None

    # -- what a policy sees -------------------------------------------------------------------------

    @property
    def request(self) -> LegRequest:
        return self._admitted.request

    @property
    def answered_at(self) -> datetime:
        assert self._leg.answered_at is not None, "a policy hears of a leg when it is answered"
        return self._leg.answered_at

    @property
    def ended_at(self) -> datetime | None:
        return self._leg.ended_at

    def end_at(
        self, when: datetime | None, *, clause: str, warnings: Mapping[int, Announcement] | None = None
    ) -> None:
        if when is None:
            self._limits.pop(clause, None)
        else:
            self._limits[clause] = _Limit(when, clause, warnings or {})
        if not self._told_end:
            self._arm()

    def warn(self, words: Announcement) -> None:
        self._start(self._speak(words))

    def hang_up(self, cause: int, *, clause: str) -> None:
        if self._told_end or self._hung_up:
            return
        self._hung_up = True
        self._call.note("policy", verdict="ended", clause=clause, target=self._leg.target)
        self._start(self._call.hang_up([self._leg], cause))

    # -- what the call sees -------------------------------------------------------------------------

    def look(self) -> None:
        """Tells the policies what is new about the leg."""
        if self._leg.up and not self._told_answer:
            self._told_answer = True
            if self.request.max_ms is not None:
                self.end_at(self.answered_at + self.request.max_ms * _MILLISECOND, clause="max_ms")
            self._admitted.answered(self)
        if self._leg.gone and not self._told_end:
            self._told_end = True
            self._disarm()
            if self._told_answer:
                self._admitted.ended(self)
            else:
                self._admitted.dropped()

    async def close(self) -> None:
        """The call is over, whatever Asterisk has said about this leg; nothing is left running."""
        if not self._leg.gone:
            self._leg.never_was(Cause.UNKNOWN)
        self.look()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # -- the end of the talk --------------------------------------------------------------------------

    def _arm(self) -> None:
        """Sets the timers for the earliest limit. Asterisk is told before anything is spoken, see `_speak`."""
        self._disarm()
        limit = self._earliest()
        self._renew_backstop()
        if limit is None:
            return
        self._later(limit.when, self._end, limit)
        # The warnings of later limits too: an earlier one may yet be put off, as one that is renewed bit by bit.
        for each in self._limits.values():
            for before_ms, words in each.warnings.items():
                moment = each.when - before_ms * _MILLISECOND
                if self._call.clock.now() <= moment < limit.when:
                    self._later(moment, self._warn_before_end, words)

    def _disarm(self) -> None:
        while self._timers:
            self._timers.pop().cancel()

    def _later(self, when: datetime, act: Any, *args: object) -> None:
        loop = asyncio.get_running_loop()
        delay = (when - self._call.clock.now()).total_seconds()
        self._timers.append(loop.call_later(max(0.0, delay), act, *args))

    def _end(self, limit: _Limit) -> None:
        self.hang_up(Cause.NORMAL, clause=limit.clause)

    def _warn_before_end(self, words: Announcement) -> None:
        now = self._call.clock.now()
        # An end that moves brings its warnings along; nobody wants to hear them all.
        if self._warned_at is None or now - self._warned_at >= REST_MS * _MILLISECOND:
            self._warned_at = now
            self.warn(words)

    def _renew_backstop(self) -> None:
        if not self._renewing:
            self._renewing = True
            self._start(self._tell_asterisk())

    async def _tell_asterisk(self) -> None:
        """Asterisk's own timer on the leg outlives the engine; one request at a time, so that the last word counts."""
        try:
            while (limit := self._earliest()) != self._backstop and not self._leg.over:
                self._backstop = limit
                when = limit.when if limit else None
                left = 0 if when is None else max(1, (when - self._call.clock.now()) // _MILLISECOND + BACKSTOP_MS)
                await self._leg.end_within(left)
        except Gone:
            pass
        except AriError as error:
            self._call.note("backstop_failed", target=self._leg.target, message=str(error))
            log.warning("call %s: %s has no time limit in Asterisk: %s", self._call.id, self._leg.target, error)
        finally:
            self._renewing = False

    def _earliest(self) -> _Limit | None:
        """The limit that counts."""
        return min(self._limits.values(), key=lambda limit: limit.when, default=None)

    # -- what the caller hears ------------------------------------------------------------------------

    async def _speak(self, words: Announcement) -> None:
        """To the caller's own channel, so that only he hears it; a file of sound, as a tone would never end."""
        call = self._call
        if call.caller.over or self._leg.over:
            return
        try:
            sound = await call.sound(words.spoken(call.language))
            await call.caller.play([sound], call.language)
            call.note("warned", target=self._leg.target)
        except Gone:
            pass
        except (AriError, SpeechError) as error:
            call.note("warning_failed", target=self._leg.target, error=str(error))
            log.error("call %s: the caller could not be warned: %s", call.id, error)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"watch {self._leg.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
