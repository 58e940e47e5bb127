from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated
from typing import Any
from typing import Literal
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator
from pydantic import Field
from pydantic import ValidationError
from pydantic import ValidationInfo
from pydantic import field_validator
from pydantic import model_validator

from pbx.yamlfile import Mapping
from pbx.yamlfile import Milliseconds
from pbx.yamlfile import Model
from pbx.yamlfile import Problem
from pbx.yamlfile import Problems
from pbx.yamlfile import Sequence
from pbx.yamlfile import Text
from pbx.yamlfile import Where
from pbx.yamlfile import duration
from pbx.yamlfile import load
from pbx.yamlfile import parse
from pbx.yamlfile import suggest
from pbx.yamltree import MAX_BYTES
from pbx.yamltree import MAX_DEPTH
from pbx.yamltree import Node
from pbx.yamltree import read_tree


def _even(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd: write an even number")
    return number


class Box(Model):
    pin: Text = Field(description="asked for on the telephone")
    max: Annotated[Milliseconds, Field(ge=1_000, le=3_600_000)] = 180_000
    keep: Annotated[int, AfterValidator(_even)] | Literal["for ever"] = 2


class Line(Model):
    name: Text
    for_: Milliseconds = 20_000
    box: Box | None = None
    lamp: bool = False
    then: Text | list[Line] | Line = Text("nobody")

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, Text) else data


class Office(Model):
    lines: dict[Text, Line]
    open: Text = Text("")
    size: int = 1


def office(text: str | bytes) -> Office:
    return parse(text, "o.yml", Office)


def problems(text: str | bytes, model: type[Model] = Office, context: Any = None) -> list[str]:
    with pytest.raises(Problems) as raised:
        parse(text, "o.yml", model, context=context)
    return str(raised.value).split("\n")


# What a file says


def test_a_file_becomes_a_model(tmp_path: Path) -> None:
    file = tmp_path / "office.yml"
    text = 'lines:\n  "101": {name: Zoé, for: 1h30, box: {pin: 0042, keep: for ever}, lamp: on}\nsize: 12\n'
    file.write_text(text, "utf-8")
    told = load(file, Office)
    alice = told.lines[Text("101")]
    assert (alice.name, alice.for_, alice.lamp, told.size) == ("Zoé", 5_400_000, True, 12)
    assert alice.box == Box(pin=Text("0042"), max=180_000, keep="for ever")
    assert str(alice.name.where) == f"{file}:2:17"


@pytest.mark.parametrize("written", "+33199000100 0123 12:30 no 1e3 0x10 2030-12-31 ~ null = 1_000".split())
def test_an_unquoted_text_stays_as_it_is_written(written: str) -> None:
    assert office(f"lines: {{{written}: {written}}}").lines == {written: Line(name=Text(written))}


def test_every_value_key_and_model_knows_its_place() -> None:
    text = '# a comment\nlines:\n  "101":\n    name: "Alice"\n    box: {pin: 1}\n  "102": Bob\n'
    told = office(text)
    alice, bob = told.lines.values()
    assert told.where == Where("o.yml", 2, 1)
    assert [key.where for key in told.lines] == [Where("o.yml", 3, 3), Where("o.yml", 6, 3)]
    assert alice.where == Where("o.yml", 4, 5)
    assert alice.name.where == Where("o.yml", 4, 11)
    assert alice.box and alice.box.where == Where("o.yml", 5, 10)
    assert bob.where == bob.name.where == Where("o.yml", 6, 10)
    assert str(bob.where) == "o.yml:6:10"


def test_lines_are_counted_alike_whatever_ends_them_and_whatever_the_editor_put_first() -> None:
    for text in ("lines: {}\nsise: 3\n", "lines: {}\r\nsise: 3\r\n", "\ufefflines: {}\nsise: 3", "lines: {}\rsise: 3"):
        assert problems(text) == problems(text.encode()) == ['o.yml:2:1: unknown key "sise" (did you mean "size"?)']


def test_equal_content_is_equal_wherever_it_is_written() -> None:
    here, there = parse("lines: {a: b}", "here.yml", Office), parse("\n\nlines:\n  a: {name: b}", "there.yml", Office)
    assert here == there and here.where != there.where
    assert here != parse("lines: {a: c}", "here.yml", Office)


def test_an_alias_repeats_a_value() -> None:
    text = "lines:\n  a: &b {name: B, box: &pin {pin: 1}}\n  c: *b\n  d: {name: D, box: *pin}\n"
    told = office(text)
    assert told.lines[Text("a")] == told.lines[Text("c")]
    assert told.lines[Text("d")].box == Box(pin=Text("1"))


def test_a_model_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        office("lines: {}").size = 3  # type: ignore[misc]


# What is wrong with a file


def test_all_problems_are_told_at_once_in_the_order_of_the_file() -> None:
    text = "size: many\nlines:\n  a: {nam: A, lamp: maybe}\n  b: {name: B, for: soon, box: {pim: 1}}\n  b: again\n"
    assert problems(text) == [
        'o.yml:1:7: expected a whole number, not "many"',
        'o.yml:3:7: unknown key "nam" (did you mean "name"?)',
        'o.yml:3:21: expected yes or no, not "maybe"',
        'o.yml:4:21: expected a time such as "20s", "500ms", "2min" or "1h30", not "soon"',
        'o.yml:4:33: unknown key "pim" (did you mean "pin"?)',
        'o.yml:5:3: "b" is already set on line 4, column 3: remove one of the two',
    ]


def test_a_missing_key_is_explained_by_its_description() -> None:
    assert problems("lines: {a: {name: A, box: {}}}") == ['o.yml:1:27: missing key "pin": asked for on the telephone']


def test_a_union_answers_with_one_voice() -> None:
    assert problems("lines: {a: {name: A, then: {nam: B}}}") == [
        'o.yml:1:29: unknown key "nam" (did you mean "name"?)'
    ]
    assert problems("lines: {a: {name: A, then: [B, {name: C, for: 3}]}}") == [
        'o.yml:1:47: expected a time such as "20s", "500ms", "2min" or "1h30", not "3": write "3s" for seconds'
    ]
    assert problems("lines: {a: {name: A, box: {pin: 1, keep: some}}}") == [
        'o.yml:1:42: expected a whole number or "for ever", not "some"'
    ]
    assert problems("lines: {a: {name: A, box: {pin: 1, keep: 3}}}") == ["o.yml:1:42: 3 is odd: write an even number"]


def test_limits_are_told_in_the_units_of_the_file() -> None:
    assert problems("lines: {a: {name: A, box: {pin: 1, max: 2h}}}") == ['o.yml:1:41: must be at most 1h, not "2h"']


def test_a_validator_can_point_anywhere_and_sees_the_context() -> None:
    class Guest(Model):
        line: Text
        room: Text

        @field_validator("room")
        @classmethod
        def _room(cls, room: Text, info: ValidationInfo) -> Text:
            rooms: list[str] = info.context or []
            if room not in rooms:
                raise ValueError(f'no room "{room}" {suggest(room, rooms, "rooms")}')
            return room

        @model_validator(mode="after")
        def _apart(self) -> Self:
            if self.line == self.room:
                raise Problems([Problem(self.line.where, "the same"), Problem(self.room.where, "as this")])
            return self

    class Hotel(Model):
        guests: list[Guest]

    written = "guests:\n- {line: a, room: 7}\n- {line: 12, room: 12}\n- {line: a, room: 1a2}\n"
    assert problems(written, Hotel, context=["12", "14"]) == [
        'o.yml:2:19: no room "7" (rooms: 12, 14)',
        "o.yml:3:10: the same",
        "o.yml:3:20: as this",
        'o.yml:4:19: no room "1a2" (did you mean "12"?)',
    ]


def test_a_problem_with_what_a_validator_made_up_is_told_where_it_came_from() -> None:
    class Door(Model):
        code: int

        @model_validator(mode="before")
        @classmethod
        def _code_alone(cls, data: Any) -> Any:
            return {"code": str(data)} if isinstance(data, Text) else data

    class House(Model):
        doors: list[Door]

    assert problems("doors: [{code: 1}, abc]", House) == ['o.yml:1:20: expected a whole number, not "abc"']


@pytest.mark.parametrize("text", ["", b"", "\ufeff", "---", "# nothing\n", "\n\n", "--- #"])
def test_an_empty_file_is_told_apart(text: str | bytes) -> None:
    assert problems(text) == ["o.yml:1:1: the file is empty"]


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "huge.yml"
    with open(file, "wb") as huge:
        huge.truncate(MAX_BYTES + 1)
    with pytest.raises(Problems, match=r"huge\.yml:1:1: too big: at most 5 MB are read; split it"):
        load(file, Office)


def test_a_file_that_cannot_be_read_is_a_problem_like_others(tmp_path: Path) -> None:
    with pytest.raises(Problems, match=r"none\.yml:1:1: cannot be read: No such file or directory"):
        load(tmp_path / "none.yml", Office)
    with pytest.raises(Problems, match=r":1:1: cannot be read: Is a directory"):
        load(tmp_path, Office)


def test_what_is_not_utf8_is_shown_with_its_line() -> None:
    assert problems("lines: {}\n# café\nopen: café\n".encode("latin-1")) == [
        'o.yml:2:6: not UTF-8: byte 0xE9 (is it "é"?); save the file as UTF-8'
    ]
    assert problems("lines: {}\n".encode("utf-16")) == ["o.yml:1:1: not UTF-8 but UTF-16: save the file as UTF-8"]


def test_a_file_that_is_no_text_at_all_is_told_in_a_few_lines() -> None:
    assert len(problems("\x00\x01" * 100_000)) == 20


def test_nesting_has_an_end() -> None:
    assert problems("[" * 100_000) == [f"o.yml:1:{MAX_DEPTH + 1}: nested more than {MAX_DEPTH} levels deep"]
    deep = "lines: {a: " + "{name: a, then: " * (MAX_DEPTH - 2) + "b" + "}" * (MAX_DEPTH - 1)
    assert office(deep).lines[Text("a")].where == Where("o.yml", 1, 12)


def test_a_number_with_thousands_of_digits_is_only_a_wrong_number() -> None:
    assert "expected a whole number" in problems(f"lines: {{}}\nsize: {'9' * 5000}")[0]
    assert "expected a time" in problems(f"lines: {{a: {{name: a, for: {'9' * 5000}s}}}}")[0]


def test_a_warning_says_so_and_repetitions_are_told_once() -> None:
    here = Where("o.yml", 3, 1)
    warning = Problem(here, "nobody answers", warning=True)
    assert str(Problems([warning, Problem(here, "b"), warning, Problem(Where("o.yml", 2, 9), "a")])) == (
        "o.yml:2:9: a\no.yml:3:1: b\no.yml:3:1: warning: nobody answers"
    )


def test_a_word_is_corrected_or_the_choices_are_listed() -> None:
    assert suggest("pley", ["play", "say"], "steps") == '(did you mean "play"?)'
    assert suggest("PLAY", ["play", "say"], "steps") == '(did you mean "play"?)'
    assert suggest("103", ["102", "101"], "lines") == "(lines: 101, 102)"
    assert suggest("a", [], "lines") == "(lines: none)"
    assert suggest("x", map(str, range(1000, 1025)), "lines").endswith("1019 and 5 more)")


# Times


@pytest.mark.parametrize(
    "written, milliseconds",
    [
        ("20s", 20_000), ("500ms", 500), ("2min", 120_000), ("2m", 120_000), ("1h30", 5_400_000), ("0s", 0),
        ("1h30min", 5_400_000), ("1min30", 90_000), ("1m30", 90_000),
        ("1 h 30", 5_400_000), ("1h 2min 3s 4ms", 3_723_004),
    ],
)
def test_a_time_is_written_as_people_do(written: str, milliseconds: int) -> None:
    assert office(f"lines: {{a: {{name: a, for: {written}}}}}").lines[Text("a")].for_ == milliseconds


@pytest.mark.parametrize("written", ["-1s", "s", "30h1h", "1s2h", "20 seconds", "1.5s", "1h300", "[20s]", "{20s}"])
def test_what_is_no_time_is_refused(written: str) -> None:
    assert "expected a time such as" in problems(f"lines: {{a: {{name: a, for: {written}}}}}")[0]


@given(st.integers(0, 10**9))
def test_a_time_is_read_back_as_it_was_shown(milliseconds: int) -> None:
    text = f"pin: 1\nmax: {duration(milliseconds)}\n"

    class Time(Model):
        pin: Text
        max: Milliseconds

    assert parse(text, "o.yml", Time).max == milliseconds


# Whatever is written

_YAML_LIKE = st.text(alphabet=st.sampled_from("ab:- \n\t[]{},\"'#&*!|>%@`?~<.\\0é\r\x85\u2028\ufeff"), max_size=80)


@given(st.one_of(st.text(max_size=200), _YAML_LIKE, _YAML_LIKE.map(lambda text: f"lines:\n  a: {text}")))
def test_no_text_is_ever_answered_with_anything_but_problems(text: str) -> None:
    try:
        office(text)
    except Problems as found:
        _all_places_exist(found, text)


@given(st.binary(max_size=200))
def test_no_bytes_are_ever_answered_with_anything_but_problems(data: bytes) -> None:
    try:
        office(data)
    except Problems as found:
        assert found.problems


def _all_places_exist(found: Problems, text: str) -> None:
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert found.problems
    for where, message, _ in found.problems:
        assert message
        assert 1 <= where.line <= len(lines) and 1 <= where.column <= len(lines[where.line - 1]) + 1, where


_WORDS = st.text(alphabet="abcxyz0123456789+é", min_size=1, max_size=8)
_DOCUMENTS = st.recursive(
    _WORDS,
    lambda inner: st.lists(inner, min_size=1, max_size=4) | st.dictionaries(_WORDS, inner, min_size=1, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(_WORDS, _DOCUMENTS, min_size=1, max_size=4), st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_every_value_stands_where_the_tree_says(document: dict[str, Any], block: bool, newline: str) -> None:
    text = _block(document, 0) if block else _flow(document)
    tree, found = read_tree(text.replace("\n", newline).encode(), "o.yml")
    assert tree == document and not found
    lines = text.split("\n")
    for node in _nodes(tree):
        start = lines[node.where.line - 1][node.where.column - 1:]
        if isinstance(node, Text):
            assert start.startswith(node)
        elif isinstance(node, Mapping):
            assert start.startswith(next(iter(node)) if block else "{")
        else:
            assert start.startswith("-" if block else "[")
    # Every word is found once at each place: none of two nodes claims the place of the other.
    places = [node.where for node in _nodes(tree) if isinstance(node, Text)]
    assert len(places) == len(set(places))


def _nodes(node: Node) -> list[Node]:
    if isinstance(node, Mapping):
        return [node, *(inner for pair in node.items() for part in pair for inner in _nodes(part))]
    if isinstance(node, Sequence):
        return [node, *(inner for part in node for inner in _nodes(part))]
    return [node]


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(inner)}" for key, inner in value.items()) + "}"
    return f"[{',  '.join(map(_flow, value))}]" if isinstance(value, list) else str(value)


def _block(value: Any, indent: int) -> str:
    space = "\n" + " " * indent
    if isinstance(value, dict):
        return "".join(f"{space}{key}: {_block(inner, indent + 2)}" for key, inner in value.items())
    if isinstance(value, list):
        return "".join(f"{space}- {_block(inner, indent + 2)}" for inner in value)
    return str(value)


# Editors


def test_a_json_schema_lets_editors_check_what_is_written() -> None:
    schema = Office.model_json_schema()
    line, box = schema["$defs"]["Line"]["properties"], schema["$defs"]["Box"]["properties"]
    assert line["for"]["type"] == "string" and line["for"]["default"] == "20s"
    assert line["name"]["type"] == ["string", "number", "boolean"]  # an editor takes 101 and no for other than texts
    assert "yes" in json.dumps(line["lamp"])
    assert box["pin"]["description"] == "asked for on the telephone"
    assert schema["additionalProperties"] is False and "where" not in json.dumps(schema)


def test_a_model_is_written_as_json_in_the_words_of_the_file() -> None:
    told = office("lines: {a: {name: A, for: 90s}}")
    written = json.loads(told.model_dump_json(by_alias=True))["lines"]["a"]
    assert (written["name"], written["for"]) == ("A", "1min30s")
