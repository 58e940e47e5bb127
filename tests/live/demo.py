"""`./run demo`: places real calls on a PBX of its own, on free ports, and checks what the people in them see and hear.

Exit status 0 when every check holds, else 1. With --json the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from live.pbx import ROOT
from live.pbx import Pbx
from live.pbx import running
from live.phone import Phone
from live.sound import search
from live.sound import silence
from live.sound import tone

from pbx.__main__ import story as timeline
from pbx.prefix import Prefix
from pbx.store import CallRecord

PLAN = ROOT / "dialplans" / "acme.yml"
COMPANY = "+33199000100"
ALICE_HZ, BOB_HZ, CALLER_HZ = 440, 520, 620

WELCOME = "Bonjour, vous êtes bien chez Acme."
MENU = "Pour le service commercial, tapez 1. Pour le support, tapez 2. Pour nos horaires, tapez 3."
BUSY = "Notre technicien est déjà en ligne."
ALICE_IS_OUT = "Bonjour, vous êtes sur la messagerie d'Alice Martin. Laissez un message après le bip."

METRICS = (
    "pbx_calls_total", "pbx_legs_total", "pbx_calls_now", "pbx_records_written_total", "pbx_asterisk_up",
    "pbx_ari_event_lag_seconds_sum", "pbx_ari_event_lag_seconds_count",
)


class Checks:
    """Counts what held, and names what did not. A story ends at its first check that fails; the others go on."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed: list[str] = []
        self.records: list[CallRecord] = []
        self._began = time.monotonic()

    @contextlib.contextmanager
    def that(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.failed.append(what)
            self._tell("FAILED", what)
            print(f"{type(error).__name__}: {error}", flush=True)
            raise Abandoned from error
        self.passed += 1
        self._tell("ok", what)

    def _tell(self, verdict: str, what: str) -> None:
        print(f"  {time.monotonic() - self._began:5.1f} s  {verdict:<7} {what}", flush=True)


class Abandoned(Exception):
    """A check failed and was told; the rest of its story makes no sense."""


@dataclass
class Scene:
    """What the stories share."""

    pbx: Pbx
    checks: Checks
    alice: Phone
    bob: Phone
    alice_is_free: asyncio.Event


Story = Callable[[Scene], Awaitable[CallRecord]]


async def key_1_reaches_alice(scene: Scene) -> CallRecord:
    pbx, checks, alice = scene.pbx, scene.checks, scene.alice
    call = await pbx.carrier.calls(COMPANY, playing=tone(CALLER_HZ, 60))
    with checks.that("a caller from the carrier hears the company's greeting"):
        await call.hears(await pbx.spoken(WELCOME))
    with checks.that("then the menu, from its first to its last word"):
        await call.hears(await pbx.spoken(MENU))
    await scene.alice_is_free.wait()
    await call.presses("1")
    with checks.that("key 1 makes handset 101 ring"):
        await alice.rings()
    await alice.answers()
    with checks.that("the caller hears Alice's tone"):
        await call.hears_tone(ALICE_HZ)
    with checks.that("Alice hears the caller's tone"):
        await alice.hears_tone(CALLER_HZ)
    await call.hangs_up()
    with checks.that("when the caller hangs up, Alice's handset is free again"):
        await alice.is_released()
    with checks.that("the record tells that Alice answered and the caller hung up"):
        record = await pbx.record(call.name)
        answered = [leg.target for leg in record.legs if leg.outcome == "answered"]
        assert (record.outcome, record.ended_by, answered) == ("answered", "caller", ["101"]), record
    return record


async def the_caller_leaves_in_the_menu(scene: Scene) -> CallRecord:
    pbx, checks = scene.pbx, scene.checks
    call = await pbx.carrier.calls(COMPANY)
    await call.hears(await pbx.spoken(WELCOME))
    with checks.that("another caller hears the beginning of the menu"):
        await call.hears((await pbx.spoken(MENU)).first(1.5))
    await call.hangs_up()
    with checks.that("he hangs up in the middle of it, and the record tells so"):
        record = await pbx.record(call.name)
        assert (record.ended_by, record.legs) == ("caller", []), record
    return record


async def nobody_answers_and_voicemail_takes_the_call(scene: Scene) -> CallRecord:
    pbx, checks, alice = scene.pbx, scene.checks, scene.alice
    words = (await pbx.prompt("vm-review", "fr")).first(3.0)
    try:
        with checks.that("Alice's message lamp is dark"):
            await alice.lamp_shows(new=0)
        call = await pbx.carrier.calls(COMPANY, playing=silence(1))
        await call.is_connected()
        await call.presses("1")
        with checks.that("key 1, typed ahead, makes handset 101 ring"):
            await alice.rings()
        with checks.that("nobody answers, and it stops ringing"):
            await alice.is_released()
    finally:
        scene.alice_is_free.set()
    with checks.that("the caller hears Alice's voicemail greeting"):
        await call.hears(await pbx.spoken(ALICE_IS_OUT))
    with checks.that("and the beep"):
        await call.hears(await pbx.prompt("beep"))
    await call.says(words)
    await call.hangs_up()
    with checks.that("the lamp of handset 101 shows one new message"):
        await alice.lamp_shows(new=1)
    with checks.that("the message is in Alice's box, from this caller"):
        [message] = await pbx.messages("101")
        assert message.caller_number == call.name, message
    with checks.that("its recording holds the caller's words"):
        match = search(words, pbx.recording(message))
        assert match.found, match
    with checks.that("the record tells of voicemail"):
        record = await pbx.record(call.name)
        assert record.outcome == "voicemail", record
    return record


async def bob_is_busy(scene: Scene) -> CallRecord:
    pbx, checks, bob = scene.pbx, scene.checks, scene.bob
    call = await pbx.carrier.calls(COMPANY)
    await call.is_connected()
    await call.presses("2")
    with checks.that("key 2 makes handset 102 ring"):
        await bob.rings()
    await bob.rejects()
    with checks.that("Bob is busy, and the caller is told so"):
        await call.hears(await pbx.spoken(BUSY))
    await call.hangs_up()
    with checks.that("the record tells that Bob was busy"):
        record = await pbx.record(call.name)
        assert [(leg.target, leg.outcome) for leg in record.legs] == [("102", "busy")], record
    return record


async def alice_calls_bob(scene: Scene) -> CallRecord:
    pbx, checks, alice, bob = scene.pbx, scene.checks, scene.alice, scene.bob
    await alice.dials("102")
    with checks.that("Alice dials 102 and Bob's handset rings"):
        await bob.rings()
    await bob.answers()
    with checks.that("Alice hears Bob's tone"):
        await alice.hears_tone(BOB_HZ)
    with checks.that("Bob hears Alice's tone"):
        await bob.hears_tone(ALICE_HZ)
    await bob.hangs_up()
    with checks.that("when Bob hangs up, Alice's handset is free again"):
        await alice.is_released()
    with checks.that("the record tells of an internal call that Bob ended"):
        record = await pbx.record("101")
        assert (record.direction, record.outcome, record.ended_by) == ("internal", "answered", "callee"), record
    return record


AT_THE_SAME_TIME: tuple[Story, ...] = (
    nobody_answers_and_voicemail_takes_the_call, key_1_reaches_alice, bob_is_busy, the_caller_leaves_in_the_menu,
)


async def demonstrate(pbx: Pbx, checks: Checks) -> None:
    alice = await pbx.handset("101", playing=tone(ALICE_HZ, 60))
    bob = await pbx.handset("102", playing=tone(BOB_HZ, 60))
    scene = Scene(pbx, checks, alice, bob, asyncio.Event())
    await asyncio.gather(*(_told(story, scene) for story in AT_THE_SAME_TIME))
    await _told(alice_calls_bob, scene)
    await pbx.everybody_leaves()
    with contextlib.suppress(Abandoned), checks.that("no call, channel or bridge is left"):
        await pbx.is_idle()
    with contextlib.suppress(Abandoned), checks.that("every call has one record"):
        records = await pbx.store.calls()
        assert len(records) == len(AT_THE_SAME_TIME) + 1, records
    with contextlib.suppress(Abandoned), checks.that("no log tells of an error"):
        assert not pbx.problems(), "\n".join(pbx.problems())


async def _told(story: Story, scene: Scene) -> None:
    with contextlib.suppress(Abandoned):
        try:
            scene.checks.records.append(await story(scene))
        except AssertionError as error:
            # No check of its own, but something that had to work on the way.
            with scene.checks.that(story.__name__.replace("_", " ")):
                raise error


async def _report(pbx: Pbx, checks: Checks) -> None:
    print("\nThe calls, as the PBX tells them:")
    checks.records.sort(key=lambda record: record.started_at)
    for record in checks.records:
        # The plan is a copy, line by line, of the one that the reader has.
        print("\n" + timeline(record).replace(f"{pbx.folder / 'plans'}/", "dialplans/"))
    print("\nThe records:")
    for record in checks.records:
        legs = ", ".join(f"{leg.target} {leg.outcome}" for leg in record.legs) or "nobody was called"
        print(f"  {record.id}  {record.direction:<9} {record.caller_number:>13} -> {record.dialled:<13}"
              f" {record.outcome:<10} {record.duration_ms / 1000:5.1f} s  {legs}")
    print("\nSome metrics:")
    for name, value in (await pbx.metrics()).items():
        if name.partition("{")[0] in METRICS:
            print(f"  {name} {value:g}")


async def run(checks: Checks) -> None:
    folder = Path(tempfile.mkdtemp(prefix="pbx-demo-"))
    prefix = Prefix(ROOT / "var" / "asterisk")
    print(f"A PBX with {PLAN.relative_to(ROOT)} starts. Its telephones ring for 3 s, not for as long as the plan says.")
    with contextlib.suppress(Abandoned), checks.that("the PBX starts, and stops without leaving a process or a port"):
        async with running(folder / "pbx", prefix, PLAN, rings_for="3s") as pbx:
            print(f"It runs: SIP on {pbx.server}.", flush=True)
            await demonstrate(pbx, checks)
            await _report(pbx, checks)
            print()
    if checks.failed:
        print(f"Logs and recordings are kept in {folder}")
    else:
        shutil.rmtree(folder)


def summary(checks: Checks) -> dict[str, Any]:
    calls = [
        {
            "id": record.id, "direction": record.direction, "from": record.caller_number, "to": record.dialled,
            "outcome": record.outcome, "ended_by": record.ended_by, "duration_ms": record.duration_ms,
            "legs": [{"to": leg.target, "outcome": leg.outcome} for leg in record.legs],
        }
        for record in checks.records
    ]
    count = checks.passed + len(checks.failed)
    return {"ok": not checks.failed, "checks": count, "failed": checks.failed, "calls": calls}


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run demo", description=__doc__)
    parser.add_argument("--json", action="store_true", help="end with one JSON object on the last line")
    options = parser.parse_args()
    checks = Checks()
    try:
        asyncio.run(run(checks))
    except KeyboardInterrupt:
        return 130
    result = summary(checks)
    if checks.failed:
        print(f"{len(checks.failed)} of {result['checks']} checks failed: {'; '.join(checks.failed)}")
    else:
        print(f"All {result['checks']} checks hold.")
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
