"""Rough treatment: what people, networks and machines do to a PBX. Afterwards it is as if nothing had been."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from collections.abc import Iterator
from contextlib import closing
from contextlib import contextmanager
from datetime import UTC
from datetime import datetime
from typing import Self

import pytest
import pytest_asyncio
from live.pbx import Pbx
from live.pbx import running
from live.scripted import Dialog
from live.scripted import Endpoint

from pbx.prefix import Prefix
from pbx.simulator import Behaviour
from pbx.simulator.people import BYE
from pbx.store import CallRecord

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLAN = """\
tenant: rough
country: FR
language: fr
timezone: Europe/Paris
sites: {here: {number: "+33199000200"}}
lines:
  "101": {name: Alice, voicemail: {pin: "4711", min: 500ms, greeting: Bonjour.}}
numbers:
  "+33199000200": choice
  "+33199000202": box
  "+33199000203": away
  "+33199000204": two
  "+33199000205": code
flows:
  choice:
    - answer
    - menu:
        prompt: "Pour parler à quelqu'un, tapez 2. Pour attendre un peu, tapez 3. Nous avons le temps, prenez le vôtre."
        keys:
          "2": {dial: "+33639980001"}
          "3": {wait: 30s}
  box: {voicemail: "101"}
  away: {dial: {to: "+33639980001", for: 20s}}
  two: {dial: {to: ["+33639980001", "+33639980002"], for: 20s}}
  code:
    - ask: {prompt: "Votre code.", max: 30, into: code, between: 1s}
"""
NEIGHBOUR = """\
tenant: next
country: FR
language: fr
timezone: Europe/Paris
lines:
  "777": {name: Nadia}
numbers: {}
flows: {}
"""
MENU, BOX, AWAY, TWO, CODE = (f"+3319900020{n}" for n in (0, 2, 3, 4, 5))

ANSWERS: Behaviour = ((0.1, 180), (0.1, 200))
RINGS: Behaviour = ((0.1, 180),)
BUSY: Behaviour = ((0.0, 486),)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory, prefix: Prefix) -> AsyncIterator[Pbx]:
    folder = tmp_path_factory.mktemp("rough")
    plans = folder / "rough.yml", folder / "next.yml"
    for plan, text in zip(plans, (PLAN, NEIGHBOUR), strict=True):
        plan.write_text(text)
    async with running(folder / "pbx", prefix, *plans) as pbx:
        yield pbx


@pytest_asyncio.fixture(loop_scope="module")
async def pbx(house: Pbx) -> AsyncIterator[Pbx]:
    """Nothing of a test may be left; what a log complains of is each test's own affair."""
    house.forget_the_past()
    yield house
    await house.everybody_leaves()
    await house.is_idle()


@pytest_asyncio.fixture(loop_scope="module")
async def outside(pbx: Pbx) -> AsyncIterator[Endpoint]:
    """The carrier: it calls the company, and is called."""
    endpoint = Endpoint("127.0.0.1", _address(pbx))
    endpoint.port = pbx.carrier.port
    async with endpoint:
        yield endpoint


# -- machines ---------------------------------------------------------------------------------------


async def test_asterisk_killed_in_mid_call_ends_its_calls_and_the_next_one_works(pbx: Pbx, outside: Endpoint) -> None:
    await _in_all_situations(outside)
    os.kill(pbx.asterisk_pid, signal.SIGKILL)
    records = {record.dialled: record for record in await pbx.records(4)}
    assert {(record.cause, record.ended_by) for record in records.values()} == {(41, "asterisk")}
    assert {leg.ended_by for record in records.values() for leg in record.legs} == {"asterisk"}
    assert records[MENU].outcome == "failed" and records[BOX].outcome == "voicemail"
    await pbx.takes_calls()
    alice = await pbx.handset("101", tenant="rough")
    await alice.lamp_shows(new=len(await pbx.messages("101", tenant="rough")))
    await _a_conversation(outside)


async def test_an_asterisk_that_stood_still_is_heard_again(pbx: Pbx, outside: Endpoint) -> None:
    """Longer than the engine trusts its event stream. One caller leaves meanwhile, the others when it goes on."""
    menu, *others = await _in_all_situations(outside)
    os.kill(pbx.asterisk_pid, signal.SIGSTOP)
    try:
        menu.hang_up()
        await asyncio.sleep(9)
    finally:
        os.kill(pbx.asterisk_pid, signal.SIGCONT)
    await pbx.takes_calls()
    for call in others:
        call.hang_up()
    await _all_as_if_undisturbed(pbx)
    await _a_conversation(outside)


async def test_calls_do_not_notice_that_the_event_stream_is_cut(pbx: Pbx, outside: Endpoint) -> None:
    calls = await _in_all_situations(outside)
    await pbx.asterisk_cli("ari shutdown websocket sessions")
    await pbx.takes_calls()
    for call in calls:
        call.hang_up()
    await _all_as_if_undisturbed(pbx)


async def test_a_killed_engine_leaves_nothing_to_the_next_one_but_its_asterisk(pbx: Pbx, outside: Endpoint) -> None:
    calls = await _in_all_situations(outside)
    asterisk = pbx.asterisk_pid
    pbx.signal(signal.SIGKILL)
    assert await pbx.ended() == -signal.SIGKILL
    await pbx.starts_again()
    for call in calls:
        await call.over()
    await pbx.is_idle()
    assert pbx.asterisk_pid == asterisk
    await _a_conversation(outside)


async def test_two_of_them_do_not_start_in_one_folder(pbx: Pbx, outside: Endpoint) -> None:
    status, complaint = await pbx.starts_twice()
    assert status == 2
    assert re.search(r'^pbx: another PBX is running here .*: stop it, or give this one another "node"', complaint, re.M)
    await _a_conversation(outside)


async def test_records_wait_while_the_database_is_locked(pbx: Pbx, outside: Endpoint) -> None:
    with _locked(pbx):
        for _ in range(3):
            await _a_conversation(outside)
        await pbx.is_idle()
        await asyncio.sleep(6)  # longer than one attempt to write
    records = await pbx.records(3)
    assert [record.outcome for record in records] == ["answered"] * 3


# -- people -----------------------------------------------------------------------------------------


async def test_people_hang_up_at_the_worst_moments(pbx: Pbx, outside: Endpoint) -> None:
    """Crossing CANCEL, BYE and 200, two who answer in the same instant, a callee who leaves while being joined."""
    dice = random.Random(5)
    calls = []
    for _ in range(20):
        moments: list[tuple[str, Behaviour, float]] = [
            (AWAY, ((0.05, 180), (0.1, 200)), 0.1 + 0.1 * dice.random()),
            (AWAY, ((0.0, 180), (0.0, 200)), 0.06 * dice.random()),
            (AWAY, ((0.05, 180), (0.05, 200), (0.04 * dice.random(), BYE)), 2.0),
            (TWO, ((0.05, 180), (0.05, 200)), 0.3),
            (TWO, ((0.05, 180), (0.05, 200), (0.03 * dice.random(), BYE)), 2.0),
            (MENU, (), 0.05 * dice.random()),
            (BOX, (), 0.2 + dice.random()),
        ]
        for number, outside.behaviour, leaves in moments:
            calls.append(await outside.dial(number))
            calls[-1].hang_up(after=leaves)
            await asyncio.sleep(0.04)
    for call in calls:
        await call.over()
    await pbx.is_idle()
    assert not any(call.up for call in outside.calls)
    records = await pbx.records(len(calls))
    assert Counter(record.dialled for record in records) == {MENU: 20, BOX: 20, AWAY: 60, TWO: 40}
    assert {record.ended_by for record in records} >= {"caller", "callee"}  # the engine may cross them
    for record in records:
        assert _noted(record).isdisjoint({"failed", "unconfirmed", "hangup_failed"})
        assert [leg.outcome for leg in record.legs].count("answered") <= 1
    assert pbx.problems() == []


async def test_hold_and_resume_change_nothing(pbx: Pbx, outside: Endpoint) -> None:
    outside.behaviour = ANSWERS
    caller = await pbx.carrier.calls(MENU)
    await caller.is_connected()
    await caller.holds()
    await caller.resumes()
    await caller.presses("2")
    while not (outside.calls and outside.calls[-1].up):
        await asyncio.sleep(0.05)
    await caller.holds()
    await caller.resumes()
    await caller.hangs_up()
    (record,) = await pbx.records(1)
    assert (record.outcome, record.ended_by) == ("answered", "caller")
    assert pbx.problems() == []


async def test_hundreds_of_keys_do_no_harm(pbx: Pbx, outside: Endpoint) -> None:
    flood = await outside.dial(MENU)
    await flood.answered()
    flood.press("9" * 300, gap=0.01)
    code = await pbx.carrier.calls(CODE)
    await code.is_connected()
    await code.presses("0123456789" * 3)
    await code.is_released()
    await flood.over()
    typed = {record.dialled: record.timeline for record in await pbx.records(2)}
    assert [moment.detail["digits"] for moment in typed[CODE] if moment.kind == "typed"] == ["0123456789" * 3]
    assert pbx.problems() == []


# -- strangers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, number, kept", [
    (r'a\"b{c}%s${EVIL}$[1+1]', "o'neil%22%7b", 'o\'neil"{'),
    ("caf\udce9 \udcff", "123", "123"),
    ("n" * 2000, "9" * 2000, "9" * 79),
    ("a\x01b\x7f", "1%0d%0aInjected:%20x", "1Injected"),
    ("Anonymous", "anonymous", ""),
    ("", "", ""),
])
async def test_a_caller_may_call_himself_what_he_likes(
    pbx: Pbx, outside: Endpoint, name: str, number: str, kept: str
) -> None:
    outside.behaviour = BUSY
    async with Stranger("127.0.0.1", pbx) as carrier:
        user = f"{number}@" if number else ""
        assert await carrier.invites(AWAY, f'"{name}" <sip:{user}x.invalid>') == 486
    (record,) = await pbx.records(1)
    assert (record.caller_number, record.outcome) == (kept, "busy")


@pytest.mark.parametrize("dialled, status", [
    ("+33199000203;rn=1;npdi", 486), ("%2B33199000203", 486), ("+331990;x=1", 404), ("9" * 500, 404),
    ("100&PJSIP", 404), ("../../x", 404), ("101", 404), ("rough-101", 404), ("*98", 404), ("h", 404),
    ("absent-rough", 404),
])
async def test_odd_numbers_reach_nobody(pbx: Pbx, outside: Endpoint, dialled: str, status: int) -> None:
    outside.behaviour = BUSY
    async with Stranger("127.0.0.1", pbx) as carrier:
        assert await carrier.invites(dialled, "<sip:+33536490001@x.invalid>") == status
    assert len(outside.calls) == (status == 486)


async def test_a_call_whose_sound_nobody_understands_is_refused(pbx: Pbx, outside: Endpoint) -> None:
    outside.behaviour = BUSY
    caller = "<sip:+33536490001@x.invalid>"
    async with Stranger("127.0.0.1", pbx) as carrier:
        assert await carrier.invites(AWAY, caller, offer=SDP.replace("PCMA", "EVIL").replace("8", "96")) == 488
        assert await carrier.invites(AWAY, caller, offer=SDP.replace("audio", "video")) == 488
        assert await carrier.invites(AWAY, caller, offer="v=0\r\nxx\r\n") == 400
        assert await carrier.invites(AWAY, caller, offer="") == 486  # ours is in the answer that there would have been
        assert await carrier.asks("OPTIONS", AWAY, caller) == 200


async def test_a_stranger_gets_nowhere(pbx: Pbx, outside: Endpoint) -> None:
    began = datetime.now(UTC)
    async with Stranger("127.0.0.9", pbx) as stranger:
        for who in ("stranger", "rough-101", "trunk-carrier", "carrier", "anonymous"):
            for dialled in ("+33639980001", "0033639980001", "101", MENU, "112"):
                assert await stranger.invites(dialled, f"<sip:{who}@x.invalid>") == 401
            for method in ("REGISTER", "OPTIONS", "MESSAGE", "REFER", "SUBSCRIBE"):
                assert await stranger.asks(method, "rough-101", f"<sip:{who}@x.invalid>") == 401
    assert await pbx.leftovers() == [] and outside.calls == []
    assert await pbx.store.calls(since=began) == []


async def test_a_handset_does_not_reach_the_lines_of_another_tenant(pbx: Pbx) -> None:
    alice = await pbx.handset("101", tenant="rough")
    nadia = await pbx.handset("777", tenant="next")
    for dialled in ("777", "next-777", "777;tenant=next"):
        await alice.dials(f"sip:{dialled}@{pbx.server}")
        await alice.is_released()
    assert nadia.calls == []


# -- how it is done ---------------------------------------------------------------------------------

SDP = "\r\n".join([
    "v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "c=IN IP4 127.0.0.1", "t=0 0", "m=audio 40000 RTP/AVP 8",
    "a=rtpmap:8 PCMA/8000", "",
])


class Stranger(asyncio.DatagramProtocol):
    """Writes into SIP what no telephone would; gives the final status it gets."""

    def __init__(self, host: str, pbx: Pbx) -> None:
        self._host = host
        self._server = _address(pbx)
        self._final: asyncio.Future[str] | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(self._host, 0))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._transport.abort()

    async def invites(self, dialled: str, caller: str, offer: str = SDP) -> int:
        return await self.asks("INVITE", dialled, caller, offer)

    async def asks(self, method: str, dialled: str, caller: str, body: str = "") -> int:
        id = f"{random.getrandbits(64):x}"
        address = "{}:{}".format(*self._server)
        port = self._transport.get_extra_info("sockname")[1]
        kind = ["Content-Type: application/sdp"] if body else []

        def message(method: str, to: str, content: str) -> bytes:
            return "\r\n".join([
                f"{method} sip:{dialled}@{address} SIP/2.0",
                f"Via: SIP/2.0/UDP {self._host}:{port};branch=z9hG4bK{id}", f"From: {caller};tag={id}", f"To: {to}",
                f"Call-ID: {id}", f"CSeq: 1 {method}", "Max-Forwards: 70", f"Contact: <sip:x@{self._host}:{port}>",
                "Event: message-summary", *kind, f"Content-Length: {len(content)}", "", content,
            ]).encode("utf-8", "surrogateescape")

        self._final = asyncio.get_running_loop().create_future()
        self._transport.sendto(message(method, f"<sip:{dialled}@{address}>", body), self._server)
        answer = await asyncio.wait_for(self._final, 5)
        if method == "INVITE":
            kind = []
            to = re.search(r"^To: *(.*?)\r$", answer, re.MULTILINE | re.IGNORECASE)
            assert to is not None
            self._transport.sendto(message("ACK", to[1], ""), self._server)
        return int(answer.split()[1])

    def datagram_received(self, data: bytes, address: object) -> None:
        text = data.decode(errors="replace")
        if self._final and not self._final.done() and re.match(r"SIP/2.0 [2-6]", text):
            self._final.set_result(text)


async def _in_all_situations(outside: Endpoint) -> list[Dialog]:
    """Calls in the menu, leaving a message, talking, and ringing."""
    outside.behaviour = ANSWERS
    menu, box, talking = [await outside.dial(number) for number in (MENU, BOX, AWAY)]
    for call in (menu, box, talking):
        await call.answered()
    outside.behaviour = RINGS
    ringing = await outside.dial(TWO)
    while ringing.status != 180:
        await asyncio.sleep(0.05)
    await asyncio.sleep(2.5)  # of message
    return [menu, box, talking, ringing]


async def _all_as_if_undisturbed(pbx: Pbx) -> None:
    records = await pbx.records(4)
    assert {record.dialled: record.outcome for record in records} == {
        MENU: "abandoned", BOX: "voicemail", AWAY: "answered", TWO: "abandoned",
    }
    assert {record.ended_by for record in records} == {"caller"}
    assert [leg.outcome for record in records for leg in record.legs if record.dialled == TWO] == ["cancelled"] * 2
    for record in records:
        assert _noted(record).isdisjoint({"failed", "unconfirmed"})
    await pbx.is_idle()


async def _a_conversation(outside: Endpoint) -> None:
    outside.behaviour = ANSWERS
    call = await outside.dial(AWAY)
    await call.answered()
    call.hang_up()
    await call.over()


@contextmanager
def _locked(pbx: Pbx) -> Iterator[None]:
    with closing(sqlite3.connect(pbx.var / "pbx.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


def _noted(record: CallRecord) -> set[str]:
    return {moment.kind for moment in record.timeline}


def _address(pbx: Pbx) -> tuple[str, int]:
    host, port = pbx.server.split(":")
    return host, int(port)
