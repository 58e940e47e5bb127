"""What is an emergency number, however it is written; and, above all, what is none."""

from __future__ import annotations

import random
from pathlib import Path

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phonenumbers import NumberParseException
from phonenumbers.shortnumberinfo import is_emergency_number

from pbx import emergency
from pbx.emergency import Centres
from pbx.emergency import Emergency
from pbx.emergency import Tables
from pbx.emergency import load_tables
from pbx.emergency import packaged_tables
from pbx.yamlfile import Problems
from pbx.yamlfile import load

TABLES = packaged_tables()
CODES = {"FR": 33, "CA": 1, "US": 1, "GB": 44, "BE": 32, "CH": 41, "DE": 49}
COUNTRY = st.sampled_from(sorted(CODES))
PREFIX = st.sampled_from([None, "0", "9"])

LISTED = {
    ("FR", "vital"): "15 17 18 112 114 191 196 197",
    ("FR", "social"): "115 119 116000 116111 116117 3114",
    ("CA", "vital"): "911 112",
    ("CA", "social"): "988",
    ("US", "vital"): "911 112",
    ("US", "social"): "988",
    ("GB", "vital"): "999 112 18000",
    ("BE", "vital"): "112 100 101",
    ("BE", "social"): "103 104 105 106 107 110 116000",
    ("CH", "vital"): "112 117 118 144 1414 1415",
    ("CH", "social"): "143 145 147",
    ("DE", "vital"): "112 110",
    ("DE", "social"): "116117",
}


def number(dialled: str, country: str, prefix: str | None = None) -> str | None:
    found = TABLES.classify(dialled, country, prefix)
    return found.number if found else None


# Every form


@pytest.mark.parametrize("country, kind", LISTED)
def test_each_number_of_a_country_is_found_with_its_kind_however_it_is_written(country: str, kind: str) -> None:
    code = CODES[country]
    for short in LISTED[country, kind].split():
        spaced = " ".join(short)
        for dialled in (
            short, spaced, ".".join(short), "-".join(short), f"({short})", f"{short[0]}/{short[1:]}", f" {short} ",
            f"{short}#", f"{short}##", f"{short},1", f"{short}p1", f"{short};2", f"{short}W", f"{spaced}#",
            f"+{code}{short}", f"+{code} {spaced}", f"00{code}{short}", f"011{code}{short}", f"+{code}{short}#",
        ):
            for prefix in (None, "0", "9"):
                behind = dialled if prefix is None or dialled.startswith("+") else f"{prefix}{dialled}"
                for written in (dialled, behind):
                    found = TABLES.classify(written, country, prefix)
                    assert found is not None, f"{written!r} in {country} behind {prefix}"
                    assert (found.number, found.kind) == (short, kind), f"{written!r} in {country} behind {prefix}"


@pytest.mark.parametrize("country", CODES)
def test_the_tables_have_these_numbers_and_no_others(country: str) -> None:
    table = TABLES.by_country[country]
    assert {(str(short), row.kind) for short, row in table.numbers.items()} == {
        (short, kind) for (owner, kind), listed in LISTED.items() if owner == country for short in listed.split()
    }


@pytest.mark.parametrize("country", ["GP", "GF", "MQ", "RE", "YT", "PM", "BL", "MF"])
def test_overseas_france_has_the_numbers_of_france(country: str) -> None:
    assert all(number(short, country) == short for short in "15 17 18 112 114 196 119 3114".split())


@pytest.mark.parametrize(
    "dialled, country, prefix, meant",
    [
        ("１１２", "FR", None, "112"), ("٩١١", "CA", None, "911"), ("9911", "US", "9", "911"), ("9999", "GB", "9", "999"),
        ("0 15", "FR", "0", "15"), ("015#", "FR", "0", "15"), ("112", "ES", None, "112"), ("+34112", "ES", None, "112"),
        ("urn:service:sos", "FR", None, "112"), ("urn:service:sos", "CA", None, "911"),
        ("urn:service:sos.police", "FR", None, "17"), ("URN:service:sos.fire", "CH", None, "118"),
        ("urn:service:sos.mountain", "FR", None, "112"), ("urn:service:sos", "ES", None, "112"),
        ("urn:service:sos", "ZZ", None, None),
    ],
)
def test_other_digits_other_countries_and_service_names_are_understood(
    dialled: str, country: str, prefix: str | None, meant: str | None
) -> None:
    assert number(dialled, country, prefix) == meant


# Nothing else


@pytest.mark.parametrize(
    "dialled, country, prefix",
    [
        ("0112", "FR", None), ("9911", "US", None), ("9112", "US", None), ("9999", "GB", None), ("1125", "FR", None),
        ("150", "FR", None), ("112555", "FR", None), ("+44112", "FR", None), ("+1112", "FR", None), ("15", "CA", None),
        ("911", "FR", None), ("", "FR", "0"), ("0", "FR", "0"), ("anonymous", "FR", None), ("*112", "FR", None),
        ("1112", "FR", "0"), ("0199000112", "FR", "0"), ("urn:service:counseling", "FR", None), ("112x", "FR", None),
        ("211", "CA", None), ("811", "CA", None), ("00112", "FR", "0"),
    ],
)
def test_a_number_that_only_looks_like_an_emergency_is_an_ordinary_one(
    dialled: str, country: str, prefix: str | None
) -> None:
    assert TABLES.classify(dialled, country, prefix) is None


def exactly_known(short: str, country: str) -> bool:
    try:
        return bool(is_emergency_number(short, country))
    except NumberParseException:
        return False


def meant(dialled: str, country: str, prefix: str | None) -> set[str]:
    """The short numbers that these digits may stand for, told in another way than the judge does."""
    code = phonenumbers.country_code_for_region(country)
    readings = {dialled} | ({dialled[len(prefix):]} if prefix and dialled.startswith(prefix) else set())
    accesses = (f"+{code}", f"00{code}", f"011{code}")
    return readings | {one[len(access):] for one in readings for access in accesses if one.startswith(access)}


def test_of_a_hundred_thousand_others_none_is_an_emergency() -> None:
    """A match by the beginning of the number would be a way around every limit."""
    chance = random.Random(112)
    countries = sorted(CODES)
    listed = {country: {str(short) for short in TABLES.by_country[country].numbers} for country in countries}
    others = emergencies = 0
    while others < 100_000:
        country = chance.choice(countries)
        prefix = chance.choice([None, "0", "9"])
        near = chance.choice(sorted(listed[country]))
        tail = "".join(chance.choices("0123456789", k=chance.randint(0, 9)))
        head = chance.choice(["", "", "", "+", "00", "011", "0", "9", f"+{CODES[country]}", f"00{CODES[country]}"])
        dialled = head + chance.choice([near + tail, tail + near, tail])
        readings = meant(dialled, country, prefix)
        expected = any(short in listed[country] or exactly_known(short, country) for short in readings)
        found = TABLES.classify(dialled, country, prefix)
        assert (found is not None) == expected, f"{dialled} in {country} behind {prefix}: {found}"
        others += not expected
        emergencies += expected
    assert emergencies > 1_000


@given(st.text(max_size=30), st.text(max_size=3), PREFIX)
def test_no_text_is_too_odd_to_be_asked_about(dialled: str, country: str, prefix: str | None) -> None:
    found = TABLES.classify(dialled, country, prefix)
    assert found is None or found in TABLES.numbers(country)


def test_the_question_how_a_number_begins_is_asked_nowhere() -> None:
    root = Path(emergency.__file__).parent.parent
    asking = "_".join(("connects", "to", "emergency", "number"))
    files = [path for folder in ("pbx", "plugins", "asterisk") for path in (root / folder).rglob("*") if path.is_file()]
    assert [path for path in files if path.suffix in (".py", ".j2", "") and asking in path.read_text()] == []


# Tables and lists of one's own


TABLE = 'country: {country}\nnumbers:\n  "{short}": {{kind: vital, service: general, source: me}}\n'


def test_a_table_of_ones_own_takes_the_place_of_that_country_alone(tmp_path: Path) -> None:
    (tmp_path / "FR.yml").write_text(TABLE.format(country="FR", short="113"))
    (tmp_path / "ES.yml").write_text(TABLE.format(country="ES", short="061"))
    tables = load_tables(tmp_path)
    assert tables.classify("113", "FR") == Emergency("113") and tables.classify("061", "ES") == Emergency("061")
    assert tables.classify("119", "FR") is None and tables.classify("988", "CA") is not None
    assert tables.classify("112", "FR") == Emergency("112")  # nobody can take away what is known everywhere


def test_what_is_wrong_with_tables_is_told_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "FR.yml").write_text(
        'country: FR\nnumbers:\n  "15": {kind: urgent, service: ambulance, source: me}\n'
        '  "+33112": {kind: vital, service: general, source: me, checked_on: yesterday}\n'
    )
    (tmp_path / "XX.yml").write_text("country: XX\nnumbers: {}\n")
    with pytest.raises(Problems) as error:
        load_tables(tmp_path)
    places = [str(problem).replace(f"{tmp_path}/", "") for problem in error.value.problems]
    assert [place.split(" ")[0] for place in places] == [
        "FR.yml:3:16:", "FR.yml:4:3:", "FR.yml:4:69:", "XX.yml:1:10:", "XX.yml:2:10:",
    ]


def test_a_country_has_one_table(tmp_path: Path) -> None:
    (tmp_path / "reunion.yml").write_text(TABLE.format(country="RE", short="113"))
    with pytest.raises(Problems, match="RE has a table already"):
        load_tables(tmp_path)


def test_a_commune_has_the_numbers_of_its_centres(tmp_path: Path) -> None:
    (tmp_path / "centres.yml").write_text(
        "source: fiction\nvalid_from: 2026-01-01\n"
        'communes: {"75108": {"18": ["+33199001801", "+33199001802"]}, 2A004: {"15": ["+33465710015"]}}\n'
    )
    centres = load(tmp_path / "centres.yml", Centres)
    assert list(centres.numbers("75108", "18")) == ["+33199001801", "+33199001802"]
    assert list(centres.numbers("2A004", "15")) == ["+33465710015"]
    assert centres.numbers("75108", "15") == centres.numbers("69123", "18") == ()


def test_without_any_table_the_numbers_that_are_known_everywhere_remain() -> None:
    assert Tables().classify("112", "FR") == Emergency("112")
