"""Five hundred calls at once upon a time: each has its record, and nothing of them stays behind."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from live import sipp
from live.pbx import running

from pbx.prefix import Prefix

CALLS = 500
PER_SECOND = 20

# Keys 1 and 2 make the PBX hang up, at once and after a while; with key 3 it waits for the caller to do so.
PLAN = """\
tenant: crowd
contract: ooma-wework
country: FR
language: fr
timezone: Europe/Paris
numbers:
  "+33199000200": choice
flows:
  choice:
    - answer
    - menu:
        prompt: "Raccrochez, ou tapez 1, 2 ou 3."
        keys:
          "1": hangup
          "2": {wait: 300ms}
          "3": {wait: 30s}
"""

# Half of the callers leave while the prompt is spoken, press a key that makes the PBX hang up, or do so themselves.
SCENARIO = f"""\
<?xml version="1.0" encoding="UTF-8"?>
<scenario name="a menu, a key, and an end">
  <send retrans="500"><![CDATA[
INVITE sip:+33199000200@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]
From: <sip:[field0]@[local_ip]:[local_port]>;tag=[call_number]
To: <sip:+33199000200@[remote_ip]:[remote_port]>
Call-ID: [call_id]
CSeq: 1 INVITE
Contact: <sip:[field0]@[local_ip]:[local_port]>
Max-Forwards: 70
Content-Type: application/sdp
Content-Length: [len]

{sipp.SDP}
]]></send>
  <recv response="100" optional="true"/>
  <recv response="180" optional="true"/>
  <recv response="183" optional="true"/>
  <recv response="200" rrs="true"/>
  <send next="impatient" chance="0.3"><![CDATA[
ACK [next_url] SIP/2.0
Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]
From: <sip:[field0]@[local_ip]:[local_port]>;tag=[call_number]
To: <sip:+33199000200@[remote_ip]:[remote_port]>[peer_tag_param]
Call-ID: [call_id]
CSeq: 1 ACK
Max-Forwards: 70
Content-Length: 0

]]></send>
  <pause distribution="uniform" min="100" max="3000"/>
  <nop next="key-2" chance="0.33"/>
  <nop next="key-3" chance="0.5"/>

  <nop><action>{sipp.press("1")}</action></nop>
  <nop next="they"/>

  <label id="key-2"/>
  <nop><action>
    {sipp.press("2")}
    <sample assign_to="patience" distribution="uniform" min="100" max="700"/>
  </action></nop>
  <recv request="BYE" timeout="[$patience]" ontimeout="we" next="their-bye"/>

  <label id="key-3"/>
  <nop><action>{sipp.press("3")}</action></nop>
  <label id="impatient"/>
  <pause distribution="uniform" min="0" max="1500"/>

  <label id="we"/>
  <send retrans="500"><![CDATA[
BYE [next_url] SIP/2.0
Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]
From: <sip:[field0]@[local_ip]:[local_port]>;tag=[call_number]
To: <sip:+33199000200@[remote_ip]:[remote_port]>[peer_tag_param]
Call-ID: [call_id]
CSeq: 2 BYE
Max-Forwards: 70
Content-Length: 0

]]></send>
  <recv request="BYE" optional="true" next="both"/>
  <recv response="200" timeout="2000" ontimeout="end" next="end"/>

  <label id="both"/>
  <send><![CDATA[
SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:]
[last_Call-ID:]
[last_CSeq:]
Content-Length: 0

]]></send>
  <recv response="200" timeout="2000" ontimeout="end" next="end"/>

  <label id="they"/>
  <recv request="BYE"/>
  <label id="their-bye"/>
  <send><![CDATA[
SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:]
[last_Call-ID:]
[last_CSeq:]
Content-Length: 0

]]></send>
  <label id="end"/>
  <nop/>
</scenario>
"""


async def test_500_calls_leave_a_record_each_and_nothing_else(tmp_path: Path, prefix: Prefix) -> None:
    plan = tmp_path / "crowd.yml"
    plan.write_text(PLAN)
    callers = [f"+33536490{n:03}" for n in range(CALLS)]
    async with running(tmp_path / "pbx", prefix, plan) as pbx:
        result = await sipp.run(
            SCENARIO, prefix, tmp_path / "sipp", server=pbx.server, callers=callers, per_second=PER_SECOND
        )
        assert (result.successful, result.failed) == (CALLS, 0), result.errors
        await pbx.is_idle()
        records = await pbx.records(CALLS)
        assert Counter(record.caller_number for record in records) == Counter(callers)
        typed = {moment.detail["digits"] for record in records for moment in record.timeline if moment.kind == "typed"}
        assert typed == {"1", "2", "3"}
        assert {record.ended_by for record in records} == {"caller", "engine"}
        assert pbx.problems() == []
        assert list(pbx.asterisk.recordings.iterdir()) == []
