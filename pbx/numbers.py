"""Telephone numbers: what somebody dialled, as an E.164 number, as a national number, as an emergency number.

`country` is an ISO code such as "FR". `outside_prefix` is what a site dials before outside numbers ("0", "9"); a number
is understood with it and without.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator
from collections.abc import Mapping

import phonenumbers
from phonenumbers import NumberParseException
from phonenumbers import PhoneNumber
from phonenumbers import PhoneNumberFormat
from phonenumbers import ValidationResult
from phonenumbers import shortnumberinfo

COUNTRIES: frozenset[str] = frozenset(phonenumbers.SUPPORTED_REGIONS)

# Besides these, phonenumbers knows the main ones of every country; it lacks 114 in France and 112 in Guadeloupe.
_FRENCH = "15 17 18 112 114 115 116000 116111 116117 119 191 196 197 3114"
_EMERGENCY: Mapping[str, frozenset[str]] = {
    country: frozenset(listed.split())
    for country, listed in {
        "BE": "100 101 112 103 104 105 106 107 110 116000",
        "CA": "911 112 988",
        "CH": "112 117 118 144 1414 1415 143 145 147",
        "DE": "110 112 116117",
        **dict.fromkeys(("FR", "BL", "GF", "GP", "MF", "MQ", "PM", "RE", "YT"), _FRENCH),
        "GB": "112 999 18000",
        "US": "911 112 988",
    }.items()
}
_NANP = re.compile(r"\+1[2-9]\d{2}[2-9]\d{6}")


def e164(dialled: str, country: str, *, outside_prefix: str | None = None) -> str | None:
    """The number meant, as +33199000100; None if it is none of the public network (short, internal, not a number)."""
    candidates = [
        number for digits in _readings(dialled, outside_prefix, prefix_first=True)
        if (number := _parse(digits, country)) and _possible(digits, number, country)
    ]
    # A number in use is a better guess than one that merely has the right length; that covers numbers yet to be opened.
    candidates.sort(key=phonenumbers.is_valid_number, reverse=True)
    return str(phonenumbers.format_number(candidates[0], PhoneNumberFormat.E164)) if candidates else None


def national(number: str, country: str) -> str:
    """An E.164 number as it is dialled within `country`: 0199000100, 5145550100, 004420... Raises ValueError."""
    parsed = _parse(number, "ZZ")
    if parsed is None:
        raise ValueError(f'"{number}" is no E.164 number')
    if parsed.country_code == phonenumbers.country_code_for_region(country):
        written = phonenumbers.format_number(parsed, PhoneNumberFormat.NATIONAL)
    else:
        written = phonenumbers.format_out_of_country_calling_number(parsed, country)
    return re.sub(r"\D", "", written)


def emergency(dialled: str, country: str, outside_prefix: str | None = None) -> str | None:
    """The short emergency number meant, however it is written: +33112, 0112 behind the prefix 0, "1 1 2", 112#.

    `country` is where the caller is. The match is exact: a number that only begins like one is an ordinary number.
    """
    listed = _EMERGENCY.get(country, frozenset())
    code = phonenumbers.country_code_for_region(country)
    for digits in _readings(dialled, outside_prefix):
        abroad = re.fullmatch(rf"(?:\+|00|011){code}(\d+)", digits)
        for short in [digits, str(abroad[1])] if abroad else [digits]:
            if short in listed or _known_emergency(short, country):
                return short
    return None


@functools.cache
def emergency_numbers(country: str) -> tuple[str, ...]:
    """The emergency numbers of a country: "15", "112". For `country`s with longer ones than listed here, not all.

    `emergency` is what decides; this is for those who need a list.
    """
    # phonenumbers tells only whether a number is one. Five countries have a second one of five or six digits.
    known = (str(number) for number in range(10, 10_000) if _known_emergency(str(number), country))
    return tuple(sorted({*_EMERGENCY.get(country, ()), *known}))


def _readings(dialled: str, outside_prefix: str | None, *, prefix_first: bool = False) -> Iterator[str]:
    """The digits with and without the outside prefix; nothing if there is more than digits."""
    text = "".join(
        str(unicodedata.decimal(char)) if char.isdecimal() else char for char in unicodedata.normalize("NFKC", dialled)
    )
    text = re.split("[,;pwPW]", re.sub(r"[\s.\-()/]", "", text))[0].rstrip("#")
    if not re.fullmatch(r"\+?\d{1,30}", text):
        return
    behind = text.removeprefix(outside_prefix) if outside_prefix else text
    readings = [text] if behind in (text, "") else [behind, text] if prefix_first else [text, behind]
    yield from readings


def _parse(digits: str, country: str) -> PhoneNumber | None:
    try:
        return phonenumbers.parse(digits, country)
    except NumberParseException:
        return None


def _possible(digits: str, number: PhoneNumber, country: str) -> bool:
    if phonenumbers.is_valid_number(number):
        return True
    if number.country_code == 1 and not _NANP.fullmatch(phonenumbers.format_number(number, PhoneNumberFormat.E164)):
        return False
    return (
        phonenumbers.is_possible_number_with_reason(number) == ValidationResult.IS_POSSIBLE
        and not _known_short(digits, country)
    )


def _known_short(digits: str, country: str) -> bool:
    number = _parse(digits, country)
    return number is not None and shortnumberinfo.is_valid_short_number_for_region(number, country)


def _known_emergency(digits: str, country: str) -> bool:
    # Not connects_to_emergency_number: that asks how the number begins, and would let 1125551234 through unchecked.
    try:
        return shortnumberinfo.is_emergency_number(digits, country)
    except NumberParseException:
        return False
