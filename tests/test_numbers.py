from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbx.numbers import e164
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
