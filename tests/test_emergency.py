"""An emergency call goes out: whatever trunks, plans and the engine itself do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from office import Office
from office import office
from plans import noted
from plans import record_of
from switchboard import in_every_order

from pbx.emergency import Centres
from pbx.emergency_call import EmergencyCalls
from pbx.emergency_call import Way
from pbx.simulator import Party
from pbx.simulator import announces
from pbx.simulator import answers
from pbx.simulator import busy
from pbx.simulator import refuses
from pbx.simulator import silent
from pbx.simulator import virtual
from pbx.yamlfile import parse

ABC = (Way("a"), Way("b"), Way("c"))
PLAN = """\
    tenant: acme
    country: FR
    language: fr
    timezone: Europe/Paris
    trunk: a
    sites:
      paris:
        number: "+33199000100"
        outside_prefix: "0"
        address: {street: rue de Miromesnil, house: "12", postcode: "75008", city: Paris, insee: "75108", floor: "3"}
      lyon: {number: "+33465710200", trunk: c}
      geneva: {country: CH}
    lines:
      "101": {name: Alice Martin, site: paris, number: "+33199000101"}
      "102": {name: Bob Durand, site: paris}
      "201": {name: Léa Moreau, site: lyon}
      "301": {name: Claire Rochat, site: geneva}
    numbers:
      "+33199000100": welcome
    flows:
      welcome: [answer]
"""
CENTRES = parse(
    "source: fiction\nvalid_from: 2026-01-01\n"
    'communes: {"75108": {"18": ["+33199001801", "+33199001802"], "15": ["+33199001501"]}}\n', "centres.yml", Centres,
)


@pytest.fixture
def acme(tmp_path: Path) -> Path:
    path = tmp_path / "acme.yml"
    path.write_text(dedent(PLAN), "utf-8")
    return path


def bare(folder: Path) -> Path:
    """A plan that says nothing of places and numbers."""
    path = folder / "bare.yml"
    path.write_text('tenant: bare\ncountry: FR\nlanguage: fr\ntimezone: Europe/Paris\nlines: {"101": {name: Alice}}\n')
    return path


def sent(party: Party) -> Mapping[str, str]:
    """What Asterisk was told to send to this party."""
    return party.channel.variables


async def placed(company: Office) -> list[str]:
    """The addresses of all legs of the only call, in order, once it is over."""
    return [leg.endpoint.removeprefix("PJSIP/") for leg in (await record_of(company)).legs]


# One trunk after another


def test_every_trunk_is_tried_until_one_answers(acme: Path) -> None:
    async def story(seed: int) -> None:
        async with office(acme, seed, ways=(*ABC, Way("d"))) as company:
            company.asterisk.handset("trunk-a", registered=False)
            company.asterisk.handset("trunk-b", refuses(503))
            company.asterisk.handset("trunk-c", silent())
            centre = company.asterisk.handset("trunk-d", answers(1.0, leaves=30.0))
            alice = company.asterisk.call("acme-101", "18")
            assert await alice.meets() is await centre.rung()
            assert await placed(company) == ["18@trunk-a", "18@trunk-b", "18@trunk-c", "18@trunk-d"]

    in_every_order(story)


@pytest.mark.parametrize("failure", [busy(), refuses(404), refuses(603), refuses(302), announces(then=486)])
@virtual
async def test_any_refusal_leads_to_the_next_trunk(acme: Path, failure: Any) -> None:
    async with office(acme, ways=ABC) as company:
        company.asterisk.handset("trunk-a", failure)
        centre = company.asterisk.handset("trunk-b", answers(1.0, leaves=30.0))
        alice = company.asterisk.call("acme-101", "112")
        assert await alice.meets() is await centre.rung()
        assert await placed(company) == ["112@trunk-a", "112@trunk-b"]


@virtual
async def test_a_trunk_that_says_nothing_is_left_after_four_seconds_of_ringing(acme: Path) -> None:
    async with office(acme, ways=ABC) as company:
        company.asterisk.handset("trunk-a", silent())
        centre = company.asterisk.handset("trunk-b", answers(1.0, leaves=30.0))
        started = company.asterisk.time()
        alice = company.asterisk.call("acme-101", "112")
        await alice.hears("ringing")
        assert company.asterisk.time() - started < 0.1
        await centre.rung()
        assert 4.0 <= company.asterisk.time() - started < 4.2
        await alice.meets()


@pytest.mark.parametrize("sign", [answers(50.0, leaves=5.0), announces(3.9, then=200, for_s=50.0)])
@virtual
async def test_a_trunk_that_gives_any_sign_is_not_left(acme: Path, sign: Any) -> None:
    """The caller is in the queue of a centre, and would be at its end again."""
    async with office(acme, ways=ABC) as company:
        centre = company.asterisk.handset("trunk-a", sign)
        alice = company.asterisk.call("acme-101", "112")
        assert await alice.meets() is await centre.rung()
        alice.hang_up()
        assert await placed(company) == ["112@trunk-a"]


@virtual
async def test_it_is_tried_for_as_long_as_the_caller_is_there(acme: Path) -> None:
    async with office(acme, ways=ABC) as company:
        dead = [company.asterisk.handset(f"trunk-{way.trunk}", registered=False) for way in ABC]
        alice = company.asterisk.call("acme-101", "112")
        await asyncio.sleep(900)
        dead[1].registered = True
        assert await alice.meets() is await dead[1].rung()
        alice.hang_up()
        record = await record_of(company)
        assert record.outcome == "answered" and 900 < len(record.legs) < 2_000


@virtual
async def test_a_caller_who_hangs_up_meanwhile_leaves_nothing(acme: Path) -> None:
    async with office(acme, ways=ABC) as company:
        trunk = company.asterisk.handset("trunk-a", silent())
        alice = company.asterisk.call("acme-101", "112")
        party = await trunk.rung()
        alice.hang_up()
        await party.over()
        record = await record_of(company)
        assert (record.outcome, record.ended_by, len(record.legs)) == ("abandoned", "caller", 1)


@virtual
async def test_without_any_trunk_the_caller_knows_at_once(tmp_path: Path) -> None:
    async with office(bare(tmp_path), ways=()) as company:
        alice = company.asterisk.call("bare-101", "112")
        await alice.over()
        record = await record_of(company)
        assert (record.cause, noted(record, "emergency_without_trunk")) == (34, [{}])


def routes(company: Office, line: str, dialled: str) -> list[str]:
    calls: EmergencyCalls = company.engine.emergencies
    found = calls.dialled(company.engine.plans, line, dialled)
    assert found is not None
    return [f"{route.number}@{route.trunk}" for route in calls.routes(*found)]


@virtual
async def test_routes_begin_with_the_sites_trunk_and_end_with_the_number_for_everything(acme: Path) -> None:
    async with office(acme, ways=ABC) as company:
        assert routes(company, "acme-101", "18") == ["18@a", "18@b", "18@c", "112@a", "112@b", "112@c"]
        assert routes(company, "acme-201", "18#") == ["18@c", "18@a", "18@b", "112@c", "112@a", "112@b"]
        assert routes(company, "acme-301", "+41 144") == ["144@a", "144@b", "144@c", "112@a", "112@b", "112@c"]
        assert routes(company, "acme-101", "0112") == ["112@a", "112@b", "112@c"]
        assert routes(company, "acme-101", "119") == ["119@a", "119@b", "119@c"]  # nobody wants 112 instead


@virtual
async def test_the_engine_finds_the_centre_of_the_place_for_a_trunk_that_does_not(acme: Path) -> None:
    ways = (Way("a", "engine"), Way("b", "engine", national="FR"), Way("c"))
    async with office(acme, ways=ways, centres=CENTRES) as company:
        assert routes(company, "acme-101", "18") == [
            "+33199001801@a", "+33199001802@a", "18@a", "0199001801@b", "0199001802@b", "18@b", "18@c",
            "112@a", "112@b", "112@c",
        ]
        assert routes(company, "acme-101", "17")[:2] == ["17@a", "17@b"]  # not in the list
        assert routes(company, "acme-201", "18")[:2] == ["18@c", "18@a"]  # the site has no address
        centre = company.asterisk.handset("trunk-a", answers(1.0, leaves=1.0))
        company.asterisk.call("acme-101", "18")
        assert (await centre.rung()).address == "+33199001801@trunk-a"


# What the centre is told


@pytest.mark.parametrize("line, shown", [
    ("acme-101", "+33199000101"),  # her own
    ("acme-102", "+33199000100"),  # the site's
    ("acme-201", "+33199000100"),  # the site has one that nobody answers: better one that somebody does
    ("acme-301", "+33199000100"),  # the site has none
])
@virtual
async def test_the_centre_sees_a_number_where_it_can_call_back(acme: Path, line: str, shown: str) -> None:
    async with office(acme, ways=ABC) as company:
        for way in ABC:
            company.asterisk.handset(f"trunk-{way.trunk}", answers(1.0, leaves=1.0))
        party = company.asterisk.call(line, "112")
        centre = await party.meets()
        assert centre.channel.connected["number"] == shown
        assert sent(centre)["PJSIP_HEADER(add,Priority)"] == "emergency"
        record = await record_of(company)
        assert noted(record, "emergency_without_number") == []


@virtual
async def test_the_centre_is_told_the_place(acme: Path) -> None:
    async with office(acme, ways=ABC) as company:
        trunk = company.asterisk.handset("trunk-a", answers(1.0, leaves=1.0))
        company.asterisk.call("acme-102", "112")
        centre = await trunk.rung()
        assert {name: value for name, value in sent(centre).items() if "GEOLOC" in name or "Network" in name} == {
            "GEOLOC_PROFILE(id)": "pres:+33199000100@pbx.invalid",
            "GEOLOC_PROFILE(format)": "civicAddress",
            "GEOLOC_PROFILE(pidf_element)": "device",
            "GEOLOC_PROFILE(pidf_element_id)": "acme-102",
            "GEOLOC_PROFILE(method)": "Manual",
            "GEOLOC_PROFILE(allow_routing_use)": "yes",
            "GEOLOC_PROFILE(location_info)":
                'country="FR",A3="Paris",RD="rue de Miromesnil",HNO="12",PC="75008",FLR="3",lang="fr"',
            "PJSIP_HEADER(add,P-Access-Network-Info)": 'IEEE-802.3;eth-location="75108"',
        }
        record = await record_of(company)
        assert noted(record, "emergency") == [{"number": "112", "vital": True, "service": "general"}]
        assert noted(record, "emergency_without_location") == []
        assert (record.direction, record.tenant, record.caller_number) == ("outbound", "acme", "102")


@virtual
async def test_what_the_centre_is_not_told_is_said_in_the_record(tmp_path: Path) -> None:
    async with office(bare(tmp_path), ways=(Way("a"),)) as company:
        trunk = company.asterisk.handset("trunk-a", answers(1.0, leaves=1.0))
        company.asterisk.call("bare-101", "112")
        assert not [name for name in sent(await trunk.rung()) if "GEOLOC" in name]
        record = await record_of(company)
        assert noted(record, "emergency_without_number") == noted(record, "emergency_without_location") == [{}]


# Whoever calls


@pytest.mark.parametrize("endpoint, tenant", [("acme-999", "acme"), ("gone-101", "")])
@virtual
async def test_a_handset_that_no_plan_knows_gets_out(acme: Path, endpoint: str, tenant: str) -> None:
    async with office(acme, ways=ABC) as company:
        trunk = company.asterisk.handset("trunk-a", answers(1.0, leaves=1.0))
        stranger = company.asterisk.call(endpoint, "112")
        assert await stranger.meets() is await trunk.rung()
        record = await record_of(company)
        assert (record.tenant, record.direction, record.caller_number) == (tenant, "outbound", endpoint)


@virtual
async def test_a_handset_that_no_plan_knows_reaches_nobody_else(acme: Path) -> None:
    async with office(acme, ways=ABC) as company:
        stranger = company.asterisk.call("acme-999", "0199000177")
        await stranger.over()
        assert (await record_of(company)).legs == []


# When the engine fails


class Broken(Exception):
    pass


def sent_on(party: Party) -> tuple[object, object]:
    assert party.fell_back
    return party.channel.dialplan["context"], party.channel.dialplan["exten"]


@pytest.mark.parametrize("broken", ["routes", "_destination", "_try"])
@virtual
async def test_a_fault_of_ours_leaves_the_call_to_asterisk(
    acme: Path, broken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise Broken("a defect")

    monkeypatch.setattr(EmergencyCalls, broken, fail)
    async with office(acme, ways=ABC) as company:
        alice = company.asterisk.call("acme-101", "0 18#")
        await alice.over()
        assert sent_on(alice) == ("absent-emergency", "18")
        record = await record_of(company)
        assert record.outcome == "sent_on" and noted(record, "failed") == [{"error": "Broken: a defect"}]
    assert "Asterisk sends it out by itself" in caplog.text


@virtual
async def test_a_fault_while_a_trunk_rings_leaves_no_leg_behind(
    acme: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with office(acme, ways=ABC) as company:
        trunk = company.asterisk.handset("trunk-a", answers(60.0))
        alice = company.asterisk.call("acme-101", "112")
        ringing = await trunk.rung()
        await asyncio.sleep(1)
        (call,) = company.engine.calls.values()

        async def fail(*_: object) -> None:
            raise Broken("a defect")

        monkeypatch.setattr(call, "join", fail)
        await ringing.over()
        await alice.over()
        assert sent_on(alice) == ("absent-emergency", "112")


@virtual
async def test_a_fault_of_the_judge_leaves_the_call_to_asterisk(acme: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise Broken("a defect")

    monkeypatch.setattr(EmergencyCalls, "dialled", fail)
    async with office(acme, ways=ABC) as company:
        alice = company.asterisk.call("acme-101", "18")
        await alice.over()
        assert sent_on(alice) == ("absent-acme", "18")


@virtual
async def test_an_engine_that_stops_leaves_emergency_calls_to_asterisk(acme: Path) -> None:
    async with office(acme, ways=ABC) as company:
        trunk = company.asterisk.handset("trunk-a", silent())
        alice = company.asterisk.call("acme-101", "112")
        await trunk.rung()
        await company.engine.stop()
        bob = company.asterisk.call("acme-102", "15")
        ordinary = company.asterisk.call("acme-102", "101")
        for party in (alice, bob, ordinary):
            await party.over()
        assert sent_on(alice) == ("absent-emergency", "112") and sent_on(bob) == ("absent-emergency", "15")
        assert not ordinary.fell_back and ordinary.cause == 34


# At once


@virtual
async def test_nothing_is_asked_of_asterisk_before_the_leg_is_made(
    acme: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with office(acme, ways=ABC) as company:
        company.asterisk.handset("trunk-a", answers(1.0, leaves=1.0))
        asked: list[str] = []
        request = company.asterisk.request

        async def note(operation: str, *rest: Any) -> Any:
            asked.append(operation)
            return await request(operation, *rest)

        monkeypatch.setattr(company.asterisk, "request", note)
        company.asterisk.call("acme-101", "112")
        await record_of(company)
        assert asked[:4] == ["channels.create", "bridges.create_with_id", "bridges.add_channel", "channels.dial"]
