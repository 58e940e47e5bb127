"""Telephone numbers: what somebody dialled, as an E.164 number or as a national number.

`country` is an ISO code such as "FR". `outside_prefix` is what a site dials before outside numbers ("0", "9"); a number
is understood with it and without.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

import phonenumbers
from phonenumbers import NumberParseException
from phonenumbers import PhoneNumber
from phonenumbers import PhoneNumberFormat
from phonenumbers import ValidationResult
from phonenumbers import shortnumberinfo

COUNTRIES: frozenset[str] = frozenset(phonenumbers.SUPPORTED_REGIONS)

_NANP = re.compile(r"\+1[2-9]\d{2}[2-9]\d{6}")


def e164(dialled: str, country: str, *, outside_prefix: str | None = None) -> str | None:
    """The number meant, as +33199000100; None if it is none of the public network (short, internal, not a number)."""
    candidates = [
        number for digits in readings(dialled, outside_prefix, prefix_first=True)
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


def readings(dialled: str, outside_prefix: str | None, *, prefix_first: bool = False) -> Iterator[str]:
    """The digits that were dialled, perhaps with a +, and the same without the outside prefix.

    Signs that people and handsets put between or behind digits are dropped; nothing is given if there is more.
    """
    text = "".join(
        str(unicodedata.decimal(char)) if char.isdecimal() else char for char in unicodedata.normalize("NFKC", dialled)
    )
    text = re.split("[,;pwPW]", re.sub(r"[\s.\-()/]", "", text))[0].rstrip("#")
    if not re.fullmatch(r"\+?\d{1,30}", text):
        return
    behind = text.removeprefix(outside_prefix) if outside_prefix else text
    yield from [text] if behind in (text, "") else [behind, text] if prefix_first else [text, behind]


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
