"""What admins read is true: each example of the manuals is a plan, and the schema takes what the check takes."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator
from plans import plan

from pbx.dialplan import check
from pbx.expression import GIVEN
from pbx.links import PlanFile
from pbx.manual import manual
from pbx.manual import schema
from pbx.step import Step
from pbx.steps import STEPS

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "dialplans").glob("*.yml"))
SCHEMA = schema()


def complaints(written: str) -> list[str]:
    """What an editor would underline."""
    return [error.message for error in Draft7Validator(SCHEMA).iter_errors(yaml.safe_load(written))]


def blocks(text: str) -> list[str]:
    """The YAML in a Markdown page."""
    return re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)


def whole(example: str) -> str:
    """An example as a plan of its own: with the parts that it takes for granted."""
    present = set(yaml.safe_load(example) or {})
    parts = {
        "tenant": "tenant: acme\n", "country": "country: FR\n", "timezone": "timezone: Europe/Paris\n",
        "lines": 'lines:\n  "101": {name: Alice}\n  "102": {name: Bob, voicemail: {pin: "4711"}}\n',
        "flows": "flows:\n  welcome: [answer]\n",
    }
    if not present & {"language", "languages"}:
        parts["language"] = "language: fr\n"
    return example + "".join(text for key, text in parts.items() if key not in present)


def test_the_schema_beside_the_manuals_is_that_of_the_code() -> None:
    """When this fails: ./run schema > docs/plan.schema.json"""
    assert json.loads((ROOT / "docs" / "plan.schema.json").read_text()) == SCHEMA


def test_the_manual_of_the_steps_is_that_of_the_code() -> None:
    """When this fails: ./run steps > docs/steps.md"""
    assert (ROOT / "docs" / "steps.md").read_text() == manual() + "\n"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_example_plans_name_the_schema_and_satisfy_it(path: Path) -> None:
    text = path.read_text()
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    assert named and (path.parent / named[1]).resolve() == ROOT / "docs" / "plan.schema.json"
    assert complaints(text) == []


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.word)
def test_every_example_of_a_step_can_be_used(step: type[Step], tmp_path: Path) -> None:
    found = blocks(inspect.getdoc(step) or "")
    assert found
    flows = "greeting: [answer]\nsupport: [answer]"
    steps = "".join(f"- if:\n    when: caller\n    then:\n{indent(example, '      ')}" for example in found)
    path = plan(tmp_path, steps, flows=flows, language="languages: [fr, en]")
    text = path.read_text().replace("  desk:", "  accueil: {pin: '1234'}\n  support: {pin: '1234'}\n  desk:")
    path.write_text(text.replace('"102": {', '"102": {voicemail: {pin: "4711"}, '))
    problems = [problem for problem in check([path]) if not problem.warning]
    # The examples show one language, and files that the reader has.
    assert [
        str(problem) for problem in problems
        if not re.search(r"several languages|no sound file", problem.message)
    ] == []
    assert complaints(path.read_text()) == []


@pytest.mark.parametrize("example", blocks((ROOT / "docs" / "plans.md").read_text()))
def test_every_example_of_the_guide_is_a_plan(example: str, tmp_path: Path) -> None:
    if example.startswith("prompt:"):
        menu = "flows:\n  welcome:\n    - record: name\n    - menu:\n        keys: {'1': hangup}\n"
        example = "languages: [fr, en]\n" + menu + indent(example, " " * 8)
    path = tmp_path / "acme.yml"
    path.write_text(whole(example))
    assert [str(problem) for problem in check([path]) if not problem.warning] == []
    assert complaints(path.read_text()) == []


def test_the_guide_tells_of_every_key_and_variable() -> None:
    guide = (ROOT / "docs" / "plans.md").read_text()
    for name, meaning in GIVEN.items():
        assert f"| `{name}` | {meaning} |" in guide
    for field in PlanFile.model_fields:
        assert re.search(rf"`{field}`|^{field}:|\*\*{field}\*\*", guide, re.MULTILINE), field


@pytest.mark.parametrize(
    "wrong",
    [
        "flows: {welcome: [pley]}",
        "flows: {welcome: [{pley: beep}]}",
        "flows: {welcome: [{say: Bonjour, dial: '101'}]}",
        "flows: {welcome: [say]}",
        "flows: {welcome: [{dial: {too: '101'}}]}",
        "flows: {welcome: [{menu: {prompt: P, keys: {x: hangup}}}]}",
        "flows: {welcome: [{wait: 5}]}",
        "flows: {welcome: []}",
        "lines: {'101': {}}",
        "lines: {alice: {name: Alice}}",
        "groups: {sales: {lines: []}}",
        "unknown: key",
    ],
)
def test_the_schema_refuses_what_the_check_refuses(wrong: str, tmp_path: Path) -> None:
    path = tmp_path / "acme.yml"
    path.write_text(f"tenant: acme\ncountry: FR\nlanguage: fr\ntimezone: Europe/Paris\n{wrong}\n")
    assert any(not problem.warning for problem in check([path]))
    assert complaints(path.read_text())


def test_every_field_of_a_step_says_what_it_means() -> None:
    silent = [
        f"{name}.{key}"
        for name, model in _models().items() for key, found in model.get("properties", {}).items()
        if "description" not in found and not re.fullmatch("(fr|en|[a-z]+day)", key)
    ]
    assert silent == []


def _models() -> dict[str, Any]:
    models: dict[str, Any] = {name: model for name, model in SCHEMA["$defs"].items() if name != "Step"}
    return models
