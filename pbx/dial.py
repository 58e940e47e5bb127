"""One attempt to reach somebody: the legs made for it, what the caller hears meanwhile, and who answered first."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from enum import IntEnum
from operator import attrgetter
from typing import TYPE_CHECKING

from pbx.ari import AriError
from pbx.ari import Gone
from pbx.leg import Cause
from pbx.leg import Leg
from pbx.leg import Outcome

if TYPE_CHECKING:
    from pbx.call import Call
    from pbx.policy import Refused

ENTER_MS = 3_000  # a created channel enters the application at once, or something is wrong
BACKSTOP_MS = 5_000  # by how much Asterisk's own ring timer outlasts ours


@dataclass(frozen=True, slots=True)
class CallerId:
    """The caller number and name that a leg presents; an empty number is sent as withheld."""

    number: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Destination:
    """One leg that may be made.

    `endpoint` is Asterisk's ("PJSIP/acme-101", "PJSIP/+33199000199@trunk-x"); `target` says whom for the record.
    `caller` is presented to this one alone, instead of the caller of the whole attempt. `outside` says that it leaves
    the tenant. `variables` are set on its channel before it is dialled.
    """

    endpoint: str
    target: str
    name: str = ""
    caller: CallerId | None = None
    outside: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dialled:
    """How an attempt ended; `leg` is the one that answered, `cause` the Q.850 cause when none did.

    `refusal` is there when policies forbade every leg, so that nobody could be rung.
    """

    outcome: Outcome
    leg: Leg | None
    cause: int
    refusal: Refused | None = None


class _Heard(IntEnum):
    """What the caller hears of the legs being dialled, more telling things last."""

    NOTHING = 0
    RINGING = 1
    EARLY_MEDIA = 2


class Attempt:
    """Rings `to` all at once for a call, for at most `ring_ms`. Raises Hangup when the caller gives up.

    With `sign_ms` the caller hears ringing from the start, and all is given up when no leg gives a sign within it.
    """

    def __init__(
        self, call: Call, to: Sequence[Destination], caller: CallerId, ring_ms: int, sign_ms: int | None = None
    ) -> None:
        self._call = call
        self._to = to
        self._caller = caller
        self._ring_ms = ring_ms
        self._sign_ms = sign_ms
        self._legs: list[Leg] = []
        self._heard = _Heard.NOTHING

    async def run(self) -> Dialled:
        call = self._call
        await self._place()
        winner = await self._first_answer()
        losers = [leg for leg in self._legs if leg is not winner]
        await call.hang_up(losers, Cause.ANSWERED_ELSEWHERE if winner else Cause.NO_ANSWER)
        if winner is not None:
            await call.join(winner)
            return Dialled(Outcome.ANSWERED, winner, Cause.NORMAL)
        await call.part(self._legs)
        return self._most_telling()

    async def _place(self) -> None:
        """Makes the legs and starts them ringing, in step; one that cannot be made is `over` at once."""
        self._legs = await asyncio.gather(*(self._call.place(one, self._caller) for one in self._to))
        # Commands before its StasisStart fail, and would leave a leg down for ever.
        await self._call.until(lambda: all(leg.entered or leg.over for leg in self._legs), ENTER_MS)
        await asyncio.gather(*(self._start_ringing(leg) for leg in self._legs))

    async def _start_ringing(self, leg: Leg) -> None:
        if leg.over:
            return
        try:
            if not leg.entered:
                raise Gone("channels.create", 0, "the channel did not enter the application")
            if len(self._legs) == 1:
                # Early media is for a single leg: with several, one's announcement would drown another's.
                await self._call.enter(await self._call.make_bridge(), leg)
            # Asterisk's own timer is a backstop only: ours ends the ringing first, with the cause we want.
            await leg.dial(self._ring_ms + BACKSTOP_MS)
        except AriError as error:
            self._call.leg_failed(leg, error)
            await leg.hangup(Cause.TEMPORARY_FAILURE)

    async def _first_answer(self) -> Leg | None:
        """Waits for the first answer; the caller hears ringing, or the callee's network, meanwhile."""
        call, legs = self._call, self._legs
        end = asyncio.get_running_loop().time() + self._ring_ms / 1000

        def decided() -> bool:
            return any(leg.up for leg in legs) or all(leg.over for leg in legs)

        if self._sign_ms is not None and not await self._any_sign(self._sign_ms):
            return None
        while await call.until(lambda: decided() or self._audible > self._heard, ms_until(end)) and not decided():
            await self._let_caller_hear()
        if self._heard is _Heard.RINGING and call.caller.up:
            await call.tell_caller(call.caller.ring_stop())
        return min((leg for leg in legs if leg.up), key=attrgetter("answered_at"), default=None)

    async def _any_sign(self, ms: int) -> bool:
        """Whether the far end of any leg lives: it rings, sends sound, answers or refuses."""
        self._heard = _Heard.RINGING
        await self._call.ring()
        return await self._call.until(
            lambda: any(leg.ringing or leg.early_media or leg.up or leg.over for leg in self._legs), ms
        )

    async def _let_caller_hear(self) -> None:
        self._heard = self._audible
        call = self._call
        if self._heard is _Heard.RINGING:
            await call.ring()
        elif (bridge_id := self._legs[0].bridge_id) is not None:
            if not call.caller.up:
                await call.tell_caller(call.caller.progress())
            await call.tell_caller(call.enter(bridge_id, call.caller))

    @property
    def _audible(self) -> _Heard:
        if len(self._legs) == 1 and self._legs[0].early_media and self._legs[0].bridge_id is not None:
            return _Heard.EARLY_MEDIA
        return _Heard.RINGING if any(leg.ringing for leg in self._legs) else _Heard.NOTHING

    def _most_telling(self) -> Dialled:
        refusal = next((leg.refusal for leg in self._legs), None)
        if refusal and all(leg.refusal for leg in self._legs):
            return Dialled(Outcome.REFUSED, None, refusal.cause, refusal)
        for outcome in (Outcome.BUSY, Outcome.REFUSED, Outcome.NO_ANSWER):
            for leg in self._legs:
                if leg.outcome is outcome and not leg.refusal:
                    return Dialled(outcome, None, leg.cause)
        return Dialled(Outcome.UNREACHABLE, None, self._legs[0].cause if self._legs else Cause.SUBSCRIBER_ABSENT)


def presented(caller: CallerId) -> dict[str, str]:
    """The caller number as PJSIP wants it: From and P-Asserted-Identity come from the CONNECTED line of a new leg.

    Without it Asterisk sends anonymous@anonymous.invalid.
    """
    presentation = "allowed_passed_screen" if caller.number else "prohib"
    return {
        "CONNECTEDLINE(num,i)": caller.number,
        "CONNECTEDLINE(num-pres,i)": presentation,
        "CONNECTEDLINE(name,i)": caller.name,
        "CONNECTEDLINE(name-pres,i)": presentation,
    }


def ms_until(moment: float) -> int:
    """Milliseconds left until a moment of the loop's clock, never negative."""
    return max(0, int((moment - asyncio.get_running_loop().time()) * 1000))
