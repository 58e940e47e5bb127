"""Fair use of minutes: counted while people talk, cut or reviewed as the contract says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from collections.abc import Mapping
from contextlib import asynccontextmanager
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from office import Office
from office import office
from pbx_plugins.fair_use import FairUse
from pbx_plugins.fair_use import Settings
from plans import noted
from plans import plan

from pbx.contract import Profile
from pbx.contract import load_contracts
from pbx.policy import Announcement
from pbx.policy import CallerId
from pbx.policy import Kind
from pbx.policy import LegRequest
from pbx.policy import Policy
from pbx.policy import Refused
from pbx.policy import Tenant
from pbx.policy import build_policies
from pbx.simulator import Party
from pbx.simulator import VirtualClock
from pbx.simulator import answers
from pbx.simulator import virtual
from pbx.store import MemoryStore
from pbx.store import State
from pbx.store import StoreError
from pbx.yamlfile import parse
from pbx.yamlfile import understand

KINDS: Mapping[str, Kind] = {"fair-use": FairUse}
OUTSIDE = "+33199000199"
MINUTE_LEFT = "sound:fr/Il reste une minute avant la fin du forfait de cette ligne."
TEN_SECONDS = "sound:fr/Cet appel prend fin dans dix secondes."
SPENT = "sound:fr/Le forfait est épuisé."
PROFILE = """\
name: strict
version: "1"
valid_from: "2026-01-01"
country: FR
documents:
  terms: {{title: Terms, whose: Provider, language: fr}}
rules:
  - rule: R1
    clause: {{document: terms, section: "3(a)"}}
    says: {{fr: Un forfait., en: An allowance.}}
    policy: fair-use
    figures: {{abnormal_from_minutes: {{at_most: {minutes}}}}}
    settings: {{warn_percent: [80, 90, 100], then: {then}, service_month: activation-day}}
    announcement: {{fr: Le forfait est épuisé., en: The allowance is used up.}}
  - rule: R4
    clause: {{document: terms, section: "3(b)"}}
    says: {{fr: Un avis., en: A notice.}}
    policy: fair-use
    settings: {{answer_within_days: 7, unless_cured: {unless_cured}}}
"""


def contract(minutes: int = 10, then: str = "hang-up", unless_cured: str = "metered") -> Profile:
    return parse(PROFILE.format(minutes=minutes, then=then, unless_cured=unless_cured), "strict.yml", Profile)


def call_outside(company: Office, line: str = "101") -> Party:
    return company.asterisk.call(f"acme-{line}", "0199000199")


async def talking(company: Office, line: str = "101") -> Party:
    party = call_outside(company, line)
    await party.meets()
    return party


async def document(company: Office, line: str = "101") -> State:
    return (await company.store.states("fair-use", "acme"))["acme", line]


async def used(company: Office, line: str = "101") -> int:
    return sum(account["used_ms"] for account in (await document(company, line))["months"].values())


# -- a hard end ---------------------------------------------------------------------------------


@virtual
async def test_a_call_ends_with_the_allowance_after_two_warnings(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "- hangup"), contract=contract(), kinds=KINDS) as company:
        trunk = company.asterisk.handset("trunk-x", answers(after=1))
        caller = await talking(company)
        callee = await trunk.rung()
        await caller.over()
        assert callee.answered_at is not None and callee.ended_at is not None
        assert callee.ended_at - callee.answered_at == pytest.approx(600, abs=0.1)
        assert callee.sounds == [] and [what for what in caller.sounds if "forfait" in what or "fin" in what] == [
            MINUTE_LEFT, TEN_SECONDS,
        ]
        await company.quiet()
        (record,) = await company.records()
        assert [(one["verdict"], one.get("clause")) for one in noted(record, "policy")] == [
            ("admitted", None), ("ended", "R1, terms 3(a)"),
        ]
        assert await used(company) == pytest.approx(600_000, abs=50)


@virtual
async def test_calls_at_once_share_the_allowance_and_end_together(tmp_path: Path) -> None:
    """Ten minutes for three calls that begin half a minute apart: 30 s + 2 x 30 s + 3 x 170 s."""
    async with office(plan(tmp_path, "- hangup"), contract=contract(), kinds=KINDS) as company:
        trunk = company.asterisk.handset("trunk-x", answers(after=0))
        for _ in range(3):
            await talking(company)
            await asyncio.sleep(30)
        await company.quiet()
        talks = [(call.answered_at or 0.0, call.ended_at or 0.0) for call in trunk.calls]
        assert len({round(end, 1) for _, end in talks}) == 1
        assert sum(end - start for start, end in talks) == pytest.approx(600, abs=0.3)
        assert await used(company) == pytest.approx(600_000, abs=200)


@virtual
async def test_without_minutes_left_outside_calls_are_refused_and_all_others_go_on(tmp_path: Path) -> None:
    async with office(plan(tmp_path, '- dial: "101"'), contract=contract(1), kinds=KINDS) as company:
        company.asterisk.handset("trunk-x", answers(after=0, leaves=70))
        company.asterisk.handset("acme-102", answers(after=0, leaves=1000))
        company.asterisk.handset("acme-101", answers(after=0, leaves=1000))
        await (await talking(company)).over()
        refused = call_outside(company)
        await refused.over()
        assert SPENT in refused.sounds and refused.answered_at is None
        for channel, dialled in (
            ("acme-101", "102"), ("trunk-x", "+33199000100"), ("acme-101", "112"), ("acme-102", "0199000199"),
        ):
            party = company.asterisk.call(channel, dialled, caller="+33199000177")
            await party.answered()
            await party.over()
        await company.quiet()
        assert await used(company) == pytest.approx(60_000, abs=50)


@virtual
async def test_the_next_service_month_begins_anew_even_in_the_middle_of_a_call(tmp_path: Path) -> None:
    """The line was met first on 2 March in Paris: its month ends at midnight before 2 April, summer time."""
    async with office(plan(tmp_path, "- hangup"), contract=contract(), kinds=KINDS) as company:
        company.asterisk.handset("trunk-x", answers(after=0, leaves=540))
        midnight = datetime(2026, 4, 1, 22, tzinfo=UTC)
        start = datetime(2026, 3, 2, 9, tzinfo=UTC)
        await asyncio.sleep((midnight - start).total_seconds() - 240)
        await (await talking(company)).over()
        await company.quiet()
        months = (await document(company))["months"]
        assert sorted(months) == ["2026-03-02", "2026-04-02"]
        assert months["2026-03-02"]["used_ms"] == pytest.approx(240_000, abs=1_000)
        assert months["2026-04-02"]["used_ms"] == pytest.approx(300_000, abs=1_000)


# -- a review -----------------------------------------------------------------------------------


async def exceed(company: Office, seconds: float = 660) -> None:
    company.asterisk.handset("trunk-x", answers(after=0, leaves=seconds))
    await (await talking(company)).over()


@virtual
async def test_who_uses_more_than_is_normal_is_notified_with_evidence_and_nothing_is_cut(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "- hangup"), contract=contract(then="review"), kinds=KINDS) as company:
        company.asterisk.handset("trunk-x", answers(after=0, leaves=660))
        caller = await talking(company)
        await asyncio.sleep(598)
        assert (await document(company))["case"] == {"state": "observe"}
        await asyncio.sleep(4)
        case = (await document(company))["case"]
        # Inclusive: the threshold itself is abnormal, and it is noticed during the call.
        assert (case["state"], case["clause"], case["contract"]) == ("notified", "R1, terms 3(a)", "strict 1")
        assert 600_000 <= case["used_ms"] < 601_000 and case["month"] == "2026-03-02"
        assert case["deadline"] == "2026-03-09T23:00:00+00:00"
        await caller.over()
        assert not [sound for sound in caller.sounds if sound != "ringing"]
        await company.quiet()
        assert await used(company) == pytest.approx(660_000, abs=100)


@pytest.mark.parametrize("unless_cured", ["metered", "restricted"])
def test_a_notice_without_effect_meters_or_restricts_the_line_after_its_deadline(
    tmp_path: Path, unless_cured: str
) -> None:
    @virtual
    async def story() -> None:
        profile = contract(then="review", unless_cured=unless_cured)
        async with office(plan(tmp_path, "- hangup"), contract=profile, kinds=KINDS) as company:
            await exceed(company)
            await asyncio.sleep(3600)
            await exceed(company)
            await asyncio.sleep(timedelta(days=6, hours=20).total_seconds())
            assert (await document(company))["case"]["state"] == "notified"
            await asyncio.sleep(timedelta(days=1).total_seconds())
            assert (await document(company))["case"]["state"] == unless_cured
            party = call_outside(company)
            await party.over()
            assert bool(party.answered_at) is (unless_cured == "metered")
            await company.store.change("fair-use", "acme", "101", lambda state: state["case"].update(state="cured"))
            await asyncio.sleep(120)
            await talking(company)

    story()


@virtual
async def test_a_return_to_normal_cures(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "- hangup"), contract=contract(then="review"), kinds=KINDS) as company:
        await exceed(company, 605)
        await asyncio.sleep(timedelta(days=9).total_seconds())
        assert (await document(company))["case"]["state"] == "cured"


@virtual
async def test_each_warning_is_given_once_a_month(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with office(plan(tmp_path, "- hangup"), contract=contract(then="review"), kinds=KINDS) as company:
        await exceed(company)
        await exceed(company)
        said = [record.getMessage() for record in caplog.records if "% of the 10 minutes" in record.getMessage()]
        assert [message.split("used ")[1][:4].strip(" %") for message in said] == ["80", "90", "100"]


# -- engines and outages ------------------------------------------------------------------------


class Talk:
    """A leg on its way to its end, as `pbx.watch` would carry it out."""

    def __init__(self, policy: Policy[Settings], clock: VirtualClock, number: int) -> None:
        self.request = LegRequest(
            f"l{number}", "c1", "acme", "101", "outbound", OUTSIDE, True, CallerId(""), clock.now()
        )
        self.answered_at = self.ended_at = clock.now()
        self.policy = policy
        self.clock = clock
        self.over = asyncio.Event()
        self.limits: dict[str, datetime] = {}
        self.timer: asyncio.TimerHandle | None = None

    async def begin(self) -> Talk:
        await self.policy.admit(self.request)
        self.answered_at = self.clock.now()
        self.policy.answered(self)
        return self

    def end_at(
        self, when: datetime | None, *, clause: str, warnings: Mapping[int, Announcement] | None = None
    ) -> None:
        assert when is not None
        self.limits[clause] = when
        if self.timer is not None:
            self.timer.cancel()
        delay = (min(self.limits.values()) - self.clock.now()).total_seconds()
        self.timer = asyncio.get_running_loop().call_later(max(0.0, delay), self.end)

    def warn(self, words: Announcement) -> None:
        raise AssertionError("nothing warns by itself")

    def hang_up(self, cause: int, *, clause: str) -> None:
        raise AssertionError("nothing hangs up by itself")

    def end(self) -> None:
        if not self.over.is_set():
            self.ended_at = self.clock.now()
            self.over.set()
            self.policy.ended(self)

    @property
    def seconds(self) -> float:
        return (self.ended_at - self.answered_at).total_seconds()


class Away(MemoryStore):
    """A store that can be away."""

    away = False

    async def change(self, *args: object) -> object:  # type: ignore[override]
        if self.away:
            raise StoreError("the database is away")
        return await super().change(*args)  # type: ignore[arg-type]


@asynccontextmanager
async def engine(store: MemoryStore, clock: VirtualClock, then: str = "hang-up") -> AsyncIterator[Policy[Settings]]:
    tenant = Tenant("acme", ZoneInfo("Europe/Paris"), ["101"])
    (policy,) = build_policies(tenant, contract(then=then), store=store, clock=clock, kinds=KINDS)
    await policy.open()
    yield policy
    await policy.close()


@virtual
async def test_engines_that_share_a_line_use_no_more_than_there_is(tmp_path: Path) -> None:
    clock = VirtualClock()
    store = MemoryStore(clock=clock)
    async with engine(store, clock) as one, engine(store, clock) as other:
        talks = [await Talk(one, clock, 1).begin(), await Talk(other, clock, 2).begin()]
        await asyncio.sleep(60)
        talks.append(await Talk(other, clock, 3).begin())
        for talk in talks:
            await talk.over.wait()
        with pytest.raises(Refused):
            while True:  # what an engine gave back can still be had, to the last second
                talks.append(await Talk(one, clock, 4).begin())
                await talks[-1].over.wait()
                await asyncio.sleep(1)
        assert 598 < sum(talk.seconds for talk in talks) <= 600


@virtual
async def test_what_a_dead_engine_had_leased_counts_as_used(tmp_path: Path) -> None:
    """Its last calls may have lasted as long: Asterisk ends them when the lease does."""
    clock = VirtualClock()
    store = MemoryStore(clock=clock)
    async with engine(store, clock) as one:
        dead = await Talk(one, clock, 1).begin()
        await asyncio.sleep(100)
        last = min(dead.limits.values())
        state = (await store.states("fair-use", "acme"))["acme", "101"]
        for line in one._lines.values():  # type: ignore[attr-defined]
            line._keeper.cancel()
        # From here on nothing is heard of it any more.
        async with engine(store, clock) as other:
            await asyncio.sleep(400)
            talk = await Talk(other, clock, 2).begin()
            await talk.over.wait()
            assert talk.seconds + (last - dead.answered_at).total_seconds() == pytest.approx(600, abs=1)
        assert state["months"]["2026-03-02"]["leases"]


@virtual
async def test_while_the_store_is_away_no_call_gets_more_than_was_leased(tmp_path: Path) -> None:
    clock = VirtualClock()
    store = Away(clock=clock)
    async with engine(store, clock) as policy:
        talk = await Talk(policy, clock, 1).begin()
        await asyncio.sleep(30)
        store.away = True
        await talk.over.wait()
        assert 50 <= talk.seconds <= 70
        store.away = False
        await asyncio.sleep(5)
        again = await Talk(policy, clock, 2).begin()
        await again.over.wait()
        assert talk.seconds + again.seconds == pytest.approx(600, abs=0.1)


@virtual
async def test_when_the_store_is_back_a_review_has_missed_nothing(tmp_path: Path) -> None:
    clock = VirtualClock()
    store = Away(clock=clock)
    async with engine(store, clock, "review") as policy:
        store.away = True
        talk = await Talk(policy, clock, 1).begin()
        await asyncio.sleep(700)
        store.away = False
        await asyncio.sleep(10)
        talk.end()
        await asyncio.sleep(1)
        state = (await store.states("fair-use", "acme"))["acme", "101"]
        assert state["case"]["state"] == "notified"
        assert state["months"]["2026-03-02"]["used_ms"] == 710_000 and not state["months"]["2026-03-02"]["leases"]


def test_every_contract_that_names_fair_use_gives_it_what_it_needs() -> None:
    contracts = load_contracts(Path(__file__).parent.parent.parent / "config" / "contracts")
    for versions in contracts.versions.values():
        for profile in versions:
            if "fair-use" in profile.policies:
                assert understand(profile.settings("fair-use"), Settings).allowance_ms > 0
