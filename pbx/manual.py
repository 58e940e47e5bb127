"""What helps an admin write a plan, made of the code: the JSON Schema for his editor, and the manual of the steps."""

from __future__ import annotations

import inspect
from typing import Any

from pydantic.json_schema import models_json_schema

from pbx.hours import Span
from pbx.links import PlanFile
from pbx.step import Step
from pbx.steps import STEPS
from pbx.yamlfile import Model

_REF = "#/$defs/"


def schema() -> dict[str, Any]:
    """The JSON Schema of a plan file, with every step and its short forms."""
    wanted: tuple[type[Model], ...] = (PlanFile, *STEPS)
    _, generated = models_json_schema([(model, "validation") for model in wanted], ref_template=_REF + "{model}")
    models = {name: _tidy(model) for name, model in generated["$defs"].items()}
    plan = models.pop(PlanFile.__name__)
    del models[Span.__name__]  # what times of the day become; they are written as texts
    models["Step"] = _one_step(models)
    models["Steps"] = {"anyOf": [_ref("Step"), {"type": "array", "items": _ref("Step"), "minItems": 1}]}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A plan of the PBX",
        **plan,
        "$defs": dict(sorted(models.items())),
    }


def _ref(model: str) -> dict[str, Any]:
    return {"$ref": _REF + model}


def _one_step(models: dict[str, Any]) -> dict[str, Any]:
    """A step is its bare word, or a mapping with its word as the only key."""
    bare = [step.word for step in STEPS if not models[step.__name__].get("required")]
    words = {step.word: _body(step, models[step.__name__], step.word in bare) for step in STEPS}
    only_one = {"additionalProperties": False, "minProperties": 1, "maxProperties": 1}
    return {"anyOf": [{"enum": bare}, {"type": "object", "properties": words, **only_one}]}


def _body(step: type[Step], model: dict[str, Any], may_be_empty: bool) -> dict[str, Any]:
    """What may stand behind the word."""
    forms = [] if step.always_short else [_ref(step.__name__)]
    if step.short:
        forms.insert(0, model["properties"][step.short])
    if may_be_empty:
        forms.append({"type": "null"})
    return {"description": inspect.getdoc(step), "anyOf": forms}


def _tidy(part: Any) -> Any:
    """Without pydantic's titles and nulls (in YAML a key is left out instead), and with the steps in their places."""
    if isinstance(part, list):
        return [_tidy(item) for item in part]
    if not isinstance(part, dict):
        return part
    if part.get("$comment") == "steps":
        return {**{key: value for key, value in part.items() if key == "description"}, **_ref("Steps")}
    tidy = {
        key: {name: _tidy(value) for name, value in found.items()} if key == "properties" else _tidy(found)
        for key, found in part.items()
        if not (key == "title" and isinstance(found, str)) and not (key == "default" and found in (None, {}, ()))
    }
    if "patternProperties" in tidy:
        tidy["additionalProperties"] = False
    if {"type": "null"} in tidy.get("anyOf", ()):
        others = [form for form in tidy.pop("anyOf") if form != {"type": "null"}]
        tidy = {**others[0], **tidy} if len(others) == 1 else {"anyOf": others, **tidy}
    return tidy


_INTRODUCTION = """# Steps

A flow is a list of steps, done one after another. A step is its word alone (`- answer`), the word with its main value
(`- say: Bonjour`), or the word with keys (`- dial: {to: sales, for: 20s}`). Where a key takes steps, one step may
stand without the list. Times have a unit: `20s`, `500ms`, `2min`.
"""


def manual() -> str:
    """The manual of all steps, as Markdown."""
    models = schema()["$defs"]
    return "\n".join([_INTRODUCTION, *(_page(step, models[step.__name__]) for step in STEPS)]).rstrip()


def _page(step: type[Step], model: dict[str, Any]) -> str:
    page = f"## {step.word}\n\n{inspect.getdoc(step)}\n"
    if step.always_short or not model.get("properties"):
        return page
    rows = [_row(key, found, key in model.get("required", ())) for key, found in model["properties"].items()]
    return "\n".join([page, "| key | meaning | if left out |", "|---|---|---|", *rows, ""])


def _row(key: str, found: dict[str, Any], required: bool) -> str:
    default = found.get("default", "")
    if isinstance(default, bool):
        default = "yes" if default else "no"
    missing = "needed" if required else f"`{default}`" if default != "" else ""
    meaning = str(found.get("description", "")).replace("|", "\\|")
    return f"| `{key}` | {meaning} | {missing} |"
