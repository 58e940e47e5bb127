"""A thousand callers at once, who do what callers do, in fifty orders of events: one record each, and nothing left."""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import pytest
from office import Office
from office import office

from pbx.simulator import Behaviour
from pbx.simulator import Party
from pbx.simulator import announces
from pbx.simulator import answers
from pbx.simulator import busy
from pbx.simulator import refuses
from pbx.simulator import rings
from pbx.simulator import run
from pbx.simulator import silent

CALLERS = 1_000
SEEDS = range(50)
LINES = [str(number) for number in range(201, 231)]
COMPANY, DIRECT, UNKNOWN = "+33199000100", "+33199000101", "+33199000999"

PLAN = f"""\
tenant: acme
country: FR
language: fr
timezone: Europe/Paris
lines:
{"".join(f'''  "{line}": {{name: Line {line}, for: 12s, voicemail: {{pin: "4711"}}}}
''' for line in LINES)}
groups:
  sales: {{ring: all, lines: ["201", "202", "203", "204"], for: 10s}}
  support: {{ring: in order, lines: ["205", "206"], for: 6s}}
numbers:
  "{COMPANY}": welcome
  "{DIRECT}": {{line: "201"}}
flows:
  welcome:
    - set: {{extension: ""}}
    - ring
    - wait: 500ms
    - menu:
        prompt: "Pour le commercial, tapez 1. Pour le support, tapez 2."
        keys:
          "1": [{{dial: sales}}, {{voicemail: "201"}}]
          "2": {{dial: {{to: support, busy: {{say: Occupé}}, no_answer: {{voicemail: "205"}}}}}}
          "3": {{ask: {{prompt: "Quel poste ?", into: extension, max: 3}}}}
          "4":
            - record: memo
            - menu: {{prompt: ["Vous avez dit :", {{recording: memo}}], keys: {{"1": hangup}}}}
        otherwise: {{voicemail: "202"}}
    - if: {{when: extension != "", then: {{dial: "{{extension}}"}}}}
    - reject: busy
"""


def _behaviour(chance: random.Random) -> Behaviour:
    return chance.choice([
        answers(chance.uniform(0.1, 9), leaves=chance.choice([None, 0.0, 0.001, 3.0, 20.0])), answers(2.0, leaves=10.0),
        busy(), refuses(603, chance.random()), refuses(404), refuses(480), rings(), silent(),
        announces(then=chance.choice([200, 486]), for_s=chance.uniform(0.1, 5)),
    ])


def _caller(company: Office, chance: random.Random) -> Party:
    """Somebody who calls, types what he likes, and hangs up when he likes, but at the latest after 90 seconds."""
    if chance.random() < 0.3:
        dialled = chance.choice([*LINES, "*98", "0199000177", "17", "999"])
        party = company.asterisk.call(f"acme-{chance.choice(LINES)}", dialled)
    else:
        dialled = chance.choice([COMPANY, COMPANY, COMPANY, DIRECT, UNKNOWN])
        party = company.asterisk.call("trunk-x", dialled, caller="+33199000177")
    party.speaks_s = chance.choice([None, 1.0, 5.0])
    for _ in range(chance.randint(0, 3)):
        party.press(chance.choice("1234*#") + chance.choice(["", "201", "#"]), after=chance.uniform(0, 15))
    party.hang_up(after=chance.choice([chance.uniform(0, 0.05), chance.uniform(0, 10), chance.uniform(0, 60), 90]))
    return party


async def storm(plan: Path, seed: int, callers: int) -> Counter[str]:
    """Lets so many callers loose within two seconds; gives how often each outcome came."""
    chance = random.Random(seed)
    async with office(plan, seed) as company:
        for line in LINES:
            company.asterisk.handset(f"acme-{line}", _behaviour(chance), registered=chance.random() < 0.9)
        company.asterisk.handset("trunk-x", _behaviour(chance))
        parties: list[Party] = []
        for _ in range(callers):
            parties.append(_caller(company, chance))
            await asyncio.sleep(chance.uniform(0, 4 / callers))
        most = len(company.engine.calls)
        await asyncio.gather(*(party.over() for party in parties))
        await company.quiet()
        records = await company.records()
    arrived = [party for party in parties if party.channel.entered]
    assert len(records) == len({record.id for record in records}) == len(arrived)
    assert most > callers / 2
    for record in records:
        assert record.ended_at is not None and record.outcome and record.ended_by
        assert all(leg.ended_at is not None and leg.outcome for leg in record.legs)
        strange = [moment for moment in record.timeline if moment.kind in ("failed", "unconfirmed", "hangup_failed")]
        assert strange == []
    return Counter(record.outcome for record in records)


async def storm_with_cuts(plan: Path, seed: int, callers: int) -> None:
    """The event stream is cut again and again: calls live on, and what ended unheard is found out."""
    chance = random.Random(seed)
    async with office(plan, seed) as company:
        for line in LINES:
            company.asterisk.handset(f"acme-{line}", _behaviour(chance))
        company.asterisk.handset("trunk-x", _behaviour(chance))
        parties: list[Party] = []
        for _ in range(callers):
            parties.append(_caller(company, chance))
            await asyncio.sleep(chance.uniform(0, 120 / callers))
            if chance.random() < 0.1:
                company.asterisk.cut()
        await asyncio.gather(*(party.over() for party in parties))
        await company.quiet()
        records = await company.records()
    # Whose arrival was lost in a cut got no call: the engine released that channel when it was back.
    heard_of = sum(party.channel.entered for party in parties)
    assert heard_of * 0.8 < len(records) <= heard_of
    for record in records:
        assert record.ended_at is not None and record.outcome and record.ended_by
        assert all(leg.ended_at is not None and leg.outcome for leg in record.legs)


@pytest.mark.parametrize("seed", range(10))
def test_calls_survive_cuts_of_the_event_stream(plan: Path, seed: int) -> None:
    run(storm_with_cuts(plan, seed, 200))


def weather(plan: Path, seed: int) -> Counter[str]:
    """One storm, in a process of its own: the collector of garbage may wait until it is over."""
    gc.disable()
    try:
        return run(storm(plan, seed, CALLERS))
    except BaseException as error:
        error.add_note(f"with seed {seed}")
        raise
    finally:
        gc.collect()


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    file = tmp_path / "acme.yml"
    file.write_text(PLAN)
    return file


def test_a_storm_leaves_one_record_per_call_and_nothing_else(plan: Path) -> None:
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as processors:
        for outcomes in processors.map(weather, repeat(plan), SEEDS):
            assert {"abandoned", "answered", "voicemail"} <= set(outcomes)
