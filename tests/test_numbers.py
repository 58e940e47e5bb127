from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbx import numbers
from pbx.numbers import e164
from pbx.numbers import emergency
from pbx.numbers import emergency_numbers
from pbx.numbers import national

FICTION_FR = st.sampled_from(["19900", "26191", "35301", "46571", "53649", "63998"])
FRENCH = st.builds("+33{}{:04}".format, FICTION_FR, st.integers(0, 9999))
NORTH_AMERICAN = st.builds("+1{}55501{:02}".format, st.sampled_from(["514", "438", "416", "212"]), st.integers(0, 99))
COUNTRY = st.sampled_from(["FR", "CA", "US", "GB", "BE", "CH", "DE"])
PREFIX = st.sampled_from([None, "0", "9"])


# Numbers of the public network


@pytest.mark.parametrize(
    "dialled, country, prefix, meant",
    [
        ("0199000100", "FR", None, "+33199000100"),
        ("01 99.00-01/00", "FR", None, "+33199000100"),
        ("+33 (0)1 99 00 01 00", "FR", None, "+33199000100"),
        ("+33199000100", "CA", None, "+33199000100"),
        ("0033199000100", "FR", None, "+33199000100"),
        ("01133199000100", "CA", None, "+33199000100"),
        ("00 0199000100", "FR", "0", None),
        ("00199000100", "FR", "0", "+33199000100"),
        ("0199000100", "FR", "0", "+33199000100"),
        ("000 33 1 99 00 01 00", "FR", "0", "+33199000100"),
        ("0639980001", "FR", None, "+33639980001"),
        ("5145550100", "CA", None, "+15145550100"),
        ("15145550100", "CA", None, "+15145550100"),
        ("915145550100", "CA", "9", "+15145550100"),
        ("95145550100", "CA", "9", "+15145550100"),
        ("9145550100", "CA", "9", "+19145550100"),
        ("915145550100", "CA", None, None),
        ("02079460100", "GB", None, "+442079460100"),
        ("٠١٩٩٠٠٠١٠٠", "FR", None, "+33199000100"),
        ("0199000100#", "FR", None, "+33199000100"),
        ("0199000100,,42", "FR", None, "+33199000100"),
    ],
)
def test_a_number_is_understood_however_it_is_dialled(
    dialled: str, country: str, prefix: str | None, meant: str | None
) -> None:
    assert e164(dialled, country, outside_prefix=prefix) == meant


@pytest.mark.parametrize(
    "dialled, country",
    [
        ("", "FR"), ("+", "FR"), ("101", "FR"), ("112", "FR"), ("+33112", "FR"), ("3949", "FR"), ("118218", "FR"),
        ("116117", "DE"), ("0", "FR"), ("00", "FR"), ("0" * 40, "FR"), ("anonymous", "FR"), ("*98", "FR"),
        ("1+2", "FR"),
        ("5550100", "CA"), ("1145550100", "CA"), ("5140550100", "CA"), ("0199000100", "ZZ"),
    ],
)
def test_what_is_no_number_of_the_public_network_is_none(dialled: str, country: str) -> None:
    assert e164(dialled, country) is None


@given(FRENCH, st.sampled_from(["FR", "CA", "US", "GB", "DE"]))
def test_a_french_number_dialled_from_anywhere_is_itself(number: str, country: str) -> None:
    assert e164(number, country) == e164(national(number, country), country) == number


@given(NORTH_AMERICAN, st.sampled_from(["FR", "CA", "US", "GB", "DE"]))
def test_a_north_american_number_dialled_from_anywhere_is_itself(number: str, country: str) -> None:
    assert e164(number, country) == e164(national(number, country), country) == number


@given(FRENCH, st.text(" .-/", max_size=3), st.integers(1, 8))
def test_separators_change_nothing(number: str, separator: str, where: int) -> None:
    dialled = national(number, "FR")
    assert e164(dialled[:where] + separator + dialled[where:], "FR") == number


@given(FRENCH | NORTH_AMERICAN, st.sampled_from(["FR", "CA"]), st.sampled_from(["0", "9"]))
def test_a_number_behind_the_outside_prefix_is_the_number(number: str, country: str, prefix: str) -> None:
    assert e164(prefix + national(number, country), country, outside_prefix=prefix) == number


@given(st.text(max_size=30) | st.text("0123456789+#*;, .()", max_size=25), COUNTRY, PREFIX)
def test_whatever_is_dialled_is_a_number_in_full_or_none(dialled: str, country: str, prefix: str | None) -> None:
    number = e164(dialled, country, outside_prefix=prefix)
    if number is not None:
        assert number[0] == "+" and number[1:].isascii() and number[1:].isdecimal() and 6 <= len(number) <= 18
        assert e164(number, country, outside_prefix=prefix) == number
        assert national(number, country).isdecimal()


def test_a_national_number_is_what_is_dialled_at_home() -> None:
    assert national("+33199000100", "FR") == "0199000100"
    assert national("+15145550100", "CA") == "5145550100"
    assert national("+15145550100", "FR") == "0015145550100"
    assert national("+33199000100", "CA") == "01133199000100"


@pytest.mark.parametrize("text", ["", "101", "0199000100", "anonymous"])
def test_only_a_number_in_full_has_a_national_form(text: str) -> None:
    with pytest.raises(ValueError, match="is no E.164 number"):
        national(text, "FR")


# Emergency numbers


@pytest.mark.parametrize(
    "country, listed",
    [
        ("FR", "15 17 18 112 114 115 116000 116111 116117 119 191 196 197 3114"),
        ("CA", "911 112 988"),
        ("US", "911 112 988"),
        ("GB", "112 999 18000"),
        ("BE", "100 101 112 103 104 105 106 107 110 116000"),
        ("CH", "112 117 118 144 1414 1415 143 145 147"),
        ("DE", "110 112 116117"),
        ("GP", "15 17 18 112"),
        ("ES", "112"),
    ],
)
def test_each_emergency_number_of_a_country_is_known(country: str, listed: str) -> None:
    assert [emergency(number, country) for number in listed.split()] == listed.split()
    assert set(listed.split()) <= set(emergency_numbers(country))


WRITTEN = st.sampled_from(["{}", "{}#", "{}##", " {} ", "{},1", "{};phone-context=x", "{}p2", "{}W"])


EMERGENCY = COUNTRY.flatmap(lambda country: st.tuples(st.just(country), st.sampled_from(emergency_numbers(country))))


@given(EMERGENCY, WRITTEN, st.sampled_from(["", "+{}", "00{}", "011{}"]), PREFIX, st.booleans())
def test_an_emergency_number_is_heard_however_it_is_dialled(
    number_of: tuple[str, str], written: str, abroad: str, prefix: str | None, with_prefix: bool
) -> None:
    country, number = number_of
    code = {"FR": 33, "CA": 1, "US": 1, "GB": 44, "BE": 32, "CH": 41, "DE": 49}[country]
    dialled = (prefix or "" if with_prefix and abroad[:1] != "+" else "") + abroad.format(code) + number
    assert emergency(written.format(dialled), country, prefix) == number


@pytest.mark.parametrize(
    "dialled, country, prefix, meant",
    [
        ("1 1 2", "FR", None, "112"),
        ("１１２", "FR", None, "112"),
        ("1-1-2", "FR", None, "112"),
        ("+3315", "FR", None, "15"),
        ("9911", "US", "9", "911"),
        ("9999", "GB", "9", "999"),
        ("911", "US", "9", "911"),
        ("0 15", "FR", "0", "15"),
    ],
)
def test_spaces_other_digits_and_the_outside_prefix_hide_no_emergency(
    dialled: str, country: str, prefix: str | None, meant: str
) -> None:
    assert emergency(dialled, country, prefix) == meant


@pytest.mark.parametrize(
    "dialled, country, prefix",
    [
        ("0112", "FR", None), ("9911", "US", None), ("9112", "US", None), ("9999", "GB", None), ("1125", "FR", None),
        ("150", "FR", None), ("112555", "FR", None), ("+44112", "FR", None), ("+1112", "FR", None), ("15", "CA", None),
        ("911", "FR", None), ("", "FR", "0"), ("0", "FR", "0"), ("anonymous", "FR", None), ("*112", "FR", None),
        ("1112", "FR", "0"), ("0199000112", "FR", "0"),
    ],
)
def test_a_number_that_only_looks_like_an_emergency_is_an_ordinary_one(
    dialled: str, country: str, prefix: str | None
) -> None:
    assert emergency(dialled, country, prefix) is None


@given(st.integers(0, 999_999).map(str), COUNTRY)
def test_nothing_but_the_listed_numbers_is_an_emergency(dialled: str, country: str) -> None:
    """A match by the beginning of the number would be a way around every limit."""
    known = emergency_numbers(country)
    code = {"FR": "33", "CA": "1", "US": "1", "GB": "44", "BE": "32", "CH": "41", "DE": "49"}[country]
    abroad = {access + code + number for access in ("00", "011") for number in known}
    assert (emergency(dialled, country) is not None) == (dialled in known or dialled in abroad)


@given(st.text(max_size=30), st.text(max_size=3), PREFIX)
def test_no_text_is_too_odd_to_be_asked_about(dialled: str, country: str, prefix: str | None) -> None:
    assert emergency(dialled, country, prefix) in (None, *numbers.emergency_numbers(country))
