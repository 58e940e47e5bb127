"""A company for stories of steps: its plan has all one needs, and the story says what the company number does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from textwrap import dedent
from textwrap import indent

from office import Office

from pbx.simulator import Party
from pbx.store import CallRecord

COMPANY = "+33199000100"
CALLER = "+33199000177"

_PLAN = """\
tenant: acme
country: FR
{language}
timezone: Europe/Paris
sites:
  paris: {{number: "+33199000100", outside_prefix: "0"}}
lines:
  "101": {{name: Alice Martin, number: "+33199000101", for: 10s, voicemail: {{pin: "4711"}}}}
  "102": {{name: Bob Durand, for: 10s}}
  "103": {{name: Chloé Petit, for: 10s}}
groups:
  sales: {{lines: ["101", "102"], for: 12s}}
  team: {{lines: ["101", "102"], ring: in order, for: 5s}}
hours:
  office: {{weekdays: "09:00-18:00"}}
voicemail:
  desk: {{pin: "2580", lines: ["101", "103"], min: 1s}}
numbers:
  "+33199000100": welcome
  "200": {{group: sales}}
  "300": welcome
flows:
  welcome:
{steps}
{flows}
"""


def plan(folder: Path, steps: str, *, flows: str = "", language: str = "language: fr") -> Path:
    """Writes the plan in which the company number does these steps; `flows` are more flows, as in YAML."""
    path = folder / "acme.yml"
    written = {"steps": _block(steps, 4), "flows": _block(flows, 2), "language": language}
    path.write_text(_PLAN.format(**written), encoding="utf-8")
    return path


def _block(text: str, spaces: int) -> str:
    return indent(dedent(text).strip("\n"), " " * spaces)


def calls(company: Office, *, caller: str = CALLER, dialled: str = COMPANY) -> Party:
    """Somebody calls the company from outside."""
    return company.asterisk.call("trunk-x", dialled, caller=caller)


async def record_of(company: Office) -> CallRecord:
    """The record of the only call, once it has ended."""
    while not await company.records():
        await asyncio.sleep(1)
    await company.quiet()
    (record,) = await company.records()
    return record


def noted(record: CallRecord, kind: str) -> list[dict[str, object]]:
    """What the timeline says about something."""
    return [moment.detail for moment in record.timeline if moment.kind == kind]
