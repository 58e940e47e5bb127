"""The gate: what policies say is done to every leg but those of emergencies, and is told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from office import Office
from office import office
from plans import calls
from plans import noted
from plans import plan
from plans import record_of
from switchboard import in_every_order

from pbx import metrics
from pbx.clock import SystemClock
from pbx.contract import Profile
from pbx.leg import Cause
from pbx.policy import FAILED
from pbx.policy import Announcement
from pbx.policy import Kind
from pbx.policy import LegRequest
from pbx.policy import LiveLeg
from pbx.policy import Model
from pbx.policy import Policy
from pbx.policy import Tenant
from pbx.policy import build_policies
from pbx.simulator import Handset
from pbx.simulator import Party
from pbx.simulator import answers
from pbx.simulator import rings
from pbx.simulator import virtual
from pbx.store import CallRecord
from pbx.store import MemoryStore
from pbx.yamlfile import Problems
from pbx.yamlfile import parse

PROFILE = """\
name: strict
version: "1"
valid_from: "2026-01-01"
country: FR
documents:
  terms: {title: Terms, whose: Provider, language: fr}
rules:
  - rule: R8
    clause: {document: terms, section: "3(b)"}
    says: {fr: Un appel court., en: A short call.}
    policy: abuse
    settings: {limit: "20"}
    announcement: {fr: Trop d'appels., en: Too many calls.}
  - rule: R5
    clause: {document: terms, section: "4"}
    says: {fr: Personne., en: Nobody.}
    policy: lists
    settings: {limit: "30"}
"""
REFUSED = "Trop d'appels."
CANNOT = "Cet appel ne peut pas être établi pour le moment. Veuillez réessayer dans quelques minutes."
OUTSIDE = "+33199000199"


def profile(text: str = PROFILE) -> Profile:
    return parse(text, "strict.yml", Profile)


class Limit(Model):
    limit: int


class Open(Policy[Limit]):
    """Lets every leg pass, and remembers what it was asked and told."""

    settings = Limit

    def __init__(self, terms: object) -> None:
        super().__init__(terms)  # type: ignore[arg-type]
        self.requests: list[LegRequest] = []
        self.told: list[str] = []

    async def admit(self, request: LegRequest) -> LegRequest:
        self.requests.append(request)
        return request

    def dropped(self, request: LegRequest) -> None:
        self.told.append(f"dropped {request.target}")

    def answered(self, leg: LiveLeg) -> None:
        self.told.append(f"answered {leg.request.target}")

    def ended(self, leg: LiveLeg) -> None:
        assert leg.ended_at is not None
        self.told.append(f"ended {leg.request.target} after {(leg.ended_at - leg.answered_at).total_seconds():.1f} s")


class Refusing(Open):
    async def admit(self, request: LegRequest) -> LegRequest:
        raise self.refusal("limit", cause=Cause.BUSY)


class RefusingOutside(Open):
    async def admit(self, request: LegRequest) -> LegRequest:
        if request.outside:
            raise self.refusal("limit")
        return await super().admit(request)


class Narrowing(Open):
    """Twenty seconds, with a warning ten seconds before."""

    async def admit(self, request: LegRequest) -> LegRequest:
        return replace(request, max_ms=self.terms.settings.limit * 1000)

    def answered(self, leg: LiveLeg) -> None:
        super().answered(leg)
        end = leg.answered_at + timedelta(seconds=self.terms.settings.limit)
        leg.end_at(end, clause="limit", warnings={10_000: Announcement("Dix secondes.", "Ten seconds.")})


class Widening(Open):
    async def admit(self, request: LegRequest) -> LegRequest:
        return replace(request, max_ms=None)


class Raising(Open):
    async def admit(self, request: LegRequest) -> LegRequest:
        raise LookupError("nothing there")


class Hanging(Open):
    async def admit(self, request: LegRequest) -> LegRequest:
        await asyncio.Event().wait()
        return request


class Stubborn(Open):
    """Does not let itself be cancelled, and says yes when nobody listens any more."""

    async def admit(self, request: LegRequest) -> LegRequest:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
        return await super().admit(request)


class Deaf(Open):
    """Fails over every notice."""

    def dropped(self, request: LegRequest) -> None:
        raise RuntimeError("dropped")

    def answered(self, leg: LiveLeg) -> None:
        raise RuntimeError("answered")

    def ended(self, leg: LiveLeg) -> None:
        raise RuntimeError("ended")


def policies(company: Office) -> list[Open]:
    return list(company.gate._policies["acme"])  # type: ignore[arg-type]


def verdicts(record: CallRecord) -> list[tuple[object, object]]:
    return [(moment["verdict"], moment.get("clause")) for moment in noted(record, "policy")]


def call_outside(company: Office) -> Party:
    return company.asterisk.call("acme-101", "0199000199")


def outside_phone(company: Office, leaves: float | None = None) -> Handset:
    """Whoever is called through the trunk."""
    return company.asterisk.handset("trunk-x", answers(after=2, leaves=leaves))


@virtual
async def test_a_leg_that_all_allow_rings_and_all_hear_of_its_talk(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "- hangup"), contract=profile(), kinds={"abuse": Open, "lists": Open}) as company:
        outside_phone(company, leaves=30)
        await call_outside(company).over()
        record = await record_of(company)
        assert [leg.outcome for leg in record.legs] == ["answered"]
        for policy in policies(company):
            (request,) = policy.requests
            assert (request.tenant, request.line, request.target, request.outside) == ("acme", "101", OUTSIDE, True)
            assert (request.direction, request.caller.number) == ("outbound", "+33199000101")
            assert policy.told == [f"answered {OUTSIDE}", f"ended {OUTSIDE} after 30.0 s"]
        assert noted(record, "policy") == [
            {"verdict": "admitted", "target": OUTSIDE, "by": ["abuse", "lists"], "max_ms": None}
        ]


@virtual
async def test_a_leg_goes_out_on_behalf_of_the_line_that_calls_or_else_of_the_tenant(tmp_path: Path) -> None:
    """A call from outside that is sent on to outside is the tenant's; a handset of our own is not outside."""
    steps = f'- dial: ["{OUTSIDE}", sales]'
    async with office(plan(tmp_path, steps), contract=profile(), kinds={"abuse": Open}) as company:
        await calls(company).over()
        await company.asterisk.call("acme-103", "100").over()
        await company.asterisk.call("acme-103", "200").over()
        asked = [(one.line, one.target, one.outside, one.direction) for one in policies(company)[0].requests]
        assert sorted(asked) == sorted([
            ("", OUTSIDE, True, "inbound"), ("", "101", False, "inbound"), ("", "102", False, "inbound"),
            ("103", "101", False, "internal"), ("103", "102", False, "internal"),
        ])


def test_a_forbidden_call_is_never_made_and_the_caller_hears_why(tmp_path: Path) -> None:
    async def story(seed: int) -> None:
        kinds: dict[str, Kind] = {"abuse": Refusing, "lists": Open}
        async with office(plan(tmp_path, "- hangup"), seed, contract=profile(), kinds=kinds) as company:
            phone = outside_phone(company)
            caller = call_outside(company)
            await caller.over()
            assert caller.sounds == [f"sound:fr/{REFUSED}"] and caller.cause == Cause.BUSY and phone.calls == []
            assert caller.answered_at is None
            record = await record_of(company)
            (leg,) = record.legs
            assert (leg.outcome, leg.cause) == ("refused", Cause.BUSY) and record.outcome == "refused"
            assert verdicts(record) == [("refused", "R8, terms 3(b)")]
            assert policies(company)[1].requests == []

    in_every_order(story)


@virtual
async def test_who_was_asked_before_the_refusal_hears_of_it(tmp_path: Path) -> None:
    kinds: dict[str, Kind] = {"abuse": Open, "lists": Refusing}
    async with office(plan(tmp_path, "- hangup"), contract=profile(), kinds=kinds) as company:
        caller = call_outside(company)
        await caller.over()
        assert caller.sounds == ["sound:fr/Votre contrat ne permet pas cet appel."]
        assert policies(company)[0].told == [f"dropped {OUTSIDE}"]


@virtual
async def test_a_leg_that_nobody_answers_is_dropped(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "- dial: sales"), contract=profile(), kinds={"abuse": Open}) as company:
        company.asterisk.handset("acme-101", rings())
        company.asterisk.handset("acme-102", answers(after=3, leaves=4))
        await calls(company).over()
        await company.quiet()
        assert sorted(policies(company)[0].told) == ["answered 102", "dropped 101", "ended 102 after 4.0 s"]


@virtual
async def test_where_one_leg_is_forbidden_the_others_ring(tmp_path: Path) -> None:
    steps = f'- dial: {{to: ["{OUTSIDE}", "102"], for: 5s, no_answer: {{say: Absent}}}}'
    async with office(plan(tmp_path, steps), contract=profile(), kinds={"abuse": RefusingOutside}) as company:
        company.asterisk.handset("acme-102", rings())
        caller = calls(company)
        await caller.over()
        assert caller.sounds == ["ringing", "sound:fr/Absent"]


@pytest.mark.parametrize("kind", [Raising, Hanging, Stubborn, Widening])
def test_a_policy_that_fails_or_is_late_forbids_the_call(
    tmp_path: Path, kind: type[Open], caplog: pytest.LogCaptureFixture
) -> None:
    verdict = "late" if kind in (Hanging, Stubborn) else "failed"
    kinds: dict[str, Kind] = {"abuse": Narrowing, "lists": kind}
    counted = metrics.policy_decisions.labels("lists", verdict)
    before = counted._value.get()

    @virtual
    async def story() -> None:
        async with office(plan(tmp_path, "- hangup"), contract=profile(), kinds=kinds) as company:
            caller = call_outside(company)
            await caller.over()
            assert caller.sounds == [f"sound:fr/{CANNOT}"] and caller.cause == Cause.TEMPORARY_FAILURE
            record = await record_of(company)
            assert verdicts(record) == [("narrowed", None), (verdict, FAILED)]
            assert policies(company)[0].told == [f"dropped {OUTSIDE}"]
            await asyncio.sleep(10)
            # One that says yes too late learns that the leg was not made.
            assert policies(company)[1].told == ([f"dropped {OUTSIDE}"] if kind is Stubborn else [])

    story()
    assert counted._value.get() == before + 1
    assert "policy lists of acme" in caplog.text


@virtual
async def test_notices_that_fail_harm_neither_the_call_nor_others(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "- hangup"), contract=profile(), kinds={"abuse": Deaf, "lists": Open}) as company:
        outside_phone(company, leaves=5)
        await call_outside(company).over()
        await company.quiet()
        assert policies(company)[1].told == [f"answered {OUTSIDE}", f"ended {OUTSIDE} after 5.0 s"]


@pytest.mark.parametrize("kind", [Refusing, Raising, Hanging, Stubborn])
def test_an_emergency_call_goes_out_whatever_the_policies_do(tmp_path: Path, kind: Kind) -> None:
    @virtual
    async def story() -> None:
        async with office(plan(tmp_path, "- hangup"), contract=profile(), kinds={"abuse": kind}) as company:
            company.asterisk.handset("trunk-x", answers(after=0.1, leaves=60))
            caller = company.asterisk.call("acme-101", "112")
            await caller.answered()
            assert company.asterisk.time() < 1
            assert (await caller.meets()).address == "112@trunk-x"
            await caller.over()
            record = await record_of(company)
            assert noted(record, "policy") == []

    story()


# -- the end of a talk --------------------------------------------------------------------------


def test_a_talk_ends_at_its_limit_after_a_warning_to_the_caller_alone(tmp_path: Path) -> None:
    async def story(seed: int) -> None:
        async with office(plan(tmp_path, "- hangup"), seed, contract=profile(), kinds={"abuse": Narrowing}) as company:
            phone = outside_phone(company)
            caller = call_outside(company)
            callee = await phone.rung()
            await caller.hears("sound:fr/Dix secondes.")
            assert callee.answered_at is not None
            assert company.asterisk.time() - callee.answered_at == pytest.approx(10, abs=0.1)
            # What ends the talk if nobody does is in Asterisk's own hands by then.
            assert float(callee.channel.variables["TIMEOUT(absolute)"]) == pytest.approx(20.25, abs=0.05)
            await caller.over()
            assert callee.ended_at is not None and callee.ended_at - callee.answered_at == pytest.approx(20, abs=0.1)
            assert callee.sounds == []
            record = await record_of(company)
            assert record.ended_by == "engine" and record.legs[0].ended_by == "engine"
            assert verdicts(record)[-1] == ("ended", "max_ms")
            assert [moment["target"] for moment in noted(record, "warned")] == [OUTSIDE]

    in_every_order(story)


class Mover(Open):
    """Moves the end about: far away, near, away again, and lifts it."""

    def answered(self, leg: LiveLeg) -> None:
        words = {10_000: Announcement("Dix secondes.", "Ten seconds.")}

        def end(after: float | None) -> None:
            when = None if after is None else leg.answered_at + timedelta(seconds=after)
            leg.end_at(when, clause="moving", warnings=words)

        for at, after in ((0.0, 600.0), (5.0, 20.0), (12.0, 300.0), (290.1, 305.0), (301.0, None)):
            asyncio.get_running_loop().call_later(at, end, after)


@virtual
async def test_an_end_can_be_moved_and_lifted_with_its_warnings_and_asterisk_knows(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "- hangup"), contract=profile(), kinds={"abuse": Mover}) as company:
        phone = outside_phone(company)
        caller = call_outside(company)
        callee = await phone.rung()
        await caller.answered()
        for at, backstop in ((1.0, 600.25), (6.0, 15.25), (13.0, 288.25), (291.0, 15.15), (302.0, 0.0)):
            await asyncio.sleep(at + 2 - company.asterisk.time())
            assert float(callee.channel.variables["TIMEOUT(absolute)"]) == pytest.approx(backstop, abs=0.1)
        await asyncio.sleep(600)
        # At 10 s, and at 290 s; the one at 295 s would have come right after.
        assert caller.sounds.count("sound:fr/Dix secondes.") == 2
        caller.hang_up()
        await caller.over()


# -- loading ------------------------------------------------------------------------------------


class Misspelt(Open):
    async def admitt(self, request: LegRequest) -> LegRequest:
        return request


class Renamed(Open):
    async def admit(self, leg: LegRequest) -> LegRequest:
        return leg


class Waiting(Open):
    async def answered(self, leg: LiveLeg) -> None:  # type: ignore[override]
        pass


def build(kinds: Mapping[str, object], text: str = PROFILE) -> list[Policy[Limit]]:
    tenant = Tenant("acme", ZoneInfo("Europe/Paris"), ["101"])
    clock = SystemClock()
    store = MemoryStore(clock=clock)
    return build_policies(tenant, profile(text), store=store, clock=clock, kinds=kinds)  # type: ignore[arg-type]


def test_policies_come_in_the_order_of_the_contract_with_their_settings_and_clauses() -> None:
    built = build({"lists": Open, "abuse": Open})
    assert [policy.terms.policy for policy in built] == ["abuse", "lists"]
    assert [policy.terms.settings.limit for policy in built] == [20, 30]
    assert str(built[0].terms.clauses["limit"]) == "R8, terms 3(b)"


@pytest.mark.parametrize(
    "kind, place, message",
    [
        (Misspelt, "test_policy.py", 'policies have no hook "admitt" (did you mean "admit"?)'),
        (Renamed, "test_policy.py", "admit(self, leg) is not the hook: write admit(self, request)"),
        (Waiting, "test_policy.py", 'the hook answered is written with "def"'),
        (int, "strict.yml:11", 'policy "abuse" is not a class derived from pbx.policy.Policy'),
    ],
)
def test_a_class_that_is_no_policy_is_told_with_its_place(kind: object, place: str, message: str) -> None:
    with pytest.raises(Problems) as caught:
        build({"abuse": kind})
    (problem,) = caught.value.problems
    assert place in str(problem.where) and message in problem.message


def test_settings_that_a_policy_does_not_know_are_told_where_they_stand() -> None:
    with pytest.raises(Problems) as caught:
        build({"abuse": Open}, PROFILE.replace('limit: "20"', "limits: many"))
    assert str(caught.value) == 'strict.yml:12:16: unknown key "limits" (did you mean "limit"?)'


def test_a_policy_that_is_not_installed_yet_holds_nobody_to_anything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert [policy.terms.policy for policy in build({"abuse": Open})] == ["abuse"]
    assert "policy lists is not installed" in caplog.text
