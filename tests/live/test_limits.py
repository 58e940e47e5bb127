"""The end that a policy sets to a talk, on a real Asterisk: carried out by the engine, or by Asterisk without it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio
from live.scripted import Endpoint
from switchboard import APP
from switchboard import Switchboard

from pbx.ari_http import HttpWire
from pbx.asterisk import PrivateAsterisk
from pbx.call import Call
from pbx.clock import SystemClock
from pbx.config import load_config
from pbx.dial import CallerId
from pbx.dial import Destination
from pbx.policy import Announcement
from pbx.policy import Gate
from pbx.policy import LiveLeg
from pbx.policy import Model
from pbx.policy import Policy
from pbx.policy import Tenant
from pbx.policy import Terms
from pbx.prefix import Prefix
from pbx.simulator import answers
from pbx.store import LegRecord
from pbx.store import MemoryStore
from pbx.watch import Watch

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT = timedelta(seconds=4)


class FourSeconds(Policy[Model]):
    """Two seconds before the end the caller hears something that lasts longer than that."""

    def answered(self, leg: LiveLeg) -> None:
        leg.end_at(leg.answered_at + LIMIT, clause="R1", warnings={2_000: Announcement("Fin.", "End.")})


class Monkeys:
    """Eight seconds of a sound that is there in any language."""

    async def sound(self, text: str, language: str) -> str:
        return "sound:tt-monkeys"


class Line:
    """A caller and a callee, both scripted, at an Asterisk of their own."""

    def __init__(self, asterisk: PrivateAsterisk, caller: Endpoint, callee: Endpoint) -> None:
        self._asterisk = asterisk
        self._caller = caller
        self._callee = callee

    async def talk(self) -> tuple[LegRecord, Call]:
        """One call that is held to the policy; gives its outbound leg."""
        self._callee.behaviour = answers(0.2)
        access, clock = self._asterisk.access, SystemClock()
        board = Switchboard(HttpWire(access.url, access.user, access.password), _dial, clock)
        tenant = Tenant("acme", ZoneInfo("Europe/Paris"), [])
        board.gate = Gate({"acme": [FourSeconds(
            Terms("limit", tenant, "strict 1", Model(), {}, MemoryStore(clock=clock), clock)
        )]})
        board.speaker = Monkeys()
        async with board.at_work():
            await (await self._caller.dial("+33199000100")).over()
        (call,) = board.calls
        (leg,) = call.record.legs
        return leg, call


async def _dial(call: Call) -> None:
    to = Destination("PJSIP/+33199000199@trunk-a", "+33199000199", outside=True)
    dialled = await call.dial([to], ring_ms=4_000, caller=CallerId("+33199000100"))
    assert dialled.leg is not None
    await call.talk(dialled.leg)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def line(prefix: Prefix, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Line]:
    folder = tmp_path_factory.mktemp("limits")
    async with AsyncExitStack() as stack:
        caller = await stack.enter_async_context(Endpoint("127.0.0.2", ("127.0.0.1", 0)))
        callee = await stack.enter_async_context(Endpoint("127.0.0.3", ("127.0.0.1", 0)))
        file = folder / "pbx.yml"
        file.write_text(
            f"country: FR\nvar: {folder}/var\nsip: {{bind: 127.0.0.1, port: auto}}\nrtp: auto\n"
            f"asterisk: {{private: {{prefix: {prefix.path}}}}}\n"
            f"trunks: {{x: {{host: 127.0.0.2, port: {caller.port}, codecs: [alaw]}},"
            f" a: {{host: 127.0.0.3, port: {callee.port}, codecs: [alaw]}}}}\n"
        )
        asterisk = PrivateAsterisk(load_config(file, {}), app=APP)
        await asterisk.start([])
        stack.push_async_callback(asterisk.stop)
        for endpoint in (caller, callee):
            endpoint.server = ("127.0.0.1", asterisk.sip_port)
        yield Line(asterisk, caller, callee)


def _lasted(leg: LegRecord) -> timedelta:
    assert leg.answered_at is not None and leg.ended_at is not None
    return leg.ended_at - leg.answered_at


def _told(call: Call) -> set[str]:
    return {moment.kind for moment in call.record.timeline}


async def test_the_engine_ends_a_talk_in_time_though_a_warning_is_still_played(line: Line) -> None:
    leg, call = await line.talk()
    assert LIMIT <= _lasted(leg) < LIMIT + timedelta(seconds=0.25)
    assert leg.ended_by == "engine" and "warned" in _told(call) and "backstop_failed" not in _told(call)


async def test_without_the_engine_asterisk_ends_it(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after its death: nobody asks for the end, and Asterisk's own timer goes off."""
    monkeypatch.setattr(Watch, "_end", lambda *_: None)
    leg, _ = await line.talk()
    assert LIMIT + timedelta(seconds=0.2) < _lasted(leg) < LIMIT + timedelta(seconds=1)
    assert leg.cause == 16
