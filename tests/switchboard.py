"""The smallest engine there can be, on a simulated Asterisk: every call runs one flow. For stories of calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from collections.abc import Awaitable
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any
from typing import TYPE_CHECKING

from pbx.ari import Ari
from pbx.ari import Wire
from pbx.call import Call
from pbx.call import Hangup
from pbx.call import Speaker
from pbx.clock import Clock
from pbx.policy import Gate
from pbx.simulator import Asterisk
from pbx.simulator import Party
from pbx.simulator import VirtualClock
from pbx.simulator import run
from pbx.store import CallRecord

if TYPE_CHECKING:
    from pbx.ari_api import StasisStart

APP = "pbx-w1"
SEEDS = range(20)

FlowFunction = Callable[[Call], Awaitable[None]]


class Echo:
    """A voice that needs no files."""

    async def sound(self, text: str, language: str) -> str:
        return f"sound:{language}/{text.replace(',', '')}"  # commas would part it from itself in a list of media


class Switchboard:
    """Over any wire; what a flow does with a call is all it does."""

    last_words_s = 0.2  # for events that come after the end

    def __init__(self, wire: Wire, flow: FlowFunction, clock: Clock) -> None:
        self.clock = clock
        self.ari = Ari(wire, APP, clock=clock)
        self.ari.on_arrival = self._arrived
        self.calls: list[Call] = []
        self.gate = Gate()
        self.speaker: Speaker = Echo()
        self._flow = flow
        self._served: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        serving = asyncio.create_task(self.ari.run(), name="ari")
        await self.ari.connected.wait()
        yield
        await self.quiet()
        serving.cancel()
        await asyncio.wait([serving])

    def _arrived(self, event: StasisStart) -> None:
        channel = event["channel"]
        record = CallRecord(
            id=f"a1.w1.1.{len(self.calls) + 1}", node="a1", worker="w1", epoch=1, tenant="acme", direction="inbound",
            caller_number=channel["caller"]["number"], caller_name="", dialled=event["args"][2], plan_version="",
            started_at=self.clock.now(),
        )
        call = Call(
            self.ari, channel["id"], record, app=APP, clock=self.clock, speaker=self.speaker, language="en",
            gate=self.gate,
        )
        call.caller.on_event(event)
        self.calls.append(call)
        self._served.append(asyncio.create_task(self._serve(call), name=f"call {call.id}"))

    async def _serve(self, call: Call) -> None:
        try:
            await self._flow(call)
            await call.hangup()
        except Hangup:
            pass
        finally:
            await call.release()

    async def quiet(self) -> None:
        """Waits until every call was served, then sees that nothing of them is left."""
        while self._served:
            await self._served.pop()
        await asyncio.sleep(self.last_words_s)
        assert self.ari._listeners == {}
        for call in self.calls:
            unconfirmed = [moment.detail for moment in call.record.timeline if moment.kind == "unconfirmed"]
            assert unconfirmed == []


class SimulatedSwitchboard(Switchboard):
    last_words_s = 60.0

    def __init__(self, asterisk: Asterisk, flow: FlowFunction) -> None:
        super().__init__(asterisk, flow, VirtualClock())
        self.asterisk = asterisk

    def ring(self, dialled: str = "+33199000100", *, caller: str = "+33199000177") -> Party:
        """Somebody calls from outside."""
        return self.asterisk.call("trunk-x", dialled, caller=caller)

    async def quiet(self) -> None:
        await super().quiet()
        assert self.asterisk.idle


@asynccontextmanager
async def switchboard(flow: FlowFunction, seed: int = 0, **settings: Any) -> AsyncIterator[SimulatedSwitchboard]:
    """A switchboard that runs `flow` for every call; at its end all calls must have ended and left nothing."""
    board = SimulatedSwitchboard(Asterisk(seed, **settings), flow)
    async with board.at_work():
        yield board


def in_every_order(story: Callable[[int], Any]) -> None:
    """Tells a story with every seed."""
    for seed in SEEDS:
        try:
            run(story(seed))
        except BaseException as error:
            error.add_note(f"with seed {seed}")
            raise
