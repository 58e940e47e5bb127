"""Contract profiles: figures as in the contracts, dated versions, and tenants who may only be stricter."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from contract_page import INTRODUCTION
from contract_page import page
from contract_page import proofs
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pbx.__main__ import app
from pbx.contract import Contracts
from pbx.contract import NoContract
from pbx.contract import Overrides
from pbx.contract import Profile
from pbx.contract import installed
from pbx.contract import load_contracts
from pbx.contract import tighten
from pbx.contract import unit
from pbx.yamlfile import Model
from pbx.yamlfile import Problems
from pbx.yamlfile import Text
from pbx.yamlfile import Where
from pbx.yamlfile import parse
from pbx.yamlfile import understand

ROOT = Path(__file__).parent.parent
CONTRACTS = load_contracts(ROOT / "config" / "contracts")
PROFILES = [profile for versions in CONTRACTS.versions.values() for profile in versions]
FIGURES: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "contracts" / "figures.yml").read_text("utf-8"))

TINY = """\
name: tiny
version: "1"
valid_from: "2020-01-01"
country: FR
documents:
  terms: {title: Terms, whose: Tiny, language: fr}
rules:
  - rule: R1
    clause: {document: terms, section: "3(a)"}
    says: {fr: Peu de minutes., en: Few minutes.}
    policy: fair-use
    figures:
      abnormal_from_minutes: {at_most: 5000}
    settings:
      warn_percent: [80, 90]
      then: review
  - rule: R4
    clause: {document: terms, section: "3(b)"}
    says: {fr: Un avis., en: A notice.}
    policy: fair-use
    settings:
      notice_days: {at_least: 7}
      countries: {among: [FR, BE]}
"""


class Settings(Model):
    """What a policy would make of TINY."""

    abnormal_from_minutes: int
    warn_percent: tuple[int, ...]
    then: Text
    notice_days: int
    countries: tuple[Text, ...]


def tiny(**changes: str) -> Profile:
    text = TINY
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return parse(text, "tiny.yml", Profile)


def own(policy: str, key: str, value: str | list[str]) -> Overrides:
    """What a tenant writes, at places of his own."""
    place = Where("acme.yml", 3, 20)
    written = Text(value, place) if isinstance(value, str) else tuple(Text(part, place) for part in value)
    return {Text(policy, Where("acme.yml", 2, 3)): {Text(key, Where("acme.yml", 3, 5)): written}}


def told(overrides: Overrides) -> Settings:
    return understand(tighten(tiny(), overrides).settings("fair-use"), Settings)


def complaint(overrides: Overrides) -> str:
    with pytest.raises(Problems) as raised:
        tighten(tiny(), overrides)
    return str(raised.value)


# -- the figures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_every_figure_of_a_profile_is_in_its_contract_and_none_is_forgotten(profile: Profile) -> None:
    found: dict[str, list[str]] = {}
    for rule in profile.rules:
        figures = [f"{figure.value} {unit(key)}" for key, figure in rule.figures.items()]
        if figures:
            found.setdefault(str(rule.clause), []).extend(figures)
    wanted = FIGURES[profile.name]["phones"]
    assert {clause: sorted(figures) for clause, figures in found.items()} == {
        clause: sorted(figures) for clause, figures in wanted.items()
    }


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_a_figure_that_is_no_matter_of_telephones_is_in_no_rule(profile: Profile) -> None:
    used = {
        (str(rule.clause), f"{figure.value} {unit(key)}")
        for rule in profile.rules for key, figure in rule.figures.items()
    }
    others = FIGURES[profile.name]["others"]
    assert not used & {(clause, figure) for clause, figures in others.items() for figure in figures}


def test_the_figures_are_those_of_profiles_that_are_there() -> None:
    assert set(FIGURES) == set(CONTRACTS.versions)


def test_every_rule_that_an_engine_can_hold_has_its_line() -> None:
    there = {str(rule.rule) for profile in PROFILES for rule in profile.rules}
    assert there == {f"R{number}" for number in range(1, 58)}


def test_a_caller_hears_the_reason_in_both_languages() -> None:
    for profile in PROFILES:
        for rule in profile.rules:
            if rule.announcement is not None:
                assert rule.announcement.fr != rule.announcement.en, (profile.name, rule.rule)


# -- what a profile says ------------------------------------------------------------------------------


def test_a_policy_is_told_the_values_of_all_its_rules_with_their_places() -> None:
    settings = told({})
    assert (settings.abnormal_from_minutes, settings.warn_percent, settings.notice_days) == (5000, (80, 90), 7)
    assert settings.countries == ("FR", "BE")
    assert str(settings.then.where) == "tiny.yml:16:13"


def test_a_value_that_the_policy_does_not_understand_is_told_with_its_place() -> None:
    with pytest.raises(Problems) as raised:
        understand(tiny(**{"{at_least: 7}": "soon"}).settings("fair-use"), Settings)
    assert str(raised.value) == 'tiny.yml:22:20: expected a whole number, not "soon"'


def test_each_value_leads_back_to_its_clause() -> None:
    rules = tiny().rules_of("fair-use")
    assert str(rules["abnormal_from_minutes"].clause) == "terms 3(a)"
    assert str(rules["notice_days"].clause) == "terms 3(b)"


def test_a_rule_waits_until_its_policy_is_installed() -> None:
    rule = tiny().rules[0]
    assert rule.lacks(frozenset()) == "policy fair-use"
    assert rule.lacks({"fair-use"}) == ""


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("notice_days", "days"), ("handed_over_business_days", "business_days"), ("fee_cents", "cents"),
        ("late_percent_points", "percent_points"), ("days", "days"), ("holidays", ""), ("minutes_used", ""),
    ],
)
def test_a_figure_ends_in_its_unit(key: str, found: str) -> None:
    assert unit(key) == found


# -- versions -----------------------------------------------------------------------------------------


def written(folder: Path, name: str, valid_from: str) -> None:
    (folder / name).write_text(TINY.replace("2020-01-01", valid_from))


def versions(folder: Path) -> Contracts:
    written(folder, "tiny.yml", "2020-01-01")
    written(folder, "tiny.2024-03-01.yml", "2024-03-01")
    return load_contracts(folder)


@pytest.mark.parametrize(
    ("day", "begun"),
    [
        (date(2020, 1, 1), date(2020, 1, 1)), (date(2024, 2, 29), date(2020, 1, 1)),
        (date(2024, 3, 1), date(2024, 3, 1)), (date(2024, 3, 2), date(2024, 3, 1)),
    ],
)
def test_calls_are_held_to_the_version_of_their_day(day: date, begun: date, tmp_path: Path) -> None:
    assert versions(tmp_path).valid("tiny", day).valid_from == begun


def test_before_its_first_day_a_contract_is_not_valid(tmp_path: Path) -> None:
    with pytest.raises(NoContract, match="it begins on 2020-01-01"):
        versions(tmp_path).valid("tiny", date(2019, 12, 31))


def test_an_unknown_contract_is_told_with_those_that_are_near() -> None:
    with pytest.raises(NoContract, match='did you mean "interox"'):
        CONTRACTS.valid("interrox", date(2026, 1, 1))


def test_a_profile_has_its_name_in_its_file_name(tmp_path: Path) -> None:
    written(tmp_path, "other.yml", "2020-01-01")
    with pytest.raises(Problems, match=r"other.yml:1:7: this file must be called tiny.yml, or tiny.2020-01-01.yml"):
        load_contracts(tmp_path)


def test_two_versions_of_one_day_are_one_too_many(tmp_path: Path) -> None:
    written(tmp_path, "tiny.yml", "2020-01-01")
    written(tmp_path, "tiny.2020-01-01.yml", "2020-01-01")
    with pytest.raises(Problems, match=r"tiny.2020-01-01.yml is valid from 2020-01-01, too"):
        load_contracts(tmp_path)


def test_all_that_is_wrong_in_a_folder_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("name: a\n")
    (tmp_path / "b.yml").write_text("")
    with pytest.raises(Problems) as raised:
        load_contracts(tmp_path)
    assert {Path(problem.where.file).name for problem in raised.value.problems} == {"a.yml", "b.yml"}


def test_a_folder_that_is_not_there_holds_no_contracts(tmp_path: Path) -> None:
    assert load_contracts(tmp_path / "nowhere") == Contracts({})


# -- tightening ---------------------------------------------------------------------------------------


@given(st.integers(min_value=0, max_value=20_000))
def test_a_limit_can_be_lowered_and_never_raised(minutes: int) -> None:
    overrides = own("fair-use", "abnormal_from_minutes", str(minutes))
    if minutes <= 5000:
        assert told(overrides).abnormal_from_minutes == minutes
    else:
        assert complaint(overrides) == (
            'acme.yml:3:20: "abnormal_from_minutes" is at most 5000 by the contract '
            f"(R1, terms 3(a), tiny.yml:13:30): write 5000 or less, not {minutes}"
        )


@given(st.integers(min_value=0, max_value=1000))
def test_a_time_of_grace_can_be_made_longer_and_never_shorter(days: int) -> None:
    overrides = own("fair-use", "notice_days", str(days))
    if days >= 7:
        assert told(overrides).notice_days == days
    else:
        assert f"write 7 or more, not {days}" in complaint(overrides)


@given(st.lists(st.sampled_from(["FR", "BE", "US"]), unique=True))
def test_a_choice_can_be_narrowed_and_never_widened(countries: list[str]) -> None:
    overrides = own("fair-use", "countries", countries)
    if countries and "US" not in countries:
        assert set(told(overrides).countries) == set(countries)
    else:
        assert ("remove US" if countries else "leave at least one") in complaint(overrides)


@pytest.mark.parametrize(("first", "then"), [("4000", "4001"), ("0", "1")])
def test_what_was_tightened_once_is_the_limit_of_the_next(first: str, then: str) -> None:
    stricter = tighten(tiny(), own("fair-use", "abnormal_from_minutes", first))
    with pytest.raises(Problems, match=f"write {first} or less, not {then}"):
        tighten(stricter, own("fair-use", "abnormal_from_minutes", then))


@pytest.mark.parametrize(
    ("policy", "key", "value", "message"),
    [
        ("fair-use", "then", "nothing",
         'acme.yml:3:20: "then" is review by the contract (R1, terms 3(a), tiny.yml:16:13): '
         "this is not for a tenant to change: remove it, or write review"),
        ("fair-use", "abnormal_from_minutes", "many",
         '"many" is no whole number: choose a smaller unit instead of a fraction'),
        ("fair-use", "abnormal_from_minutes", ["1", "2"], "one whole number is expected here, not a list"),
        ("fair-use", "abnormal_minutes", "1",
         'acme.yml:3:5: fair-use has no "abnormal_minutes" in contract tiny (did you mean "abnormal_from_minutes"?)'),
        ("fare-use", "then", "review",
         'acme.yml:2:3: contract tiny has no policy "fare-use" (did you mean "fair-use"?)'),
    ],
)
def test_what_a_tenant_cannot_say_is_told_with_its_place(
    policy: str, key: str, value: str | list[str], message: str
) -> None:
    assert message in complaint(own(policy, key, value))


def test_a_fixed_value_may_be_repeated() -> None:
    assert told(own("fair-use", "then", "review")).then == "review"
    assert told(own("fair-use", "warn_percent", ["80", "90"])).warn_percent == (80, 90)


def test_the_contract_itself_stays_as_it_is() -> None:
    profile = tiny()
    tighten(profile, own("fair-use", "abnormal_from_minutes", "1"))
    assert profile == tiny()


# -- what people read ---------------------------------------------------------------------------------


def test_the_page_of_the_contracts_is_that_of_profiles_and_tests() -> None:
    """When this fails: var/venv/bin/python tests/contract_page.py > docs/contracts.md"""
    assert (ROOT / "docs" / "contracts.md").read_text("utf-8") == page(proofs(ROOT / "tests"), installed()) + "\n"


def test_the_profile_that_the_page_shows_can_be_used() -> None:
    example = INTRODUCTION.split("```yaml\n")[1].split("```")[0]
    assert parse(example, "acme-house.yml", Profile).policies == ("standing",)


def test_a_test_says_which_rule_it_proves(tmp_path: Path) -> None:
    (tmp_path / "test_use.py").write_text(
        'import pytest\n\n@pytest.mark.rule("R1", "R4")\nasync def test_the_cap_holds() -> None: ...\n'
    )
    assert proofs(tmp_path) == {"R1": ["test_use.py: the cap holds"], "R4": ["test_use.py: the cap holds"]}
    shown = page(proofs(tmp_path), {"fair-use"})
    row = next(line for line in shown.splitlines() if "| R1 |" in line)
    assert row.endswith("| policy fair-use | test_use.py: the cap holds |")


def test_the_command_line_prints_a_contract_clause_by_clause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    listed = CliRunner().invoke(app, ["contract", "list"])
    assert listed.exit_code == 0
    assert all(profile.name in listed.output for profile in PROFILES)
    shown = CliRunner().invoke(app, ["contract", "show", "kompaas-pbxv", "--fr"])
    assert shown.exit_code == 0
    assert all(rule.clause.section in shown.output for rule in CONTRACTS.versions["kompaas-pbxv"][0].rules)
