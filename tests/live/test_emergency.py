"""What a carrier receives of an emergency call: real SIP, read as it comes off the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest
from live.pbx import Pbx
from live.pbx import running
from live.phone import Phone
from live.scripted import Endpoint
from live.scripted import Message
from live.sound import tone

from pbx.asterisk import PrivateAsterisk
from pbx.config import load_config
from pbx.dialplan import compile_plan
from pbx.instance import office
from pbx.ports import free_port
from pbx.prefix import Prefix
from pbx.simulator import answers
from pbx.simulator import refuses
from pbx.simulator import silent

PLAN = """\
tenant: acme
country: FR
language: fr
timezone: Europe/Paris
sites:
  paris:
    number: "+33199000100"
    outside_prefix: "0"
    address: {street: "rue de l'Église & du \\"Port\\"", house: 12 bis, postcode: "75008", city: Paris, insee: "75108"}
  lyon: {}
lines:
  "101": {name: Alice Martin, site: paris, number: "+33199000101"}
  "102": {name: Bob Durand, site: lyon}
numbers:
  "+33199000100": welcome
flows:
  welcome: [answer]
"""


class Carrier(Endpoint):
    """A trunk that keeps the INVITEs it gets, as they came, and does with each the next of `behaviours`."""

    def __init__(self, port: int, server: tuple[str, int]) -> None:
        super().__init__("127.0.0.1", server)
        self.port = port
        self.invites: list[Message] = []
        self.invited_at: list[datetime] = []
        self.behaviours = [answers(0.5)]
        self._arrived = asyncio.Event()

    def datagram_received(self, data: bytes, address: object) -> None:
        message = Message(data.decode())
        if message.method == "INVITE" and ";tag=" not in message["To"]:
            known = {invite["Call-ID"] for invite in self.invites}
            if message["Call-ID"] not in known:
                self.invites.append(message)
                self.invited_at.append(datetime.now(UTC))
                self.behaviour = self.behaviours[min(len(self.invites), len(self.behaviours)) - 1]
                self._arrived.set()
        super().datagram_received(data, address)

    async def invited(self, times: int = 1) -> Message:
        async with asyncio.timeout(20):
            while len(self.invites) < times:
                self._arrived.clear()
                await self._arrived.wait()
        return self.invites[times - 1]


class Town(NamedTuple):
    pbx: Pbx
    carrier: Carrier


@pytest.fixture
async def town(tmp_path: Path, prefix: Prefix) -> AsyncIterator[Town]:
    (tmp_path / "acme.yml").write_text(PLAN, "utf-8")
    async with running(tmp_path / "pbx", prefix, tmp_path / "acme.yml") as pbx:
        host, _, port = pbx.server.partition(":")
        async with Carrier(pbx.carrier.port, (host, int(port))) as carrier:
            await pbx.trunk_is_up()
            yield Town(pbx, carrier)
            await pbx.everybody_leaves()
            await pbx.is_idle()


def place(invite: Message) -> dict[str, str]:
    """The civic address in the PIDF-LO body of an INVITE, element by element."""
    start = invite.body.index("<?xml")
    tree = ElementTree.fromstring(invite.body[start:invite.body.index("</presence>") + len("</presence>")])
    assert tree.tag == "{urn:ietf:params:xml:ns:pidf}presence"
    found = tree.findall(
        "{urn:ietf:params:xml:ns:pidf:data-model}device/{urn:ietf:params:xml:ns:pidf:geopriv10}geopriv/"
        "{urn:ietf:params:xml:ns:pidf:geopriv10}location-info/"
        "{urn:ietf:params:xml:ns:pidf:geopriv10:civicAddr}civicAddress/*"
    )
    return {element.tag.rpartition("}")[2]: element.text or "" for element in found}


def is_whole(invite: Message, shown: str) -> None:
    """An emergency call with the number and the place of the Paris office."""
    assert f"<sip:{shown}@" in invite["From"] and f"<sip:{shown}@" in invite["P-Asserted-Identity"]
    assert "anonymous" not in invite["From"] and not invite["Privacy"]
    assert invite["Priority"] == "emergency"
    assert invite["Geolocation"].startswith("<cid:") and invite["Geolocation-Routing"] == "yes"
    assert invite["Content-Type"].startswith("multipart/mixed")
    assert place(invite) == {
        "country": "FR", "A3": "Paris", "RD": "rue de l'Église & du 'Port'", "HNO": "12 bis", "PC": "75008",
    }


async def test_the_carrier_is_told_who_calls_and_from_where(town: Town) -> None:
    alice = await town.pbx.handset("101")
    await alice.dials("018#")
    invite = await town.carrier.invited()
    assert invite.start.startswith("INVITE sip:18@")
    is_whole(invite, "+33199000101")
    assert invite["P-Access-Network-Info"] == 'IEEE-802.3;eth-location="75108"'
    await alice.is_connected()
    await alice.hangs_up()
    record = await town.pbx.record("101")
    assert (record.direction, record.outcome) == ("outbound", "answered")


async def test_the_carrier_hears_of_it_within_a_tenth_of_a_second(town: Town) -> None:
    alice = await town.pbx.handset("101")
    for number in range(20):
        await alice.dials("15")
        await town.carrier.invited(number + 1)
        await alice.is_connected()
        await alice.hangs_up()
        await town.pbx.is_idle()
    started = sorted(record.started_at for record in await town.pbx.records(20))
    taken = sorted(at - start for start, at in zip(started, town.carrier.invited_at, strict=True))
    # One may be late on a machine that is busy with other things.
    assert taken[-2] < timedelta(milliseconds=100), taken


async def test_a_place_that_is_not_known_is_not_sent(town: Town) -> None:
    bob = await town.pbx.handset("102")
    await bob.dials("112")
    invite = await town.carrier.invited()
    assert "<sip:+33199000100@" in invite["P-Asserted-Identity"] and invite["Priority"] == "emergency"
    assert not invite["Geolocation"] and invite["Content-Type"] == "application/sdp"
    await bob.is_connected()
    await bob.hangs_up()


async def test_it_comes_again_after_a_refusal_and_after_silence(town: Town) -> None:
    town.carrier.behaviours = [refuses(503), refuses(486), silent(), answers(0.5)]
    alice = await town.pbx.handset("101")
    await alice.dials("15")
    is_whole(await town.carrier.invited(4), "+33199000101")
    await alice.is_connected()
    assert [invite.start.split("@")[0] for invite in town.carrier.invites] == [
        "INVITE sip:15", "INVITE sip:112", "INVITE sip:15", "INVITE sip:112",
    ]
    await alice.hangs_up()


async def test_without_the_engine_the_carrier_is_told_the_same(tmp_path: Path, prefix: Prefix) -> None:
    port = free_port("127.0.0.1", ("udp", "tcp"))
    (tmp_path / "acme.yml").write_text(PLAN, "utf-8")
    (tmp_path / "pbx.yml").write_text(
        f"var: {tmp_path}/var\nsip: {{bind: 127.0.0.1, port: auto}}\nrtp: auto\n"
        f"asterisk: {{private: {{prefix: {prefix.path}}}}}\n"
        f"trunks: {{carrier: {{host: 127.0.0.1, port: {port}, codecs: [alaw]}}}}\n"
    )
    asterisk = PrivateAsterisk(load_config(tmp_path / "pbx.yml", {}), app="pbx-w1")
    await asterisk.start([office(compile_plan(tmp_path / "acme.yml"))])
    try:
        async with (
            Carrier(port, ("127.0.0.1", asterisk.sip_port)) as carrier,
            Phone("Alice", tmp_path / "alice", prefix) as alice,
        ):
            await alice.start(tone(440, 20))
            await alice.registers(f"acme-101@127.0.0.1:{asterisk.sip_port}", asterisk.password("acme-101"))
            await alice.dials("0112")
            invite = await carrier.invited()
            assert invite.start.startswith("INVITE sip:112@")
            is_whole(invite, "+33199000101")
            await alice.is_connected()
            await alice.hangs_up()
    finally:
        await asterisk.stop()
