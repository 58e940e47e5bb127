"""What `./run emergency status` says of each line, and how a place is written for SIP."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent
from xml.sax.saxutils import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pbx.__main__ import app
from pbx.dialplan import Plans
from pbx.dialplan import compile_plan
from pbx.emergency import Centres
from pbx.emergency import packaged_tables
from pbx.emergency_call import EmergencyCalls
from pbx.emergency_call import Readiness
from pbx.emergency_call import Way
from pbx.emergency_call import readiness
from pbx.links import Installation
from pbx.location import civic
from pbx.tenant import Address
from pbx.yamlfile import Text
from pbx.yamlfile import parse

PLAN = """\
tenant: acme
country: {country}
language: fr
timezone: Europe/Paris
sites:
  paris: {{{site}}}
lines:
  "101": {{name: Alice Martin{line}}}
numbers: {{{numbers}}}
flows: {{}}
"""
ADDRESS = 'address: {{street: rue des Essais, house: "12", postcode: "75008", city: Paris{}}}'
CENTRES = parse(
    'source: fiction\nvalid_from: 2026-01-01\ncommunes: {"75108": {"112": ["+33199001120"]}}\n', "centres.yml", Centres
)


def ready(
    folder: Path, *, country: str = "FR", site: str = "", line: str = ', number: "+33199000101"', numbers: str = "",
    ways: tuple[Way, ...] = (Way("a"),), centres: Centres | None = None,
) -> Readiness:
    """What is said of the one line of a plan."""
    path = folder / "acme.yml"
    path.write_text(PLAN.format(country=country, site=site, line=line, numbers=numbers), "utf-8")
    plans = Plans([compile_plan(path, Installation(trunks=[way.trunk for way in ways]))])
    (found,) = readiness(EmergencyCalls(ways, packaged_tables(), country="FR", centres=centres), plans)
    return found


def test_a_line_with_trunk_number_and_place_lacks_nothing(tmp_path: Path) -> None:
    found = ready(tmp_path, site=ADDRESS.format(""))
    assert (found.line, found.problems, found.gaps) == ("acme-101", (), ())
    assert (found.shown, found.place) == ("+33199000101", "12 rue des Essais, 75008 Paris")
    assert [f"{route.number}@{route.trunk}" for route in found.routes] == ["112@a"]
    assert {"15", "17", "18", "112"} <= set(found.numbers) and "119" not in found.numbers


@pytest.mark.parametrize("plan, problems, gaps", [
    ({"ways": ()}, ["no trunk is in use"], []),
    ({"country": "UZ", "line": ', number: "+33199000101"'}, ["no emergency number of UZ"], []),
    ({"line": ""}, [], ["nobody can call back"]),
    ({"line": "", "site": 'number: "+33199000100", '}, [], ["nobody answers +33199000100"]),
    ({"site": ""}, [], ["no place is told"]),
    ({"ways": (Way("a", "engine"),), "centres": CENTRES}, [], ['the address has no "insee"']),
    ({"ways": (Way("a", "engine"),), "centres": CENTRES, "more": ', insee: "69382"'}, [], ["69382 is not in the list"]),
    ({"ways": (Way("a", "engine"),), "centres": CENTRES, "more": ', insee: "75108"'}, [], []),
])
def test_what_is_missing_is_named(
    tmp_path: Path, plan: dict[str, object], problems: list[str], gaps: list[str]
) -> None:
    more = str(plan.pop("more", ""))
    if plan.get("site") != "":
        plan["site"] = str(plan.get("site", "")) + ADDRESS.format(more)
    found = ready(tmp_path, **plan)  # type: ignore[arg-type]
    for said, expected in ((found.problems, problems), (found.gaps, gaps)):
        assert len(said) == len(expected)
        assert all(words in sentence for words, sentence in zip(expected, said, strict=True))


def test_the_command_tells_of_every_line_and_fails_when_one_cannot_call(tmp_path: Path) -> None:
    plan = PLAN.format(country="FR", site="", line="", numbers="")
    (tmp_path / "acme.yml").write_text(plan, "utf-8")
    (tmp_path / "pbx.yml").write_text(f"plans: {tmp_path}\n")
    config = tmp_path / "config.yml"
    (tmp_path / "pbx.yml").rename(config)
    plans = tmp_path / "plans"
    plans.mkdir()
    (tmp_path / "acme.yml").rename(plans / "acme.yml")
    config.write_text(f"plans: {plans}\n")
    without = CliRunner().invoke(app, ["-c", str(config), "emergency", "status"])
    assert without.exit_code == 1 and "no trunk is in use" in without.output
    config.write_text(f"plans: {plans}\ntrunks: {{a: {{host: sip.carrier.example}}}}\n")
    within = CliRunner().invoke(app, ["-c", str(config), "emergency", "status"])
    assert within.exit_code == 0 and "112@a" in within.output and "nobody can call back" in within.output
    assert "3114 is to be checked" in within.output


def test_the_examples_of_the_manual_are_valid(tmp_path: Path) -> None:
    manual = (Path(__file__).parent.parent / "docs" / "emergency.md").read_text("utf-8")
    blocks = re.findall(r"^ *```yaml\n(.*?)^ *```", manual, re.DOTALL | re.MULTILINE)
    site, centres = (dedent(block) for block in blocks)
    head = "tenant: acme\ncountry: FR\nlanguage: fr\ntimezone: Europe/Paris\nflows: {welcome: [answer]}\n"
    (tmp_path / "acme.yml").write_text(head + site, "utf-8")
    address = compile_plan(tmp_path / "acme.yml").sites["paris"].address
    assert address is not None and address.insee == "75108"
    assert parse(centres, "centres.yml", Centres).numbers("75108", "15")


# A place in SIP


def test_a_place_is_written_in_the_words_of_the_standard() -> None:
    address = Address(
        street=Text("rue de l'Exemple Ouest"), house=Text("100"), postcode=Text("H2Z 1A4"), city=Text("Montréal"),
        region=Text("QC"), floor=Text("3"), room=Text("3.12"), building=Text("B"), name=Text("Boréal"),
    )
    assert civic(address, country="CA", language="fr") == (
        'country="CA",A1="QC",A3="Montréal",RD="rue de l\'Exemple Ouest",HNO="100",PC="H2Z 1A4",BLD="B",FLR="3",'
        'ROOM="3.12",NAM="Boréal",lang="fr"'
    )


@given(st.text(min_size=1, max_size=40))
def test_no_street_breaks_out_of_its_quotes(street: str) -> None:
    address = Address(street=Text(street), postcode=Text("75008"), city=Text("Paris"))
    written = civic(address, country="FR", language="fr")
    assert written.count('"') == 10 and "\\" not in written and written.isprintable()
    named = written.split('RD="')[1].split('"')[0]
    assert len(unescape(named)) == len(street)
