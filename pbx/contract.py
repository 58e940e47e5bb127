"""Contract profiles: what each contract asks of the engine, clause by clause, as dated data.

config/contracts/NAME.yml is a profile, NAME.2027-01-01.yml another version of it, valid from that day on. A rule says
what its clause says in our own words, gives the clause's figures, and names the policy that holds calls to it, or what
is lacking for that:

    - rule: R1
      clause: {document: terms, section: "3(a)"}
      says: {fr: ..., en: ...}
      policy: fair-use
      figures: {abnormal_from_minutes: {at_most: 5000}}     # the contract's; the last word of a key is the unit
      settings: {warn_percent: [80, 90, 100]}               # ours, where the contract is silent

A policy is given the figures and settings of all its rules in one mapping. `at_most`, `at_least` and `among` say on
which side a tenant may be stricter (see tighten); a bare value is fixed. Money is in cents. Months, years, days and
business days are the calendar's, in the tenant's time zone; hours, minutes and seconds are spans of time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Mapping as Named
from collections.abc import Set
from dataclasses import dataclass
from datetime import date
from datetime import datetime
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated
from typing import Self

from pydantic import AfterValidator
from pydantic import BeforeValidator
from pydantic import Field
from pydantic import model_validator

from pbx.config import Country
from pbx.config import Name
from pbx.yamlfile import Mapping
from pbx.yamlfile import Model
from pbx.yamlfile import Problem
from pbx.yamlfile import Problems
from pbx.yamlfile import Sequence
from pbx.yamlfile import Text
from pbx.yamlfile import Where
from pbx.yamlfile import load
from pbx.yamlfile import suggest

PLUGINS = "pbx.policies"  # the group of entry points that policies are found by
POLICIES = ("abuse", "emergency", "fair-use", "lists", "standing")  # those that this project brings, or will

UNITS = (
    "business_days", "working_hours", "basis_points", "percent_points",
    "seconds", "minutes", "hours", "days", "months", "years", "cents", "percent", "people", "chargebacks",
)

Value = Text | tuple[Text, ...]
Overrides = dict[Text, dict[Text, Value]]  # what a tenant sets, by policy and key


class NoContract(Exception):
    """No profile has this name, or none of its versions is valid yet; the message says which there are."""


def _rule_id(text: Text) -> Text:
    if not re.fullmatch(r"R([1-9]|[1-4][0-9]|5[0-7])", text):
        raise ValueError(f'"{text}" is no rule: they are numbered R1 to R57')
    return text


def _key(text: Text) -> Text:
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", text):
        raise ValueError(f'"{text}" is no key: write small letters and digits, words joined by "_"')
    return text


def _figure_key(text: Text) -> Text:
    if unit(text) == "":
        raise ValueError(f'"{text}" does not end in a unit, as "notice_days" does (units: {", ".join(sorted(UNITS))})')
    return text


def _day(value: object) -> object:
    if not isinstance(value, Text) or value.blank:
        return value
    try:
        return datetime.strptime(value, "%Y-%m-%d").date()
    except ValueError:
        raise ValueError(f'"{value}" is no date: write it as in "2027-01-31"') from None


def _whole(text: Text) -> Text:
    if not re.fullmatch("0|[1-9][0-9]{0,11}", text):
        raise ValueError(f'"{text}" is no whole number: choose a smaller unit instead of a fraction')
    return text


RuleId = Annotated[Text, AfterValidator(_rule_id)]
Key = Annotated[Text, AfterValidator(_key)]
FigureKey = Annotated[Key, AfterValidator(_figure_key)]
Day = Annotated[date, BeforeValidator(_day)]
Number = Annotated[Text, AfterValidator(_whole)]


def unit(key: str) -> str:
    """The unit of a figure, which its key ends in; empty if there is none."""
    return next((unit for unit in UNITS if key == unit or key.endswith(f"_{unit}")), "")


class Words(Model):
    """A text in both languages."""

    fr: Text = Field(description="The text in French")
    en: Text = Field(description="The text in English")


class Document(Model):
    """A text that was agreed on."""

    title: Text
    whose: Text = Field(description="Who wrote it")
    language: Text
    date: Day | None = Field(None, description="Of the document, if it bears one")
    translates: Text | None = Field(None, description="The document that prevails over this one")


class Clause(Model):
    """A place in a document."""

    document: Text
    section: Text = Field(description="As the document numbers or heads it")

    def __str__(self) -> str:
        return f"{self.document} {self.section}"


class Setting(Model):
    """A value, and on which side a tenant may be stricter. Exactly one of the four is set."""

    at_most: Number | None = Field(None, description="Less is stricter")
    at_least: Number | None = Field(None, description="More is stricter")
    among: Annotated[tuple[Text, ...], Field(min_length=1)] | None = Field(None, description="Fewer are stricter")
    exactly: Value | None = Field(None, description="Not for a tenant to change")

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, data: object) -> object:
        return {"exactly": data} if isinstance(data, Text | Sequence) else data

    @model_validator(mode="after")
    def _one_of_the_four(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError('one of "at_most", "at_least" and "among" is needed here, or a bare value')
        return self

    @property
    def side(self) -> str:
        """The one that is set: at_most, at_least, among or exactly."""
        return next(iter(self.model_fields_set))

    @property
    def value(self) -> Value:
        """The value alone."""
        value: Value = getattr(self, self.side)
        return value

    def __str__(self) -> str:
        words = ", ".join(_several(self.value))
        return words if self.side == "exactly" else f"{self.side.replace('_', ' ')} {words}"

    def tightened(self, value: Value) -> Self:
        """The setting with a tenant's own value. Raises ValueError, with the remedy, if that is looser."""
        if self.side in ("at_most", "at_least"):
            self._check_number(value)
        elif self.side == "among":
            self._check_choice(_several(value))
            value = _several(value)
        elif _several(value) != _several(self.value):
            raise ValueError(f"this is not for a tenant to change: remove it, or write {self}")
        return self.model_copy(update={self.side: value})

    def _check_number(self, value: Value) -> None:
        limit = str(self.value)
        if not isinstance(value, Text):
            raise ValueError("one whole number is expected here, not a list")
        over = int(_whole(value)) - int(limit)
        if over > 0 and self.side == "at_most" or over < 0 and self.side == "at_least":
            raise ValueError(f"write {limit} or {'less' if over > 0 else 'more'}, not {value}")

    def _check_choice(self, wanted: tuple[Text, ...]) -> None:
        strange = [text for text in wanted if text not in _several(self.value)]
        if strange:
            raise ValueError(f"remove {', '.join(strange)}")
        if not wanted:
            raise ValueError("leave at least one of them")


class Figure(Setting):
    """A number that stands in the contract."""

    @model_validator(mode="after")
    def _a_number(self) -> Self:
        if not isinstance(self.value, Text):
            raise ValueError("a figure is one number; what is no number belongs under settings")
        _whole(self.value)
        return self


class Rule(Model):
    """What one clause asks of the engine."""

    rule: RuleId = Field(description="What kind of rule: rules of several contracts that have one id are alike")
    clause: Clause
    says: Words = Field(description="The clause in a few words of our own")
    figures: dict[FigureKey, Figure] = Field({}, description="The numbers that stand in the clause")
    policy: Text | None = Field(None, description="Who holds calls to it")
    settings: dict[Key, Setting] = Field({}, description="What the policy needs besides the figures")
    announcement: Words | None = Field(None, description="What a caller hears whose call is refused or ended by it")
    waits_for: Text | None = Field(None, description="What is lacking to hold calls to it")

    @model_validator(mode="after")
    def _held_or_waiting(self) -> Self:
        if (self.policy is None) == (self.waits_for is None):
            raise ValueError('needs either "policy", which holds calls to it, or "waits_for", what is lacking for that')
        if self.policy is None and self.settings:
            raise ValueError('nobody reads "settings" without a "policy": remove them')
        if self.policy is None and self.announcement:
            raise ValueError('nobody plays an "announcement" without a "policy": remove it')
        if self.policy is not None and self.policy not in POLICIES and self.policy not in installed():
            remedy = suggest(self.policy, {*POLICIES, *installed()}, "policies")
            raise Problems([Problem(self.policy.where, f'no policy "{self.policy}" {remedy}')])
        return self

    @property
    def values(self) -> dict[Text, Setting]:
        """Figures and settings."""
        return {**self.figures, **self.settings}

    @property
    def told(self) -> Mapping:
        """What the policy is told, as written: yamlfile.understand makes the policy's own model of it."""
        told = Mapping(self.where)
        told.update((key, _written(setting.value, setting.where)) for key, setting in self.values.items())
        return told

    def lacks(self, policies: Set[str]) -> str:
        """What must come before calls are held to it, given the installed policies; empty if nothing."""
        if self.waits_for is not None:
            return str(self.waits_for)
        return "" if self.policy in policies else f"policy {self.policy}"


class Profile(Model):
    """One version of a contract, as the engine holds calls to it."""

    name: Name
    version: Text
    valid_from: Day = Field(description="The first day on which calls are held to this version")
    country: Country
    documents: dict[Text, Document] = Field(description="What was agreed on, by a short name", min_length=1)
    rules: tuple[Rule, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = [*self._wrong_documents(), *self._rules_twice(), *self._settings_twice()]
        if problems:
            raise Problems(problems)
        return self

    def _wrong_documents(self) -> Iterator[Problem]:
        for document in self.documents.values():
            if document.translates is not None and document.translates not in self.documents:
                yield self._no_document(document.translates)
        for rule in self.rules:
            named = rule.clause.document
            if named not in self.documents:
                yield self._no_document(named)
            elif (original := self.documents[named].translates) is not None:
                message = f'"{named}" is a translation, and "{original}" prevails: take clause and figures from there'
                yield Problem(named.where, message)

    def _no_document(self, name: Text) -> Problem:
        return Problem(name.where, f'no document "{name}" {suggest(name, self.documents, "documents")}')

    def _rules_twice(self) -> Iterator[Problem]:
        seen: dict[tuple[str, str], Rule] = {}
        for rule in self.rules:
            first = seen.setdefault((rule.rule, str(rule.clause)), rule)
            if first is not rule:
                message = f"{rule.rule} of {rule.clause} is already there (line {first.where.line}): make them one"
                yield Problem(rule.rule.where, message)

    def _settings_twice(self) -> Iterator[Problem]:
        """A policy reads all its values from one mapping, and answers with the clause that a value comes from."""
        seen: dict[tuple[str, str], Text] = {}
        for rule in self.rules:
            for key in [*rule.figures, *rule.settings]:
                first = seen.setdefault((str(rule.policy), key), key)
                if rule.policy is not None and first is not key:
                    message = f'"{key}" is already told to {rule.policy} (line {first.where.line}): name it otherwise'
                    yield Problem(key.where, message)

    @property
    def policies(self) -> tuple[str, ...]:
        """The policies that hold calls to it, in the order of the rules."""
        return tuple(dict.fromkeys(str(rule.policy) for rule in self.rules if rule.policy is not None))

    def rules_of(self, policy: str) -> dict[str, Rule]:
        """Where each value that a policy is told comes from, by its key."""
        return {str(key): rule for rule in self.rules if rule.policy == policy for key in rule.values}

    def settings(self, policy: str) -> Mapping:
        """What a policy is told by all its rules together, as written."""
        told = Mapping(self.where)
        for rule in self.rules:
            if rule.policy == policy:
                told.update(rule.told)
        return told


def tighten(profile: Profile, overrides: Overrides) -> Profile:
    """The profile with a tenant's own values, each at least as strict as the contract's.

    Raises Problems: what is looser, unknown or of the wrong kind, with its place and the clause.
    """
    problems: list[Problem] = []
    stricter: dict[tuple[str, str], Setting] = {}
    for policy, values in overrides.items():
        if policy not in profile.policies:
            remedy = suggest(policy, profile.policies, "policies")
            problems.append(Problem(policy.where, f'contract {profile.name} has no policy "{policy}" {remedy}'))
            continue
        rules = profile.rules_of(policy)
        for key, value in values.items():
            if key not in rules:
                remedy = suggest(key, rules, "settings")
                problems.append(Problem(key.where, f'{policy} has no "{key}" in contract {profile.name} {remedy}'))
                continue
            setting = rules[key].values[key]
            try:
                stricter[policy, key] = setting.tightened(value)
            except ValueError as error:
                where = value.where if isinstance(value, Text) else key.where
                problems.append(Problem(where, f"{_contradicts(key, setting, rules[key])}: {error}"))
    if problems:
        raise Problems(problems)
    return profile.model_copy(update={"rules": tuple(_with_values(rule, stricter) for rule in profile.rules)})


def _contradicts(key: str, setting: Setting, rule: Rule) -> str:
    return f'"{key}" is {setting} by the contract ({rule.rule}, {rule.clause}, {setting.where})'


def _with_values(rule: Rule, stricter: Named[tuple[str, str], Setting]) -> Rule:
    def own(values: Named[Text, Setting]) -> dict[Text, Setting]:
        return {key: stricter.get((str(rule.policy), key), setting) for key, setting in values.items()}

    return rule.model_copy(update={"figures": own(rule.figures), "settings": own(rule.settings)})


def _several(value: Value) -> tuple[Text, ...]:
    return (value,) if isinstance(value, Text) else tuple(value)


def _written(value: Value, where: Where) -> Text | Sequence:
    if isinstance(value, Text):
        return value
    several = Sequence(where)
    several.extend(value)
    return several


def installed() -> frozenset[str]:
    """The names of the policies that are installed."""
    return frozenset(point.name for point in entry_points(group=PLUGINS))


@dataclass(frozen=True, slots=True)
class Contracts:
    """Every profile by its name, the versions of each from the oldest to the newest."""

    versions: Named[str, tuple[Profile, ...]]

    def valid(self, name: str, day: date) -> Profile:
        """The version that holds on a day, which is the tenant's own day. Raises NoContract."""
        versions = self.versions.get(name)
        if versions is None:
            raise NoContract(f'there is no contract "{name}" {suggest(name, self.versions, "contracts")}')
        begun = [profile for profile in versions if profile.valid_from <= day]
        if not begun:
            raise NoContract(f'contract "{name}" is not valid on {day}: it begins on {versions[0].valid_from}')
        return begun[-1]


def load_contracts(folder: Path) -> Contracts:
    """All profiles of a folder; an absent folder has none. Raises Problems: all that is wrong with any of them."""
    problems: list[Problem] = []
    found: dict[str, dict[date, Profile]] = {}
    for path in sorted(folder.glob("*.yml")):
        try:
            profile = load(path, Profile)
        except Problems as error:
            problems += error.problems
            continue
        names = (str(profile.name), f"{profile.name}.{profile.valid_from}")
        if path.stem not in names:
            problems.append(Problem(profile.name.where, f"this file must be called {names[0]}.yml, or {names[1]}.yml"))
        first = found.setdefault(profile.name, {}).setdefault(profile.valid_from, profile)
        if first is not profile:
            problems.append(Problem(profile.where, f"{first.where.file} is valid from {profile.valid_from}, too"))
    if problems:
        raise Problems(problems)
    return Contracts({
        name: tuple(versions[day] for day in sorted(versions)) for name, versions in sorted(found.items())
    })
