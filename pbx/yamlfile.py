"""YAML text to pydantic models, every problem as `file:line:column: message` with its remedy, all at once.

YAML guesses: it reads +33199000100 as a number, 0123 as 83, 12:30 as 750 and `no` as false. Here nothing is guessed.
Every scalar and every key arrives as a Text, which knows its place, and the type of the field says what it means:

    class Trunk(Model):
        host: Text
        port: int = 5060
        from_: bool = False             # the key is `from`: an underscore at the end keeps Python's words apart
        answer_within: Milliseconds = 20_000

    trunk = load("trunk.yml", Trunk)        # raises Problems
    trunk.where, trunk.host.where           # where they are written

A validator that finds something wrong raises ValueError (reported at the value it was given) or Problems (anywhere).
Not read, on purpose: tags (`!secret`), merge keys (`<<`), several documents in one file, keys that are not a text.
Anchors and aliases are read. There is no null: an empty value is an error, a key without a value is left out.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated
from typing import Any
from typing import NamedTuple
from typing import Self
from typing import TypeVar

from pydantic import BaseModel
from pydantic import BeforeValidator
from pydantic import ConfigDict
from pydantic import GetCoreSchemaHandler
from pydantic import ModelWrapValidatorHandler
from pydantic import PlainSerializer
from pydantic import PrivateAttr
from pydantic import ValidationError
from pydantic import WithJsonSchema
from pydantic import model_validator
from pydantic_core import CoreSchema
from pydantic_core import ErrorDetails
from pydantic_core import PydanticCustomError
from pydantic_core import core_schema

from pbx.yamltree import MAX_BYTES
from pbx.yamltree import NOWHERE
from pbx.yamltree import Mapping
from pbx.yamltree import Node
from pbx.yamltree import Problem
from pbx.yamltree import Problems
from pbx.yamltree import Sequence
from pbx.yamltree import Text
from pbx.yamltree import Where
from pbx.yamltree import expected
from pbx.yamltree import read_tree
from pbx.yamltree import short

__all__ = [
    "NOWHERE", "Mapping", "Milliseconds", "Model", "Problem", "Problems", "Sequence", "Text", "Where",
    "duration", "load", "parse", "suggest", "understand",
]


# What a scalar means


def _whole_number(value: object) -> object:
    if isinstance(value, int):
        return value
    if not isinstance(value, Text):
        raise expected("a whole number")
    if re.fullmatch(r"[+-]?(0|[1-9][0-9]{0,17})", value):
        return int(value)
    zeros = re.fullmatch(r"0+([0-9]{1,17})", value)
    raise expected("a whole number", f"write {int(zeros[1])}, without zeros in front" if zeros else "")


_YES = ("yes", "true", "on")
_NO = ("no", "false", "off")


def _yes_or_no(value: object) -> object:
    if isinstance(value, bool):
        return value
    if not isinstance(value, Text):
        raise expected("yes or no")
    if value.lower() in _YES + _NO:
        return value.lower() in _YES
    raise expected("yes or no")


_UNITS = {"h": 3_600_000, "min": 60_000, "s": 1_000, "ms": 1}  # the next unit is what 30 means in 1h30
_DURATION = re.compile(r"(?:(\d{1,6})\s*h)?\s*(?:(\d{1,9})\s*m(?:in)?)?\s*(?:(\d{1,9})\s*s)?\s*(?:(\d{1,9})\s*ms)?")
_HOURS_AND = re.compile(r"(\d{1,6})\s*(h|m|min)\s*(\d{1,2})")


def _milliseconds(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = value.strip() if isinstance(value, str) and len(value) < 50 else ""
    if mixed := _HOURS_AND.fullmatch(text):
        unit, below = ("h", "min") if mixed[2] == "h" else ("min", "s")
        return int(mixed[1]) * _UNITS[unit] + int(mixed[3]) * _UNITS[below]
    if text and (parts := _DURATION.fullmatch(text)):
        return sum(int(part) * unit for part, unit in zip(parts.groups(), _UNITS.values()) if part)
    bare = re.fullmatch(r"\d{1,9}", text)
    raise expected('a time such as "20s", "500ms", "2min" or "1h30"', f'write "{text}s" for seconds' if bare else "")


def duration(milliseconds: int) -> str:
    """Milliseconds as an admin writes them: 90000 is "1min30s", 0 is "0s"."""
    parts = []
    for name, unit in _UNITS.items():
        count, milliseconds = divmod(milliseconds, unit)
        if count:
            parts.append(f"{count}{name}")
    return "".join(parts) or "0s"


_EDITOR_DURATION = {
    "type": "string",
    "pattern": r"^\s*([0-9]+\s*(h|m|min)\s*[0-9]{1,2}|([0-9]+\s*(h|m|min|s|ms)\s*)+)\s*$",
    "description": 'A time with its unit: "20s", "500ms", "2min", "1h30"',
}
Milliseconds = Annotated[
    int,
    BeforeValidator(_milliseconds),
    PlainSerializer(duration, return_type=str, when_used="json"),
    WithJsonSchema(_EDITOR_DURATION),
]


def _read_scalars(schema: Any) -> Any:
    """`int` and `bool`, wherever they stand in a type, read what an admin writes: pydantic's take 0123 and "t"."""
    if isinstance(schema, list):
        return [_read_scalars(part) for part in schema]
    if isinstance(schema, tuple):  # a branch of a union, with its label
        return tuple(_read_scalars(part) for part in schema)
    if not isinstance(schema, dict):
        return schema
    kind = schema.get("type")
    if kind == "int":
        return core_schema.no_info_before_validator_function(_whole_number, schema)
    if kind == "bool":
        words = core_schema.literal_schema(["yes", "no", "on", "off"])
        editors = core_schema.union_schema([core_schema.bool_schema(), words])
        return core_schema.no_info_before_validator_function(_yes_or_no, schema, json_schema_input_schema=editors)
    if kind == "function-before" and schema["function"]["function"] in (_whole_number, _yes_or_no, _milliseconds):
        return schema
    not_schemas = ("metadata", "serialization", "default", "function", "config") if isinstance(kind, str) else ()
    return {key: part if key in not_schemas else _read_scalars(part) for key, part in schema.items()}


# Models


def _show_defaults(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """An editor proposes a default as it is written: 20s, not 20000."""
    for field in model.model_fields.values():
        shown = schema.get("properties", {}).get(field.alias, {})
        if shown.get("pattern") == _EDITOR_DURATION["pattern"] and isinstance(field.default, int):
            shown["default"] = duration(field.default)


class Model(BaseModel):
    """A mapping in a YAML file. Immutable; unknown keys are refused; equal content is equal wherever it is written."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=lambda name: name.rstrip("_"), json_schema_extra=_show_defaults
    )

    _where: Where = PrivateAttr(default_factory=lambda: NOWHERE)

    @property
    def where(self) -> Where:
        """Where the mapping (or the short form that stands for it) starts."""
        return self._where

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    @model_validator(mode="wrap")
    @classmethod
    def _place(cls, data: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(data, Node):
            return handler(data)
        try:
            model = handler(data)
        except ValidationError as error:
            if all(not detail["loc"] for detail in error.errors(include_url=False)):
                raise  # about the whole value: whoever holds it knows what else may stand there
            raise PydanticCustomError("problems", "{problems}", {"problems": _explain(error, data, cls)}) from None
        model._where = data.where
        return model

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[BaseModel], handler: GetCoreSchemaHandler) -> CoreSchema:
        schema: CoreSchema = _read_scalars(handler(source))
        return schema


M = TypeVar("M", bound=Model)


def load(path: str | Path, model: type[M], *, context: Any = None) -> M:
    """A file's `model`; `context` reaches validators as `info.context`. Raises Problems, also if it cannot be read."""
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Problems([Problem(Where(str(path), 1, 1), f"cannot be read: {error.strerror}")]) from error
    return parse(text, str(path), model, context=context)


def parse(text: str | bytes, file: str, model: type[M], *, context: Any = None) -> M:
    """`text` as a `model`; `file` is the name that places carry. Raises Problems."""
    tree, problems = read_tree(text, file)
    try:
        result = understand(tree, model, context=context)
    except Problems as error:
        known = {problem.where for problem in problems}
        problems += [problem for problem in error.problems if problem.where not in known]
    if problems:
        raise Problems(problems)
    return result


def understand(tree: Node, model: type[M], *, context: Any = None) -> M:
    """A part of a file, kept as it is written until its `model` is known, as that model. Raises Problems."""
    try:
        return model.model_validate(tree, context=context)
    except ValidationError as error:
        raise Problems(_explain(error, tree)) from error


def suggest(word: str, choices: Iterable[str], what: str) -> str:
    """The remedy for a word that is not among the choices: `(did you mean "play"?)` or `(lines: 101, 102)`."""
    names = {choice.casefold(): choice for choice in choices}
    # Numbers that look alike are neighbours, not misspellings.
    close = [] if word.isdecimal() else difflib.get_close_matches(word.casefold(), names, 1)
    if close:
        return f'(did you mean "{names[close[0]]}"?)'
    listed = sorted(names.values())
    more = f" and {len(listed) - 20} more" if len(listed) > 20 else ""
    return f"({what}: {', '.join(listed[:20]) or 'none'}{more})"


# What pydantic found, in an admin's words

_MAPPING = "keys with their values"
_EXPECTED = {
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "dict_type": _MAPPING,
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "string_type": "a text",
    "string_sub_type": "a text",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a number",
    "date_type": 'a date such as "2030-12-31"',
    "date_from_datetime_parsing": 'a date such as "2030-12-31"',
    "date_parsing": 'a date such as "2030-12-31"',
    "time_type": 'a time of day such as "08:30"',
    "time_parsing": 'a time of day such as "08:30"',
    "none_required": "nothing",
}


class _Finding(NamedTuple):
    """One error of pydantic's: either what was expected of the value, or what is wrong with it."""

    value: Node
    expected: str = ""
    remedy: str = ""
    problems: tuple[Problem, ...] = ()
    beginning: bool = True  # about the value as a whole: of no interest once something inside it is wrong


def _explain(error: ValidationError, data: Node, model: type[Model] | None = None) -> list[Problem]:
    """Problems from pydantic's errors about `data`. With `model`: its own missing and unknown keys among them."""
    problems: list[Problem] = []
    findings: dict[int, list[_Finding]] = {}  # by what they are about
    missing: dict[str, Problem] = {}
    for detail in error.errors(include_url=False):
        if model and detail["type"] == "missing" and len(detail["loc"]) == 1:
            missing[str(detail["loc"][0])] = _missing(detail, data, model)
        elif model and detail["type"] == "extra_forbidden" and len(detail["loc"]) == 1:
            problems.append(_unknown(detail, data, model))
        else:
            value = _written(detail, data)
            findings.setdefault(id(value), []).append(_finding(detail, value))
    # A misspelt key is one mistake, not two.
    meant = "\n".join(problem.message for problem in problems)
    problems += [problem for key, problem in missing.items() if f'did you mean "{key}"' not in meant]
    groups = list(findings.values())
    inside = set().union(*(_parts(group[0].value) for group in groups)) & findings.keys() if len(groups) > 1 else set()
    for group in groups:
        # Of a union, the branches that could not even begin are silent when another one got inside.
        if all(finding.beginning for finding in group) and inside & _parts(group[0].value):
            continue
        problems += _verdict(group)
    return problems


def _finding(detail: ErrorDetails, value: Node) -> _Finding:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "problems":
        return _Finding(value, problems=tuple(context["problems"]), beginning=False)
    if kind == "expected":
        return _Finding(value, context["expected"], context["remedy"])
    if kind in _EXPECTED:
        return _Finding(value, _EXPECTED[kind])
    if kind in ("literal_error", "enum"):
        choices = re.findall(r"'([^']*)'", context["expected"])
        remedy = suggest(value, choices, "") if isinstance(value, Text) else ""
        return _Finding(value, _one_of(choices), remedy if "did you mean" in remedy else "")
    reason = context.get("error")
    if isinstance(reason, Problems):
        return _Finding(value, problems=tuple(reason.problems), beginning=False)
    message = _message(kind, str(reason or detail["msg"]), context, value)
    counted = kind in ("too_short", "too_long")  # pydantic counts the good ones only
    return _Finding(value, problems=(Problem(value.where, message),), beginning=counted)


def _message(kind: str, message: str, context: dict[str, Any], value: object) -> str:
    limits = {"greater_than_equal": ("ge", "at least"), "less_than_equal": ("le", "at most"),
              "greater_than": ("gt", "more than"), "less_than": ("lt", "less than")}
    if kind in limits:
        name, words = limits[kind]
        limit = context[name]
        in_units = isinstance(value, str) and re.search("[a-z]", value) and isinstance(limit, int)
        return f"must be {words} {duration(limit) if in_units else limit}, not {_describe(value)}"
    if kind in ("too_short", "string_too_short"):
        return f"too short: at least {context['min_length']} needed"
    if kind in ("too_long", "string_too_long"):
        return f"too long: at most {context['max_length']} allowed"
    if kind == "missing":
        return "a value is missing here"
    return message


def _missing(detail: ErrorDetails, data: Node, model: type[Model]) -> Problem:
    key = str(detail["loc"][0])
    about = next((field.description for field in model.model_fields.values() if field.alias == key), None)
    return Problem(data.where, f'missing key "{key}"' + (f": {about}" if about else ""))


def _unknown(detail: ErrorDetails, data: Node, model: type[Model]) -> Problem:
    name = str(detail["loc"][0])
    keys = data if isinstance(data, Mapping) else ()
    key = next((key for key in keys if key == name), data)
    known = [field.alias or "" for field in model.model_fields.values()]
    remedy = "(is a space missing after the dash?)" if name.startswith("-") else suggest(name, known, "keys")
    return Problem(key.where, f'unknown key "{short(name)}" {remedy}')


def _verdict(group: list[_Finding]) -> list[Problem]:
    """One answer for one value, though each branch of a union had its own complaint."""
    entered = [finding for finding in group if finding.problems]
    if entered:
        return list(min(entered, key=lambda finding: len(finding.problems)).problems)
    value = group[0].value
    wanted = list(dict.fromkeys(finding.expected for finding in group))
    remedy = next((finding.remedy for finding in group if finding.remedy), "") or _remedy(value, wanted)
    if remedy:
        remedy = f" {remedy}" if remedy.startswith("(") else f": {remedy}"
    found = f"but there is {value.blank} here" if isinstance(value, Text) and value.blank else f"not {_describe(value)}"
    return [Problem(value.where, f"expected {_one_of(wanted, '')}, {found}{remedy}")]


def _remedy(value: object, wanted: list[str]) -> str:
    if isinstance(value, Text):
        if value.blank:
            return ""
        glued = re.match(r"([\w.+-]+):(\S+)", value)
        if glued and _MAPPING in wanted:
            return f'write a space after the colon, "{glued[1]}: {short(glued[2])}"'
    if isinstance(value, Mapping) and wanted == ["a text"]:
        return "put it between quotes if it is one text"
    if wanted == ["a list"]:
        return 'begin each item with "- "'
    return ""


def _one_of(words: list[str], quote: str = '"') -> str:
    quoted = [f"{quote}{word}{quote}" for word in words]
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def _describe(value: object) -> str:
    if isinstance(value, dict):
        return _MAPPING
    if isinstance(value, list):
        return "a list"
    return f'"{short(str(value))}"'


def _parts(value: object) -> set[int]:
    """The ids of all that is inside a value."""
    found: set[int] = set()
    waiting = [value]
    while waiting:
        item = waiting.pop()
        children = [*item, *item.values()] if isinstance(item, dict) else item if isinstance(item, list) else []
        fresh = [child for child in children if id(child) not in found]
        found.update(map(id, fresh))
        waiting += fresh
    return found


def _written(detail: ErrorDetails, data: Node) -> Node:
    """What an error is about, as written; if a validator made that up, what stands around it."""
    if isinstance(detail["input"], Node):
        return detail["input"]
    value: Any = data
    for step in detail["loc"]:
        try:
            value = value[step]
        except (LookupError, TypeError):
            continue  # a step that names a branch of a union, not a part of the data
    return value if isinstance(value, Node) else data
