"""docs/contracts.md, made of the profiles and of the tests that say which rule they prove.

    @pytest.mark.rule("R1")
    async def test_...

    var/venv/bin/python tests/contract_page.py > docs/contracts.md
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Set
from pathlib import Path

from pbx.contract import Profile
from pbx.contract import Rule
from pbx.contract import installed
from pbx.contract import load_contracts

ROOT = Path(__file__).parent.parent
INTRODUCTION = """# Contracts

A tenant's plan names the contract that his calls are held to (`contract: ooma-wework`). The profiles are files of
`config/contracts/`. Each line below says what a clause asks, in words of this project: the contract itself decides.

A rule is *held by* a policy when that policy is installed; else the line says what it waits for. Rules of several
contracts that have one number are of one kind. `at most`, `at least` and `among` show on which side a tenant may be
stricter; other values are fixed. No rule can hold back an emergency call.

`./run contract list` lists the profiles, `./run contract show NAME` prints one, and `./run check` finds what is wrong.

## A profile of your own

```yaml
name: acme-house
version: "1"
valid_from: "2027-01-01"            # in the tenant's time zone
country: FR
documents:
  terms: {title: "Conditions générales", whose: "ACME Télécom", language: fr}
rules:
  - rule: R20
    clause: {document: terms, section: "7.2"}
    says:
      fr: "Une facture impayée suspend le service."
      en: "An unpaid bill suspends the service."
    policy: standing                # or waits_for: what is lacking to hold calls to it
    figures:                        # numbers that stand in the clause; the last word of a key is the unit
      overdue_after_days: {at_most: 30}
    settings:                       # what the policy needs besides, where the contract is silent
      restored_by: full-payment
    announcement:                   # what a caller hears whose call is refused or ended by it
      fr: "Le service de ce compte est suspendu."
      en: "The service of this account is suspended."
```

The file is `acme-house.yml`. A later version is another file, `acme-house.2028-01-01.yml`, and takes over on its day.
Money is in cents. Days, months and years are the calendar's; hours, minutes and seconds are spans of time. A document
that `translates` another one is for reading only: clauses and figures are taken from the one that prevails.
"""


def page(tests: Mapping[str, list[str]], policies: Set[str]) -> str:
    """The whole page; `tests` are the names of the tests that prove a rule."""
    contracts = load_contracts(ROOT / "config" / "contracts")
    profiles = [profile for versions in contracts.versions.values() for profile in versions]
    return "\n".join([INTRODUCTION, *(_contract(profile, tests, policies) for profile in profiles)]).rstrip()


def proofs(folder: Path) -> dict[str, list[str]]:
    """The tests below a folder, by the rule each is marked with: `file: name in words`."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("test_*.py")):
        for rule, name in _marked(ast.parse(path.read_text("utf-8"))):
            words = name.removeprefix("test_").replace("_", " ")
            found.setdefault(rule, []).append(f"{path.name}: {words}")
    return found


def _marked(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for mark in function.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.rule":
                    yield from ((ast.literal_eval(rule), function.name) for rule in mark.args)


def _contract(profile: Profile, tests: Mapping[str, list[str]], policies: Set[str]) -> str:
    documents = [
        f"- `{name}`: {document.title} ({document.whose}, {document.language}"
        + (f", {document.date}" if document.date else "")
        + (f", a translation of `{document.translates}`, which prevails" if document.translates else "") + ")"
        for name, document in profile.documents.items()
    ]
    return "\n".join([
        f"## {profile.name}", "",
        f"Version {profile.version}, valid from {profile.valid_from}, {profile.country}.", "",
        *documents, "",
        "| clause | rule | it asks | values | held by | tested by |", "|---|---|---|---|---|---|",
        *(_row(rule, tests.get(rule.rule, []), policies) for rule in profile.rules), "",
    ])


def _row(rule: Rule, tests: list[str], policies: Set[str]) -> str:
    lacking = rule.lacks(policies)
    values = "<br>".join(f"`{key}`: {setting}" for key, setting in rule.values.items())
    held = f"*waits for {lacking}*" if lacking else f"policy {rule.policy}"
    cells = (str(rule.clause), rule.rule, f"{rule.says.en}<br>{rule.says.fr}", values, held, "<br>".join(tests))
    return f"| {' | '.join(cell.replace('|', ' ') for cell in cells)} |"


if __name__ == "__main__":
    print(page(proofs(ROOT / "tests"), installed()))
