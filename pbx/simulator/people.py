"""The world outside the simulated Asterisk: handsets and trunks that behave like people, and people who call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Literal

from pbx.simulator.causes import cause_of
from pbx.simulator.causes import status_of

if TYPE_CHECKING:
    from pbx.simulator.asterisk import Asterisk
    from pbx.simulator.objects import Channel

BYE = 0  # stands among the SIP answers of a behaviour for a hang-up
CANCELLED = 487

# What a handset does when it is called: pairs of seconds (after the one before) and a SIP answer, or BYE.
Behaviour = tuple[tuple[float, int], ...]


def answers(after: float = 2.0, *, rings: float = 0.05, leaves: float | None = None) -> Behaviour:
    """Rings, is answered `after` seconds, and hangs up `leaves` seconds later (None: never by itself)."""
    bye = () if leaves is None else ((leaves, BYE),)
    return (rings, 180), (max(0.0, after - rings), 200), *bye


def announces(after: float = 0.1, *, then: int = 480, for_s: float = 5.0) -> Behaviour:
    """Sends early media ("the number you have dialled ...") and refuses, or answers (`then=200`), after `for_s`."""
    return (after, 183), (for_s, then)


def rings(after: float = 0.05) -> Behaviour:
    """Rings, and nobody comes."""
    return ((after, 180),)


def refuses(status: int = 603, after: float = 0.1) -> Behaviour:
    """Refuses with a SIP status: 486 busy, 603 declined, 404 unknown, 480 not available, 503 overloaded ..."""
    return ((after, status),)


def busy(after: float = 0.1) -> Behaviour:
    return refuses(486, after)


def silent() -> Behaviour:
    """Is registered, but nothing comes back: the network is gone."""
    return ()


@dataclass(slots=True)
class Heard:
    """Something that was played to a party: a media URI, "ringing", "beep" or "music". Loop times, in seconds."""

    what: str
    at: float
    until: float | None = None
    complete: bool = False


class Handset:
    """An endpoint: a line's handset, or a trunk. `calls` are the parties it became when it was called, in order."""

    def __init__(self, asterisk: Asterisk, name: str, behaviour: Behaviour, *, registered: bool) -> None:
        self.name = name
        self.behaviour = behaviour
        self.registered = registered
        self.calls: list[Party] = []
        self._asterisk = asterisk
        self._rung = asyncio.Event()

    async def rung(self, times: int = 1) -> Party:
        """Waits until it was called so many times; gives the last party."""
        while len(self.calls) < times:
            self._rung.clear()
            await self._rung.wait()
        return self.calls[times - 1]

    def called(self, party: Party) -> None:
        self.calls.append(party)
        self._rung.set()


class Party:
    """One person on one channel: what he does, and what he heard and from whom.

    `state` goes from "calling" (he calls) or "idle" (he is being called) over "ringing" to "up" and "over". `cause` is
    why it ended (Q.850), `status` the SIP answer he got or gave when the call was not answered, 0 when it was.
    """

    channel: Channel

    def __init__(self, asterisk: Asterisk, address: str, behaviour: Behaviour, *, caller: bool) -> None:
        self.address = address  # whom the channel was made for: "acme-101", "+33199000199@trunk-x"
        self.caller = caller
        self.state: Literal["calling", "idle", "ringing", "up", "over"] = "calling" if caller else "idle"
        self.heard: list[Heard] = []
        self.partners: list[Party] = []  # everybody he ever shared a bridge with
        self.answered_at: float | None = None
        self.ended_at: float | None = None
        self.cause = 0
        self.status = 0
        self.fell_back = False  # the engine was not there, and the dialplan went its own way
        self.speaks_s: float | None = None  # how long he speaks into a recording; None: without end
        self._asterisk = asterisk
        self._behaviour = behaviour
        self._timers: list[asyncio.TimerHandle] = []
        self._watchers: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    # -- what he does ---------------------------------------------------------------------------

    def press(self, digits: str, *, after: float = 0.0, gap: float = 0.2) -> None:
        """Types digits, the first of them `after` seconds from now, `gap` seconds apart."""
        for n, digit in enumerate(digits):
            self._later(after + n * gap, self._press, digit)

    def answer(self) -> None:
        """Takes the call that rings here."""
        # Asterisk may be hanging up already: the answer crosses its CANCEL.
        if self.state in ("idle", "ringing") and self.channel.controlled:
            self._talks()
            self.channel.do(lambda: self.channel.progress("ANSWER", "Up"))

    def refuse(self, status: int) -> None:
        """Refuses the call that rings here, with a SIP status."""
        if self.state in ("idle", "ringing") and not self.channel.ending:
            self.status = status
            self.channel.hang_up(cause_of(status), status, soft=False)

    def hang_up(self, *, after: float = 0.0) -> None:
        """Hangs up: BYE when answered, CANCEL when he calls and nobody answered yet."""
        if after:
            self._later(after, self._hang_up)
        else:
            self._hang_up()

    # -- what he waits for ------------------------------------------------------------------------

    async def until(self, seen: Callable[[], bool], timeout: float = 3600.0) -> None:
        """Waits until `seen()`, which is looked at whenever something happens to him. Raises TimeoutError."""
        if seen():
            return
        happened = asyncio.get_running_loop().create_future()
        watcher = (seen, happened)
        self._watchers.append(watcher)
        try:
            async with asyncio.timeout(timeout):
                await happened
        finally:
            self._watchers.remove(watcher)

    async def hears(self, what: str, times: int = 1) -> None:
        """Waits until he has begun to hear something so many times."""
        await self.until(lambda: self.sounds.count(what) >= times)

    async def answered(self) -> None:
        await self.until(lambda: self.state == "up")

    async def over(self) -> None:
        await self.until(lambda: self.state == "over")

    async def meets(self) -> Party:
        """Waits until somebody hears him and he hears somebody; gives the other one."""
        await self.until(lambda: bool(self.company()))
        return self.company()[0]

    # -- what he hears --------------------------------------------------------------------------

    @property
    def sounds(self) -> list[str]:
        """What was played to him, in order."""
        return [heard.what for heard in self.heard]

    def company(self) -> list[Party]:
        """Who hears him and is heard by him now."""
        bridge = self.channel.bridge
        if bridge is None or self.state != "up" or self.channel.occupant is not None:
            return []
        return [
            member.party for member in bridge.members
            if member.party is not self and member.party.state == "up" and member.occupant is None
        ]

    # -- called by the simulator ----------------------------------------------------------------

    def invited(self) -> None:
        """Asterisk's INVITE has come: what the behaviour says takes its course."""
        at = 0.0
        for delay, status in self._behaviour:
            at += delay
            self._later(at, self._react, status)

    def connected(self) -> None:
        if self.state != "up":
            self._talks()
        self.company_changed()

    def rings(self) -> None:
        self._begin("ringing")

    def rings_no_more(self) -> None:
        """A handset that got its 180 goes on ringing by itself; only ringing played by Asterisk can be stopped."""
        if self.state == "up":
            self._stop_hearing("ringing")

    def music(self, *, on: bool) -> None:
        if on:
            self._begin("music")
        else:
            self._stop_hearing("music")

    def hears_begin(self, what: str) -> None:
        self._begin(what)

    def hears_end(self, what: str, *, complete: bool) -> None:
        self._stop_hearing(what, complete=complete)
        self._happened()

    def company_changed(self) -> None:
        for other in self.company():
            if other not in self.partners:
                self.partners.append(other)
        self._happened()

    def ended(self, cause: int) -> None:
        if self.state != "up" and not self.status:
            self.status = status_of(cause) if self.caller else CANCELLED
        self.state = "over"
        self.cause = cause
        self.ended_at = self._asterisk.time()
        for heard in self.heard:
            heard.until = self.ended_at if heard.until is None else heard.until
        for timer in self._timers:
            timer.cancel()
        self._happened()

    def _talks(self) -> None:
        self.state = "up"
        self.answered_at = self._asterisk.time()
        self._stop_hearing("ringing")
        self._happened()

    def _react(self, status: int) -> None:
        if status == BYE:
            self._hang_up()
        elif status == 180 and self.state == "idle":
            self.state = "ringing"
            self.channel.do(lambda: self.channel.progress("RINGING", "Ringing"))
            self._happened()
        elif status == 183:
            self.channel.do(lambda: self.channel.progress("PROGRESS"))
        elif status == 200:
            self.answer()
        elif status >= 300:
            self.refuse(status)

    def _hang_up(self) -> None:
        # A thread of SIP's own tells of it: perhaps before the channel's thread has told of the answer.
        if self.state == "up":
            self._asterisk.soon(lambda: self.channel.hang_up(0, soft=False))
        elif self.state == "calling":
            self._asterisk.soon(self._cancel)

    def _cancel(self) -> None:
        if self.state == "calling":
            self.status = CANCELLED
            self.channel.hang_up(127, CANCELLED, soft=False)
        elif self.state == "up":
            self.channel.hang_up(0, soft=False)

    def _press(self, digit: str) -> None:
        self.channel.digit(digit, 100)

    def _begin(self, what: str) -> None:
        self.heard.append(Heard(what, self._asterisk.time()))
        self._happened()

    def _stop_hearing(self, what: str, *, complete: bool = False) -> None:
        for heard in _open(self.heard, what):
            heard.until, heard.complete = self._asterisk.time(), complete

    def _later(self, delay: float, act: Callable[..., None], *args: object) -> None:
        self._timers.append(self._asterisk.after(delay, act, *args))

    def _happened(self) -> None:
        for seen, happened in self._watchers:
            if not happened.done() and seen():
                happened.set_result(None)


def _open(heard: Iterable[Heard], what: str) -> list[Heard]:
    return [one for one in heard if one.what == what and one.until is None]
