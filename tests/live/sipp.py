"""Scripted SIP in great numbers: runs a scenario of SIPp against a server, and tells what came of its calls."""

from __future__ import annotations

import asyncio
import csv
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pbx.ports import free_port
from pbx.prefix import Prefix

# What a scenario offers: A-law, and keys as RFC 4733 events.
SDP = """\
v=0
o=- 1 1 IN IP4 [local_ip]
s=-
c=IN IP4 [media_ip]
t=0 0
m=audio [rtpstream_audio_port] RTP/AVP 8 98
a=rtpmap:8 PCMA/8000
a=rtpmap:98 telephone-event/8000
a=fmtp:98 0-15
"""

_KEYS = "0123456789*#"
_PATIENCE_MS = 10_000  # for a message that must come
_BESIDES = 60.0  # seconds that a run may take beyond the time its calls need to be placed


@dataclass(frozen=True)
class Result:
    """How the calls went, as SIPp sees them. `errors` is what it logged."""

    successful: int
    failed: int
    errors: str


def press(key: str) -> str:
    """The action that presses a key (0-9 * #)."""
    # SIPp's own play_dtmf writes to a raw socket, which only root may open. But it streams files over ordinary ones,
    # and 50 bytes are a packet of iLBC to it: one that begins or ends an event for whoever takes 98 for events.
    return f'<exec rtp_stream="key-{_KEYS.index(key)}.raw,1,98,iLBC/8000"/>'


async def run(
    scenario: str, prefix: Prefix, folder: Path, *, server: str, callers: Sequence[str], per_second: int
) -> Result:
    """Places one call per caller to `server`; the scenario (XML) knows its caller's number as [field0]."""
    folder.mkdir(parents=True)
    (folder / "scenario.xml").write_text(scenario)
    (folder / "callers.csv").write_text("SEQUENTIAL\n" + "".join(f"{caller};\n" for caller in callers))
    for event in range(len(_KEYS)):
        begin, end = (struct.pack("!BBH46x", event, flags, duration) for flags, duration in ((0x0A, 160), (0x8A, 800)))
        (folder / f"key-{event}.raw").write_bytes(begin + end)
    port = free_port("127.0.0.1", ("udp",))
    time = len(callers) / per_second + _BESIDES
    options = {
        "-sf": "scenario.xml", "-inf": "callers.csv", "-m": len(callers), "-r": per_second, "-l": 10 * per_second,
        "-i": "127.0.0.1", "-p": port, "-mi": "127.0.0.1", "-min_rtp_port": 20000, "-max_rtp_port": 29999,
        "-timeout": f"{time:.0f}s",
        # A message that comes while another is being sent is no failure; one that does not come is.
        "-default_behaviors": "all,-abortunexp", "-recv_timeout": _PATIENCE_MS,
        "-stf": "statistics.csv", "-fd": 1, "-error_file": "errors.log",
    }
    words = [str(word) for option in options.items() for word in option]
    with (folder / "screen").open("wb") as screen:
        process = await asyncio.create_subprocess_exec(
            *prefix.command("sipp"), server, *words, "-trace_stat", "-trace_err", "-nostdin", "-timeout_error",
            stdin=asyncio.subprocess.DEVNULL, stdout=screen, stderr=screen, cwd=folder,
            env={**os.environ, "TERM": "dumb"},
        )
        try:
            await asyncio.wait_for(process.wait(), time + _BESIDES)
        except BaseException:
            process.kill()
            await process.wait()
            raise
    assert (folder / "statistics.csv").exists(), (folder / "screen").read_text(errors="replace")[-2000:]
    with (folder / "statistics.csv").open() as file:
        last = list(csv.DictReader(file, delimiter=";"))[-1]
    log = folder / "errors.log"
    errors = log.read_text(errors="replace") if log.exists() else ""
    return Result(int(last["SuccessfulCall(C)"]), int(last["FailedCall(C)"]), errors)
