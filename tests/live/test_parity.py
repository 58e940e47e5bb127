"""The same stories on the simulated and on a real Asterisk: what passes between them and the engine is the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Protocol

import pytest
import pytest_asyncio
from live.scripted import Endpoint
from switchboard import APP
from switchboard import FlowFunction
from switchboard import Switchboard

from pbx.ari_http import HttpWire
from pbx.asterisk import PrivateAsterisk
from pbx.call import Call
from pbx.clock import SystemClock
from pbx.config import load_config
from pbx.dial import CallerId
from pbx.dial import Destination
from pbx.leg import Cause
from pbx.prefix import Prefix
from pbx.simulator import Asterisk
from pbx.simulator import Behaviour
from pbx.simulator import SoundFiles
from pbx.simulator import Tap
from pbx.simulator import Trace
from pbx.simulator import VirtualClock
from pbx.simulator import announces
from pbx.simulator import answers
from pbx.simulator import busy
from pbx.simulator import refuses
from pbx.simulator import rings
from pbx.simulator import run
from pbx.simulator import silent

pytestmark = pytest.mark.asyncio(loop_scope="module")

NUMBER = "+33199000100"
# An address of its own for each endpoint: that is how Asterisk tells trunks from one another.
HOSTS = {"x": "127.0.0.2", "a": "127.0.0.3", "b": "127.0.0.4"}
SEEDS = range(30)


class Caller(Protocol):
    """Whoever calls, in either world. `status` is the SIP answer he got, 0 if he was answered."""

    status: int

    def press(self, keys: str, *, after: float = 0.0, gap: float = 0.2) -> None: ...
    def hang_up(self, *, after: float = 0.0) -> None: ...
    async def answered(self) -> None: ...
    async def over(self) -> None: ...


@dataclass
class Story:
    """What the engine does with a call, what the caller does, and how the endpoints behave that are called."""

    flow: FlowFunction
    caller: Callable[[Caller], Awaitable[None]] | None = None
    others: Mapping[str, Behaviour] = field(default_factory=dict)


def after(seconds: float) -> Callable[[Caller], Awaitable[None]]:
    """The caller hangs up so long after he called."""

    async def leave(caller: Caller) -> None:
        caller.hang_up(after=seconds)

    return leave


def _to(*trunks: str, ring_ms: int = 4_000) -> FlowFunction:
    """Dials endpoints, talks to whom answers, and says goodbye to a caller who is still there."""

    async def flow(call: Call) -> None:
        to = [Destination(f"PJSIP/+3319900010{n}@trunk-{trunk}", trunk) for n, trunk in enumerate(trunks)]
        dialled = await call.dial(to, ring_ms=ring_ms, caller=CallerId(NUMBER))
        if dialled.leg is not None:
            await call.talk(dialled.leg)
        await call.play(["sound:beep"])

    return flow


async def _prompt(call: Call) -> None:
    await call.answer()
    await call.play(["sound:hello-world", "sound:beep"])


async def _early(call: Call) -> None:
    await call.play(["sound:beep"])
    await call.reject(Cause.BUSY)


async def _menu(call: Call) -> None:
    await call.answer()
    await call.ask(["sound:tt-monkeys", "sound:beep"])
    await call.play(["sound:beep"])


async def _types_one(caller: Caller) -> None:
    await caller.answered()
    caller.press("1", after=1)


async def _types_ahead(caller: Caller) -> None:
    await caller.answered()
    caller.press("12")


async def _two_questions(call: Call) -> None:
    await call.answer()
    await call.wait(1_500)
    await call.ask(["sound:beep"])
    await call.ask(["sound:beep"])


async def _missing(call: Call) -> None:
    await call.answer()
    await call.play(["sound:nowhere", "sound:beep"])
    await call.play(["recording:nowhere"])
    await call.play(["sound:nowhere"])


async def _record(call: Call) -> None:
    await call.answer()
    await call.capture(f"{call.caller.id}.r1", max_ms=20_000)
    await call.play(["sound:beep"])


async def _types_hash(caller: Caller) -> None:
    await caller.answered()
    caller.press("#", after=1.5)


async def _ring(call: Call) -> None:
    await call.ring()
    await call.wait(10_000)


async def _answered_then_dials(call: Call) -> None:
    await call.answer()
    await _to("a", "b")(call)


STORIES = {
    "a prompt is played, then we hang up": Story(_prompt),
    "a prompt before the answer, then busy": Story(_early),
    "the caller hangs up under the prompt": Story(_menu, after(1.5)),
    "a key cuts the prompt": Story(_menu, _types_one),
    "keys typed ahead": Story(_two_questions, _types_ahead),
    "sounds that are not there": Story(_missing),
    "a recording ended by a key": Story(_record, _types_hash),
    "a recording ended by the hang-up": Story(_record, after(2)),
    "the caller gives up before the answer": Story(_ring, after(1)),
    "busy": Story(_to("a"), others={"a": busy(0.3)}),
    "declined": Story(_to("a"), others={"a": refuses(603, 0.3)}),
    "not available": Story(_to("a"), others={"a": refuses(480, 0.3)}),
    "unknown there": Story(_to("a"), others={"a": refuses(404, 0.3)}),
    "overloaded": Story(_to("a"), others={"a": refuses(503, 0.3)}),
    "no answer": Story(_to("a", ring_ms=1_000), others={"a": rings(0.2)}),
    "nothing comes back": Story(_to("a", ring_ms=1_000), others={"a": silent()}),
    "no such endpoint": Story(_to("nobody")),
    "an announcement, then refused": Story(_to("a"), others={"a": announces(0.3, for_s=1)}),
    "an announcement, then answered": Story(_to("a"), after(2), {"a": announces(0.3, then=200, for_s=1)}),
    "they talk until the caller hangs up": Story(_to("a"), after(1.5), {"a": answers(1, rings=0.2)}),
    "they talk until the callee hangs up": Story(_to("a"), others={"a": answers(1, rings=0.2, leaves=0.5)}),
    "answered without ringing": Story(_to("a"), after(1.5), {"a": ((0.5, 200),)}),
    "the first of two gets the call": Story(_to("a", "b"), after(2), {"a": answers(1, rings=0.2), "b": rings(0.5)}),
    "neither of two": Story(_to("a", "b"), others={"a": refuses(486, 0.3), "b": refuses(603, 0.6)}),
    "two ring for a caller who was answered": Story(
        _answered_then_dials, after(2), {"a": rings(0.2), "b": answers(1, rings=0.5)}
    ),
    "the caller gives up while it rings": Story(_to("a"), after(1), {"a": rings(0.3)}),
    "the caller gives up while two ring": Story(_to("a", "b"), after(1), {"a": rings(0.3), "b": rings(0.5)}),
    "the callee answers and leaves at once": Story(_to("a"), others={"a": answers(1, rings=0.3, leaves=0)}),
}


class Real:
    """A real Asterisk with an endpoint at each address."""

    def __init__(self, asterisk: PrivateAsterisk, endpoints: Mapping[str, Endpoint]) -> None:
        self._asterisk = asterisk
        self._endpoints = endpoints

    async def tell(self, story: Story) -> Trace:
        access = self._asterisk.access
        tap = Tap(HttpWire(access.url, access.user, access.password))
        for trunk, behaviour in story.others.items():
            self._endpoints[trunk].behaviour = behaviour
        async with Switchboard(tap, story.flow, SystemClock()).at_work():
            caller = await self._endpoints["x"].dial(NUMBER)
            await _live(story, caller)
        return tap.trace | {"caller got": [str(caller.status)]}


async def _simulated(story: Story, seed: int, sounds: SoundFiles) -> Trace:
    asterisk = Asterisk(seed, length_of=sounds)
    for trunk in HOSTS:
        asterisk.handset(f"trunk-{trunk}", story.others.get(trunk, ()))
    tap = Tap(asterisk)
    async with Switchboard(tap, story.flow, VirtualClock()).at_work():
        caller = asterisk.call("trunk-x", NUMBER)
        await _live(story, caller)
    assert asterisk.idle
    return tap.trace | {"caller got": [str(caller.status)]}


async def _live(story: Story, caller: Caller) -> None:
    if story.caller is not None:
        await story.caller(caller)
    await caller.over()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def real(prefix: Prefix, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Real]:
    folder = tmp_path_factory.mktemp("parity")
    async with AsyncExitStack() as stack:
        endpoints = {
            trunk: await stack.enter_async_context(Endpoint(host, ("127.0.0.1", 0))) for trunk, host in HOSTS.items()
        }
        asterisk = PrivateAsterisk(load_config(_settings(folder, prefix, endpoints), {}), app=APP)
        await asterisk.start([])
        for endpoint in endpoints.values():
            endpoint.server = ("127.0.0.1", asterisk.sip_port)
        yield Real(asterisk, endpoints)
        await asterisk.stop()


def _settings(folder: Path, prefix: Prefix, endpoints: Mapping[str, Endpoint]) -> Path:
    trunks = ", ".join(
        f"{trunk}: {{host: {endpoint.host}, port: {endpoint.port}, codecs: [alaw]}}"
        for trunk, endpoint in endpoints.items()
    )
    file = folder / "pbx.yml"
    file.write_text(
        f"country: FR\nvar: {folder}/var\nsip: {{bind: 127.0.0.1, port: auto}}\nrtp: auto\n"
        f"asterisk: {{private: {{prefix: {prefix.path}}}}}\ntrunks: {{{trunks}}}\n"
    )
    return file


@pytest.mark.parametrize("name", STORIES)
async def test_the_simulator_behaves_as_the_real_one(name: str, real: Real, prefix: Prefix) -> None:
    """Some order of events that the simulator knows is the one that the real Asterisk has just shown."""
    story = STORIES[name]
    shown = await real.tell(story)
    sounds = SoundFiles(prefix.data / "sounds" / "en_US_f_Allison")
    known = [await asyncio.to_thread(run, _simulated(story, seed, sounds)) for seed in SEEDS]
    assert min((_difference(shown, trace) for trace in known), key=len) == {}


def _difference(shown: Trace, known: Trace) -> dict[str, tuple[list[str], list[str]]]:
    """What differs, by stream: first what the real one showed, then what the simulated one did."""
    streams = {*shown, *known}
    pairs = {stream: (shown.get(stream, []), known.get(stream, [])) for stream in streams}
    return {stream: pair for stream, pair in pairs.items() if pair[0] != pair[1]}
