"""What is an emergency number: the tables of config/emergency/*.yml, and the one judge of what somebody dialled.

Also where emergency calls of a place belong, for carriers that do not know it themselves (`Centres`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated
from typing import Literal

import phonenumbers
from phonenumbers import NumberParseException
from phonenumbers import shortnumberinfo
from pydantic import Field

from pbx.numbers import readings
from pbx.tenant import Country
from pbx.tenant import Form
from pbx.tenant import Insee
from pbx.tenant import PhoneNumber
from pbx.yamlfile import Model
from pbx.yamlfile import Problem
from pbx.yamlfile import Problems
from pbx.yamlfile import Text
from pbx.yamlfile import load

PACKAGED = Path(__file__).parent.parent / "config" / "emergency"

Kind = Literal["vital", "social"]
Short = Annotated[Text, Form(r"[0-9]{2,6}", "an emergency number has 2 to 6 digits")]
Service = Annotated[Text, Form(r"[a-z][a-z-]{0,29}", "a service is a word of small letters and -, such as sea-rescue")]

GENERAL = "general"  # the service that takes every emergency
_URN = re.compile(r"urn:service:sos(?:\.([a-z-]+))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Emergency:
    """What somebody dialled, as the emergency it is.

    `vital` has every guarantee; `social` is never refused, counted or billed, but takes nobody else's place.
    """

    number: str
    kind: Kind = "vital"
    service: str = GENERAL


class Listed(Model):
    """A number of a country's table. `valid_from` and the rest are for people: a listed number always counts."""

    kind: Kind
    service: Service = Field(description="general, police, fire, ambulance ...")
    valid_from: date | None = Field(None, description="When it came into service, where known")
    source: Text = Field(description="Who says so")
    checked_on: date | None = Field(None, description="When the source was last read; left out: never")
    recheck: Text | None = Field(None, description="What is not certain")


class Table(Model):
    """The emergency numbers of a country, and of places that have the same."""

    country: Country
    also: tuple[Country, ...] = ()
    numbers: dict[Short, Listed] = Field(min_length=1)


class Tables:
    """The emergency numbers of all countries: those listed, and those that phonenumbers knows exactly."""

    def __init__(self, tables: Iterable[Table] = ()) -> None:
        """Raises Problems when two tables are for one country."""
        self.by_country: dict[str, Table] = {}
        self._listed: dict[str, dict[str, Emergency]] = {}
        problems = []
        for table in tables:
            rows = table.numbers.items()
            listed = {str(number): Emergency(str(number), row.kind, str(row.service)) for number, row in rows}
            for country in (table.country, *table.also):
                other = self.by_country.setdefault(str(country), table)
                if other is not table:
                    problems.append(Problem(country.where, f"{country} has a table already, {other.where.file}"))
                self._listed[country] = listed
        if problems:
            raise Problems(problems)

    def classify(self, dialled: str, country: str, outside_prefix: str | None = None) -> Emergency | None:
        """The emergency meant, however it is written: +33112, 0112 behind the prefix 0, "1 1 2", 112#, 112,1.

        `country` is where the caller is. The match is exact: a number that only begins like one is an ordinary number.
        """
        if urn := _URN.fullmatch(dialled.strip()):
            return self._serving(urn[1] or GENERAL, country) or self.general(country)
        code = phonenumbers.country_code_for_region(country)
        for digits in readings(dialled, outside_prefix):
            abroad = re.fullmatch(rf"(?:\+|00|011){code}(\d+)", digits)
            for short in (digits, str(abroad[1])) if abroad else (digits,):
                if found := self._exactly(short, country):
                    return found
        return None

    def numbers(self, country: str) -> tuple[Emergency, ...]:
        """The emergency numbers of a country: as listed, then others known, but those of up to four digits only."""
        listed = self._listed.get(country, {})
        return (*listed.values(), *(one for number, one in _known(str(country)).items() if number not in listed))

    def general(self, country: str) -> Emergency | None:
        """The number that takes every emergency: 112, or 911; None where nobody knows one."""
        return self._serving(GENERAL, country)

    def doubts(self, country: str) -> Iterator[Problem]:
        """What is not certain in the table of a country, as warnings at their places."""
        table = self.by_country.get(country)
        for number, row in table.numbers.items() if table else ():
            if row.recheck:
                yield Problem(number.where, f"{number} is to be checked: {row.recheck}", warning=True)

    def _serving(self, service: str, country: str) -> Emergency | None:
        """The first vital number for a service, in the table's order."""
        found = (one for one in self.numbers(country) if one.kind == "vital" and one.service == service.lower())
        return next(found, None)

    def _exactly(self, short: str, country: str) -> Emergency | None:
        listed = self._listed.get(country, {}).get(short)
        return listed or (Emergency(short) if _known_exactly(short, country) else None)


def load_tables(folder: Path | None = None) -> Tables:
    """The tables that come with the PBX, each replaced by the file of the same name in `folder`.

    Raises Problems. A country is never lost because a folder of one's own leaves it out.
    """
    files = {path.name: path for path in sorted(PACKAGED.glob("*.yml"))}
    if folder is not None:
        files |= {path.name: path for path in sorted(folder.glob("*.yml"))}
    tables, problems = [], []
    for path in files.values():
        try:
            tables.append(load(path, Table))
        except Problems as error:
            problems += error.problems
    if problems:
        raise Problems(problems)
    return Tables(tables)


@functools.cache
def packaged_tables() -> Tables:
    """The tables that come with the PBX."""
    return load_tables()


# Where a place's emergency calls belong


class Centres(Model):
    """Telephone numbers of the emergency centres of each commune, from the lists that the State gives to operators.

    The key is the commune of the building, never its postcode. Such lists are confidential: none comes with the PBX.
    """

    source: Text
    valid_from: date
    valid_until: date | None = None
    communes: dict[Insee, dict[Short, tuple[PhoneNumber, ...]]]

    def numbers(self, insee: str, short: str) -> Sequence[str]:
        """The numbers to call in E.164, best first; empty when the list does not know."""
        return self.communes.get(Text(insee), {}).get(Text(short), ())


@functools.cache
def _known(country: str) -> dict[str, Emergency]:
    # Worked out at start, for the countries of all plans: this takes as long as a call has no time for.
    # phonenumbers tells only whether a number is one. Five countries have a second one of five or six digits.
    every = ("112", "911", *(str(number) for number in range(10, 10_000)))
    return {number: Emergency(number) for number in every if _known_exactly(number, country)}


def _known_exactly(short: str, country: str) -> bool:
    # The exact question alone: the library's other one asks how a number begins, and 1125551234 would go unchecked.
    try:
        return shortnumberinfo.is_emergency_number(short, country)
    except NumberParseException:
        return False
