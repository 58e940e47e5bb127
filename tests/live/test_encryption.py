"""SIP over TCP and TLS, and sound over SRTP, between real telephones."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from live import sound
from live.phone import Phone

from pbx.asterisk import PrivateAsterisk
from pbx.config import load_config
from pbx.instance import Handset
from pbx.instance import Office
from pbx.prefix import Prefix

ACME = Office(
    "acme", ["fr"], [Handset("acme-101", "101", "Alice Martin", "fr"), Handset("acme-102", "102", "Bob Durand", "fr")],
    emergency={}, rings={},
)


def certificate(folder: Path, prefix: Prefix) -> None:
    """A certificate that nobody vouches for."""
    subprocess.run(
        [
            *prefix.command("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1",
            "-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem"), "-days", "2",
            "-config", "/dev/null",
        ],
        check=True, capture_output=True,
    )


@pytest.mark.parametrize("transport", ["tcp", "tls"])
async def test_a_handset_calls_one_that_is_on_udp(transport: str, tmp_path: Path, prefix: Prefix) -> None:
    certificate(tmp_path, prefix)
    (tmp_path / "pbx.yml").write_text(
        f"var: {tmp_path}/var\nrtp: auto\nasterisk: {{private: {{prefix: {prefix.path}}}}}\n"
        f"sip: {{bind: 127.0.0.1, port: auto, tls: {{port: auto, "
        f"certificate: {tmp_path}/certificate.pem, key: {tmp_path}/key.pem}}}}\n"
    )
    asterisk = PrivateAsterisk(load_config(tmp_path / "pbx.yml", {}), app="pbx-w1")
    await asterisk.start([ACME])
    port = asterisk.tls_port if transport == "tls" else asterisk.sip_port
    try:
        async with (
            Phone("Alice", tmp_path / "alice", prefix) as alice, Phone("Bob", tmp_path / "bob", prefix) as bob,
        ):
            await alice.start(sound.tone(440, 20))
            await alice.registers(f"acme-101@127.0.0.1:{port}", asterisk.password("acme-101"), transport=transport)
            await bob.start(sound.tone(620, 20))
            await bob.registers(f"acme-102@127.0.0.1:{asterisk.sip_port}", asterisk.password("acme-102"))
            await alice.dials("102")
            await bob.rings()
            await bob.answers()
            await alice.hears_tone(620)
            await bob.hears_tone(440)
            await alice.hangs_up()
            await bob.dials("101")
            await alice.rings()
            await alice.answers()
            await bob.hears_tone(440)
            assert [call.encrypted for call in alice.calls] == [transport == "tls"] * 2
            assert not any(call.encrypted for call in bob.calls)
    finally:
        await asterisk.stop()
