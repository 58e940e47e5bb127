"""What an answered call costs in CPU time: Asterisk alone, and with the engine that decides over ARI.

    PYTHONPATH=tests var/venv/bin/python bench/answered.py [CALLS] [PER_SECOND]

The same caller calls two numbers of one PBX: one is answered by the dialplan of Asterisk (Answer, Wait, Hangup),
the other by a plan (answer, wait, hangup) with record and metrics. Quote the ratio: machines differ and are noisy.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from live import sipp
from live.pbx import ROOT
from live.pbx import Pbx
from live.pbx import running

from pbx.prefix import Prefix

NATIVE, PLANNED = "+33199000301", "+33199000302"
PLAN = f"""\
tenant: bench
country: FR
language: fr
timezone: Europe/Paris
numbers:
  "{PLANNED}": short
flows:
  short:
    - answer
    - wait: 500ms
    - hangup
"""
SCENARIO = """\
<?xml version="1.0" encoding="UTF-8"?>
<scenario name="a call that is answered, and ended by the other side">
  <send retrans="500"><![CDATA[
INVITE sip:{number}@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]
From: <sip:[field0]@[local_ip]:[local_port]>;tag=[call_number]
To: <sip:{number}@[remote_ip]:[remote_port]>
Call-ID: [call_id]
CSeq: 1 INVITE
Contact: <sip:[field0]@[local_ip]:[local_port]>
Max-Forwards: 70
Content-Type: application/sdp
Content-Length: [len]

{sdp}
]]></send>
  <recv response="100" optional="true"/>
  <recv response="180" optional="true"/>
  <recv response="183" optional="true"/>
  <recv response="200" rrs="true"/>
  <send><![CDATA[
ACK [next_url] SIP/2.0
Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]
From: <sip:[field0]@[local_ip]:[local_port]>;tag=[call_number]
To: <sip:{number}@[remote_ip]:[remote_port]>[peer_tag_param]
Call-ID: [call_id]
CSeq: 1 ACK
Max-Forwards: 70
Content-Length: 0

]]></send>
  <recv request="BYE"/>
  <send><![CDATA[
SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:]
[last_Call-ID:]
[last_CSeq:]
Content-Length: 0

]]></send>
</scenario>
"""


@dataclass
class Cost:
    """CPU milliseconds per call."""

    asterisk: float
    engine: float


async def measure(pbx: Pbx, prefix: Prefix, number: str, calls: int, per_second: int) -> Cost:
    before = _cpu_ms(pbx.asterisk_pid), _cpu_ms(pbx.pid)
    result = await sipp.run(
        SCENARIO.format(number=number, sdp=sipp.SDP), prefix, pbx.folder / f"sipp-{number}", server=pbx.server,
        callers=[f"+336399{n:05}" for n in range(calls)], per_second=per_second,
    )
    if result.failed:
        raise SystemExit(f"{result.failed} of {calls} calls failed:\n{result.errors}")
    await pbx.is_idle()
    after = _cpu_ms(pbx.asterisk_pid), _cpu_ms(pbx.pid)
    return Cost((after[0] - before[0]) / calls, (after[1] - before[1]) / calls)


def _cpu_ms(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


async def main(calls: int, per_second: int) -> None:
    prefix = Prefix(ROOT / "var" / "asterisk")
    with tempfile.TemporaryDirectory(prefix="pbx-bench-") as folder:
        plan = Path(folder) / "bench.yml"
        plan.write_text(PLAN, "utf-8")
        async with running(Path(folder) / "pbx", prefix, plan) as pbx:
            for priority, application in enumerate(("Answer()", "Wait(0.5)", "Hangup()"), 1):
                await pbx.asterisk_cli(f"dialplan add extension {NATIVE},{priority},{application} into from-trunk")
            for number in (NATIVE, PLANNED):  # warm
                await measure(pbx, prefix, number, 20, per_second)
                (pbx.folder / f"sipp-{number}").rename(pbx.folder / f"warm-{number}")
            native = await measure(pbx, prefix, NATIVE, calls, per_second)
            planned = await measure(pbx, prefix, PLANNED, calls, per_second)
    total = planned.asterisk + planned.engine
    print(f"{calls} calls at {per_second} per second; CPU ms per call")
    print(f"  dialplan alone   Asterisk {native.asterisk:5.2f}")
    print(f"  engine and plan  Asterisk {planned.asterisk:5.2f}  engine {planned.engine:5.2f}  together {total:5.2f}")
    print(f"  ratio {total / native.asterisk:.2f}")


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:]]
    asyncio.run(main(*(arguments + [1000, 50][len(arguments):])))
