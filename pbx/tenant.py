"""The nouns of a plan: sites, lines, groups, opening hours and voicemail boxes, as an admin writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Annotated
from typing import Any
from typing import ClassVar
from typing import Literal
from typing import Self
from typing import TypeVar
from zoneinfo import available_timezones

from pydantic import AfterValidator
from pydantic import BeforeValidator
from pydantic import Field
from pydantic import GetCoreSchemaHandler
from pydantic import GetJsonSchemaHandler
from pydantic import PrivateAttr
from pydantic import field_validator
from pydantic import model_validator
from pydantic_core import CoreSchema
from pydantic_core import core_schema

from pbx import numbers
from pbx.expression import Template
from pbx.hours import DAYS
from pbx.hours import Holidays
from pbx.hours import Span
from pbx.hours import Timetable
from pbx.hours import days
from pbx.hours import holiday_regions
from pbx.hours import spans
from pbx.prompt import Language
from pbx.prompt import Prompt
from pbx.prompt import under
from pbx.yamlfile import Milliseconds
from pbx.yamlfile import Model
from pbx.yamlfile import Problem
from pbx.yamlfile import Problems
from pbx.yamlfile import Text
from pbx.yamlfile import suggest

T = TypeVar("T", bound=Text)
RING_MS = 20_000
_LONGEST_RING_MS = 600_000


@dataclass(frozen=True, slots=True)
class Form:
    """How a text must look, for Annotated; `remedy` tells an admin."""

    pattern: str
    remedy: str

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^({self.pattern})$"}

    def _check(self, text: T) -> T:
        if not re.fullmatch(self.pattern, text):
            raise ValueError(f'"{text}" cannot stand here: {self.remedy}')
        return text


Name = Annotated[
    Text, Form(r"[a-z][a-z0-9_-]{0,39}", "a name begins with a small letter, then small letters, digits, - and _")
]
TenantName = Annotated[
    Text,
    Form(
        r"(?!trunk$)[a-z][a-z0-9-]{0,29}",
        'a tenant has a name of small letters, digits and - (at most 30), first a letter, and not "trunk"',
    ),
]
ShortNumber = Annotated[Text, Form(r"[0-9]{2,6}", "a line has a short number of 2 to 6 digits")]
AnyNumber = Annotated[
    Text,
    Form(
        r"\+[1-9][0-9]{6,14}|[0-9]{2,6}",
        "write an outside number in full (+33199000100), or a short number of 2 to 6 digits",
    ),
]
Pin = Annotated[Text, Form(r"[0-9]{4,10}", "a PIN has 4 to 10 digits")]
Insee = Annotated[Text, Form(r"[0-9][0-9AB][0-9]{3}", "an INSEE code has five characters, such as 75108 or 2A004")]
Prefix = Annotated[Text, Form(r"[0-9]{1,3}", "an outside prefix has 1 to 3 digits")]


class OutsideNumber(Text):
    """A telephone number of the outside world, in full."""

    __slots__ = ()


PhoneNumber = Annotated[
    OutsideNumber,
    Form(r"\+[1-9][0-9]{6,14}", "write it in full, with + and the country's code, without spaces: +33199000100"),
]


class Reference(Text):
    """A name that must be given elsewhere in the plan; `kind` says as what."""

    __slots__ = ()
    kind: ClassVar[str]


class LineRef(Reference):
    __slots__ = ()
    kind = "line"


class GroupRef(Reference):
    __slots__ = ()
    kind = "group"


class SiteRef(Reference):
    __slots__ = ()
    kind = "site"


class Target(Template):
    """Whom to ring: a line, a group, an outside number in full; or a text with variables for one of the first two."""

    __slots__ = ()


class HoursRef(Reference):
    __slots__ = ()
    kind = "hours"


class FlowRef(Reference):
    __slots__ = ()
    kind = "flow"


class BoxRef(Reference):
    __slots__ = ()
    kind = "box"


class TrunkRef(Reference):
    __slots__ = ()
    kind = "trunk"


def _known_country(country: Text) -> Text:
    if country not in numbers.COUNTRIES:
        raise ValueError(f'no country "{country}" {suggest(country.upper(), numbers.COUNTRIES, "countries")}')
    return country


Country = Annotated[Text, AfterValidator(_known_country)]


RingTime = Annotated[Milliseconds, Field(ge=1_000, le=_LONGEST_RING_MS)]


class Box(Model):
    """A voicemail box."""

    pin: Pin = Field(repr=False, description="Asked for when its messages are listened to")
    greeting: Prompt | None = Field(None, description="Heard before the tone, instead of the standard text")
    min: Milliseconds = Field(2_000, ge=0, description="A shorter message is thrown away")
    max: Milliseconds = Field(180_000, ge=1_000, le=3_600_000, description="A message ends after this time")

    @model_validator(mode="after")
    def _min_below_max(self) -> Self:
        if self.min >= self.max:
            raise ValueError('"min" must be shorter than "max"')
        return self


class SharedBox(Box):
    """A voicemail box of several people."""

    lines: tuple[LineRef, ...] = Field((), description="Lines whose message lamp shows it")


class Address(Model):
    """Where help must come: the address of the building, and where in it. Not the one that invoices go to."""

    street: Text = Field(description="Its name, with what kind of street it is")
    house: Text | None = Field(None, description="Number in the street, such as 12 or 12 bis")
    postcode: Text = Field(description="As the post writes it")
    city: Text = Field(description="The town, or the commune")
    region: Text | None = Field(None, description="Province, state or region; in North America in two letters: QC")
    country: Country | None = Field(None, description="If not the site's")
    insee: Insee | None = Field(None, description="In France: the code of the commune, or of the arrondissement")
    building: Text | None = Field(None, description="Which, where there are several")
    floor: Text | None = Field(None, description="Such as 3")
    room: Text | None = Field(None, description="Or the part of the floor")
    name: Text | None = Field(None, description="Who is there: the company on the door")


class Site(Model):
    """A place with handsets; its country and prefix decide how outside numbers are dialled from there."""

    number: PhoneNumber | None = Field(None, description="Shown when a line without a number of its own calls out")
    country: Country | None = Field(None, description="If not the tenant's")
    outside_prefix: Prefix | None = Field(None, description='Dialled before outside numbers, such as "0"')
    trunk: TrunkRef | None = Field(None, description="Outside calls go out here, if not by the tenant's trunk")
    address: Address | None = Field(None, description="Told to the emergency service that a line here calls")


class Line(Model):
    """A handset, or several under one number. `id` is its short number."""

    name: Text = Field(description="Shown to whom it calls")
    site: SiteRef | None = Field(None, description="Needed when there are several sites")
    number: PhoneNumber | None = Field(None, description="Its own outside number, shown when it calls out")
    language: Language | None = Field(None, description="What its user hears, if not the tenant's language")
    for_: RingTime = Field(RING_MS, description="How long it rings before voicemail takes the call")
    voicemail: Box | None = Field(None, description="Its own box; without one, callers hear why nobody answers")

    _id: str = PrivateAttr("")

    @property
    def id(self) -> str:
        return self._id


class Group(Model):
    """Lines that ring together or one after another."""

    lines: tuple[LineRef, ...] = Field(min_length=1, description="Who rings, by short number")
    ring: Literal["all", "in order"] = Field("all", description="All at once, or one after another")
    for_: RingTime = Field(RING_MS, description='How long; with "in order", each of them')

    @model_validator(mode="after")
    def _each_line_once(self) -> Self:
        twice = [line for index, line in enumerate(self.lines) if line in self.lines[:index]]
        if twice:
            raise Problems(Problem(line.where, f'line "{line}" is already in this group: remove it') for line in twice)
        return self


def _stretches(value: Any) -> Any:
    if not isinstance(value, Text) or value.blank:
        raise ValueError('expected times of the day: "09:00-12:30 13:30-18:00", "closed" or "all day"')
    return spans(value)


Stretches = Annotated[tuple[Span, ...], BeforeValidator(_stretches, json_schema_input_type=str)]


class Hours(Model):
    """When something is open. A day's own hours come before `weekdays` and `weekend`, and these before `everyday`."""

    everyday: Stretches | None = Field(None, description='Such as "09:00-12:30 13:30-18:00", "closed" or "all day"')
    weekdays: Stretches | None = Field(None, description="Monday to Friday")
    weekend: Stretches | None = Field(None, description="Saturday and Sunday")
    monday: Stretches | None = None
    tuesday: Stretches | None = None
    wednesday: Stretches | None = None
    thursday: Stretches | None = None
    friday: Stretches | None = None
    saturday: Stretches | None = None
    sunday: Stretches | None = None
    holidays: Text | None = Field(
        None, description='Closed on the public holidays of a country ("FR") or of a part of it ("CA-QC")'
    )
    exceptions: dict[Text, Stretches] = Field(
        {}, description='Other hours on some days: "2026-12-24", "2026-08-01..2026-08-15"'
    )

    @field_validator("holidays")
    @classmethod
    def _known_region(cls, region: Text | None) -> Text | None:
        if region is not None:
            regions = tuple(holiday_regions(region.partition("-")[0]))
            if region not in regions:
                raise ValueError(f'no public holidays are known for "{region}" {suggest(region, regions, "known")}')
        return region

    @field_validator("exceptions")
    @classmethod
    def _days_once(cls, exceptions: dict[Text, tuple[Span, ...]]) -> dict[Text, tuple[Span, ...]]:
        seen: dict[date, Text] = {}
        problems = []
        for text in exceptions:
            try:
                found = days(text)
            except ValueError as error:
                problems.append(Problem(text.where, str(error)))
                continue
            twice = next((day for day in found if day in seen), None)
            if twice is not None:
                line = seen[twice].where.line
                problems.append(Problem(text.where, f"{twice} is already set on line {line}: remove it here or there"))
            seen.update(dict.fromkeys(found, text))
        if problems:
            raise Problems(problems)
        return exceptions

    @model_validator(mode="after")
    def _ever_open(self) -> Self:
        if not any(self._week()) and not any(self.exceptions.values()):
            raise ValueError('never open: write at least "weekdays: 09:00-18:00"')
        return self

    def _week(self) -> tuple[tuple[Span, ...], ...]:
        week = []
        for number, day in enumerate(DAYS):
            some = self.weekdays if number < 5 else self.weekend
            given = (getattr(self, day), some, self.everyday)
            week.append(next((spans for spans in given if spans is not None), ()))
        return tuple(week)

    def timetable(self) -> Timetable:
        """The same, ready to be asked."""
        return Timetable(
            self._week(),
            Holidays(self.holidays) if self.holidays else None,
            {day: stretches for text, stretches in self.exceptions.items() for day in days(text)},
        )


class Answers(Model):
    """Where a dialled number leads: to exactly one flow, line or group."""

    flow: FlowRef | None = Field(None, description="This flow is run")
    line: LineRef | None = Field(None, description="This line rings, then its voicemail takes the call")
    group: GroupRef | None = Field(None, description="This group rings")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(place is not None for place in (self.flow, self.line, self.group)) != 1:
            raise ValueError('needs exactly one of "flow", "line" and "group"')
        return self


def _flow_by_name(value: Any) -> Any:
    return under("flow", value) if isinstance(value, Text) else value


Answerer = Annotated[Answers, BeforeValidator(_flow_by_name, json_schema_input_type=Text | Answers)]


class Tenant(Model):
    """A customer: who and where he is, his handsets, and what they have; the flows come on top of this."""

    tenant: TenantName = Field(description="A short name, unique among tenants; handsets carry it in their user name")
    contract: Text | None = Field(None, description="The contract profile that the calls are held to")
    country: Country = Field(description='Where its numbers are at home: "FR"')
    timezone: Text = Field(description='Its clock: "Europe/Paris"')
    language: Language | None = Field(None, description="What callers hear")
    languages: tuple[Language, ...] | None = Field(
        None, description='Instead of "language", when there are several; the first is heard until another is set'
    )
    trunk: TrunkRef | None = Field(None, description="The trunk for outside calls; needed when there are several")
    sites: dict[Name, Site] = Field({}, description="Places with handsets, by name")
    lines: dict[ShortNumber, Line] = Field({}, description="Handsets, by short number")
    groups: dict[Name, Group] = Field({}, description="Lines that are called together, by name")
    hours: dict[Name, Hours] = Field({}, description="Opening hours, by name")
    voicemail: dict[Name, SharedBox] = Field({}, description="Shared boxes; a line's own stands with the line")
    numbers: dict[AnyNumber, Answerer] = Field(
        {}, description="What is called, outside numbers in full, short ones from the handsets; and which flow answers"
    )

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, zone: Text) -> Text:
        zones = available_timezones()
        if zone not in zones:
            raise ValueError(f'no time zone "{zone}" {suggest(zone, zones, "zones")}')
        return zone

    @model_validator(mode="after")
    def _lines_know_their_numbers(self) -> Self:
        for number, line in self.lines.items():
            line._id = number
        return self

    @model_validator(mode="after")
    def _language_once(self) -> Self:
        if (self.language is None) == (self.languages is None):
            raise ValueError('needs either "language: fr" or "languages: [fr, en]"')
        if self.languages is not None and len(set(self.languages)) != len(self.languages):
            raise ValueError('"languages" names one of them twice')
        return self

    @property
    def spoken(self) -> tuple[Language, ...]:
        """The languages that callers may hear, the usual one first; never empty."""
        if self.languages:
            return self.languages
        assert self.language is not None
        return (self.language,)
