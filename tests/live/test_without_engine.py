"""Calls while no engine is there: the dialplan's own way on, heard on real telephones."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
from live import sound
from live.phone import Phone
from live.sound import Sound

from pbx.asterisk import PrivateAsterisk
from pbx.config import load_config
from pbx.instance import TEMPLATES
from pbx.instance import Handset
from pbx.instance import Office
from pbx.ports import free_port
from pbx.prefix import Prefix

ACME = Office(
    "acme", ["fr", "en"],
    [
        Handset("acme-101", "101", "Alice Martin", "fr", "+33199000101"),
        Handset("acme-102", "102", "Bob Durand", "en", "+33199000102"),
    ],
    emergency={"112": "112", "0112": "112"}, rings={"+33199000100": ["acme-101"]},
)
ALICE_HZ, BOB_HZ, CARRIER_HZ = 440, 620, 830


class Town(NamedTuple):
    asterisk: PrivateAsterisk
    alice: Phone
    bob: Phone
    carrier: Phone
    folder: Path
    prefix: Prefix

    def number(self, digits: str) -> str:
        """A number at our Asterisk, as the carrier calls it."""
        return f"sip:{digits}@127.0.0.1:{self.asterisk.sip_port}"

    def sentence(self, name: str) -> Sound:
        """One of the sentences that are kept for this."""
        target = self.folder / f"{name}.wav"
        file = TEMPLATES / "sounds" / f"{name}.ulaw"
        sox = [*self.prefix.command("sox"), "-t", "ul", "-r", "8000", "-c", "1", str(file)]
        subprocess.run([*sox, "-e", "signed", "-b", "16", str(target)], check=True)
        return Sound.read(target)


@pytest.fixture
async def town(tmp_path: Path, prefix: Prefix) -> AsyncIterator[Town]:
    """Alice and Bob at an Asterisk without an engine, and a carrier that it knows as its trunk."""
    carrier_port = free_port("127.0.0.1", ("udp", "tcp"), in_a_row=2)
    (tmp_path / "pbx.yml").write_text(
        f"var: {tmp_path}/var\nsip: {{bind: 127.0.0.1, port: auto}}\nrtp: auto\n"
        f"asterisk: {{private: {{prefix: {prefix.path}}}}}\n"
        f"trunks: {{carrier: {{host: 127.0.0.1, port: {carrier_port}, codecs: [alaw]}}}}\n"
    )
    asterisk = PrivateAsterisk(load_config(tmp_path / "pbx.yml", {}), app="pbx-w1")
    await asterisk.start([ACME])
    try:
        async with (
            Phone("Alice", tmp_path / "alice", prefix) as alice,
            Phone("Bob", tmp_path / "bob", prefix) as bob,
            Phone("carrier", tmp_path / "carrier", prefix) as carrier,
        ):
            for phone, line, hz in ((alice, "acme-101", ALICE_HZ), (bob, "acme-102", BOB_HZ)):
                await phone.start(sound.tone(hz, 20))
                await phone.registers(f"{line}@127.0.0.1:{asterisk.sip_port}", asterisk.password(line))
            await carrier.start(sound.tone(CARRIER_HZ, 20), sip_port=carrier_port)
            await carrier.is_known_as(f"+33199000177@127.0.0.1:{carrier_port}")
            yield Town(asterisk, alice, bob, carrier, tmp_path, prefix)
    finally:
        await asterisk.stop()


async def test_colleagues_reach_each_other(town: Town) -> None:
    await town.alice.dials("102")
    ringing = await town.bob.rings()
    assert "101" in ringing.peer
    await town.bob.answers()
    await town.alice.hears_tone(BOB_HZ)
    await town.bob.hears_tone(ALICE_HZ)
    await town.bob.hangs_up()
    await town.alice.is_released()


async def test_a_company_number_is_answered_in_both_languages_and_rings_a_colleague(town: Town) -> None:
    await town.carrier.dials(town.number("0199000100"))
    await town.carrier.hears(town.sentence("absent-company-fr"), within=15)
    await town.carrier.hears(town.sentence("absent-company-en"), within=15)
    await town.alice.rings()
    await town.alice.answers()
    await town.carrier.hears_tone(ALICE_HZ)
    await town.alice.hears_tone(CARRIER_HZ)


@pytest.mark.parametrize("dialled", ["112", "0112", "112#"])
async def test_an_emergency_call_goes_out_and_shows_a_number_that_can_be_called_back(town: Town, dialled: str) -> None:
    await town.alice.dials(dialled)
    ringing = await town.carrier.rings()
    assert "+33199000101" in ringing.peer
    await town.carrier.answers()
    await town.carrier.hears_tone(ALICE_HZ)
    await town.alice.hears_tone(CARRIER_HZ)


async def test_an_emergency_call_is_tried_again_for_as_long_as_the_caller_is_there(town: Town) -> None:
    await town.alice.dials("112")
    await town.carrier.rings()
    await town.carrier.rejects()
    await town.carrier.rings()
    await town.carrier.answers()
    await town.alice.hears_tone(CARRIER_HZ)


async def test_who_dials_any_other_number_is_told_in_the_language_of_the_line(town: Town) -> None:
    await town.bob.dials("0033199000055")
    await town.bob.hears(town.sentence("absent-line-en"), within=15)
    await town.bob.is_released()
    assert town.carrier.calls == []


async def test_a_number_that_is_not_ours_is_refused(town: Town) -> None:
    await town.carrier.dials(town.number("+33199000199"))
    await town.carrier.is_released("404")


def invitation(port: int, user: str, called: str) -> str:
    """The status line that a call of `user`, from an address that nobody knows, is answered with."""
    with socket.socket(type=socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.3", 0))
        stranger.settimeout(5)
        here = f"127.0.0.3:{stranger.getsockname()[1]}"
        stranger.sendto(
            f"INVITE sip:{called}@127.0.0.1:{port} SIP/2.0\r\nVia: SIP/2.0/UDP {here};branch=z9hG4bKstranger\r\n"
            f"From: <sip:{user}@{here}>;tag=1\r\nTo: <sip:{called}@127.0.0.1:{port}>\r\nCall-ID: {user}\r\n"
            f"CSeq: 1 INVITE\r\nContact: <sip:{user}@{here}>\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n".encode(),
            ("127.0.0.1", port),
        )
        return stranger.recv(4096).decode().splitlines()[0]


@pytest.mark.parametrize("user", ["acme-101", "trunk-carrier", "joe"])
async def test_a_stranger_is_refused_whomever_he_says_to_be(town: Town, user: str) -> None:
    assert await asyncio.to_thread(invitation, town.asterisk.sip_port, user, "112") == "SIP/2.0 401 Unauthorized"


async def test_a_line_that_is_added_registers_without_a_restart(town: Town, tmp_path: Path, prefix: Prefix) -> None:
    before = town.asterisk.pid
    await town.asterisk.reload([ACME, Office("duo", ["en"], [Handset("duo-11", "11", "Carol", "en")], {}, {})])
    async with Phone("Carol", tmp_path / "carol", prefix) as carol:
        await carol.start(sound.tone(1000, 1))
        await carol.registers(f"duo-11@127.0.0.1:{town.asterisk.sip_port}", town.asterisk.password("duo-11"))
    assert town.asterisk.pid == before
