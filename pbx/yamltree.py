"""YAML text to a tree of Text, Mapping and Sequence that know their places; nothing in it is guessed or converted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Iterator
from itertools import islice
from typing import Any
from typing import NamedTuple
from typing import NoReturn
from typing import Self

import yaml
from pydantic import GetCoreSchemaHandler
from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema
from pydantic_core import PydanticCustomError
from pydantic_core import core_schema

MAX_BYTES = 5_000_000
MAX_DEPTH = 100
MAX_BORROWED = 100_000  # values that aliases stand for

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is 20 times faster; a plan may have 10,000 lines


class Where(NamedTuple):
    """A place in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


NOWHERE = Where("(built in)", 1, 1)


class Problem(NamedTuple):
    where: Where
    message: str
    warning: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {'warning: ' if self.warning else ''}{self.message}"


class Problems(ValueError):
    """All that is wrong, sorted by place and without repetitions; printed one per line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(set(problems))
        super().__init__("\n".join(map(str, self.problems)))


class Text(str):
    """A scalar or key exactly as written, and where. `blank` is empty, or says what stands there instead of a value."""

    __slots__ = ("where", "blank")
    where: Where
    blank: str

    def __new__(cls, text: str, where: Where = NOWHERE, blank: str = "") -> Self:
        self = super().__new__(cls, text)
        self.where = where
        self.blank = blank
        return self

    @classmethod
    def _read(cls, value: object) -> Self:
        if isinstance(value, cls) and not value.blank:
            return value
        if isinstance(value, Text) and not value.blank:
            return cls(value, value.where)
        if isinstance(value, str) and not isinstance(value, Text):
            return cls(value)
        raise expected("a text")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._read, serialization=core_schema.plain_serializer_function_ser_schema(str.__str__)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        # An editor guesses types as YAML does, and must not complain of an unquoted telephone number.
        return {"type": ["string", "number", "boolean"]}


class Mapping(dict[Text, Any]):
    """Keys and values as written, and where they start."""

    __slots__ = ("where", "size")

    def __init__(self, where: Where) -> None:
        super().__init__()
        self.where = where
        self.size = 1  # values in here, those behind aliases counted each time


class Sequence(list[Any]):
    """A list as written, and where it starts."""

    __slots__ = ("where", "size")

    def __init__(self, where: Where) -> None:
        super().__init__()
        self.where = where
        self.size = 1


def expected(what: str, remedy: str = "") -> PydanticCustomError:
    return PydanticCustomError("expected", "expected {expected}", {"expected": what, "remedy": remedy})


_UNREADABLE = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_INVISIBLE = re.compile("[\xa0\u200b-\u200f\u2060]")
_NEWLINE = re.compile("\r\n|\r|\n")  # what editors count; str.splitlines knows more

Node = Text | Mapping | Sequence


def read_tree(text: str | bytes, file: str) -> tuple[Node, list[Problem]]:
    """The tree, and what is wrong but leaves a tree to look at. Raises Problems if nothing is left to look at."""
    reader = _Reader(_decode(text, file), file)
    return reader.read(), reader.problems


def _decode(text: str | bytes, file: str) -> str:
    if len(text) > MAX_BYTES:
        raise Problems([Problem(Where(file, 1, 1), f"too big: at most {MAX_BYTES // 1_000_000} MB are read; split it")])
    try:
        text = (text.decode("utf-8") if isinstance(text, bytes) else text).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise Problems([_not_utf8(error.object, error.start, file)]) from error
    unreadable = [
        Problem(_after(text[:found.start()], file), f"remove the invisible character U+{ord(found[0]):04X}")
        for found in islice(_UNREADABLE.finditer(text), 20)  # of a sound file, there may be millions
    ]
    if unreadable:
        raise Problems(unreadable)
    return text


def _not_utf8(data: bytes, offset: int, file: str) -> Problem:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return Problem(Where(file, 1, 1), "not UTF-8 but UTF-16: save the file as UTF-8")
    where = _after(data[:offset].decode("utf-8").removeprefix("\ufeff"), file)
    guess = data[offset:offset + 1].decode("cp1252", "replace")
    return Problem(where, f'not UTF-8: byte 0x{data[offset]:02X} (is it "{guess}"?); save the file as UTF-8')


def _after(text: str, file: str) -> Where:
    """The place where a text ends that begins the file."""
    lines = _NEWLINE.split(text)
    return Where(file, len(lines), len(lines[-1]) + 1)


class _Open(NamedTuple):
    """A mapping or list whose end has not come yet."""

    values: Mapping | Sequence
    anchor: str | None
    keys: list[Text | None]  # the key that waits for its value; None: its value is thrown away


class _Reader:
    """Builds the tree from YAML events: they come one by one, so that neither depth nor aliases can exhaust memory."""

    def __init__(self, source: str, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self._source = source
        self._lines = _NEWLINE.split(source)
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._borrowed = 0
        self._root: Node | None = None

    def read(self) -> Node:
        try:
            for event in yaml.parse(self._source, Loader=_Loader):
                self._take(event)
        except yaml.MarkedYAMLError as error:
            self._stop(*_syntax_problems(error, self._lines, self.file))
        except yaml.YAMLError as error:
            self._stop(Problem(Where(self.file, 1, 1), f"this is not YAML: {error}"))
        if self._root is None or isinstance(self._root, Text) and self._root.blank:
            self._stop(Problem(Where(self.file, 1, 1), "the file is empty"))
        return self._root

    def _stop(self, *problems: Problem) -> NoReturn:
        raise Problems([*self.problems, *problems])

    def _take(self, event: yaml.Event) -> None:
        where = _at(event.start_mark, self._lines, self.file)
        if isinstance(event, yaml.NodeEvent):
            self._check_tag(event, where)
        if isinstance(event, yaml.ScalarEvent):
            blank = "" if event.value or event.style else self._instead(where)
            self._add(Text(event.value, where, blank), event.anchor)
        elif isinstance(event, yaml.AliasEvent):
            self._add(self._behind(event.anchor or "", where), None, alias=where)
        elif isinstance(event, yaml.CollectionStartEvent):
            if len(self._open) == MAX_DEPTH:
                self._stop(Problem(where, f"nested more than {MAX_DEPTH} levels deep"))
            values = Mapping(where) if isinstance(event, yaml.MappingStartEvent) else Sequence(where)
            self._open.append(_Open(values, event.anchor, []))
        elif isinstance(event, yaml.CollectionEndEvent):
            done = self._open.pop()
            self._add(done.values, done.anchor)
        elif isinstance(event, yaml.DocumentStartEvent) and self._root is not None:
            self._stop(Problem(where, 'a second document begins here: a file holds one; remove this "---"'))

    def _check_tag(self, event: yaml.NodeEvent, where: Where) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None:
            name = tag.replace("tag:yaml.org,2002:", "!!")
            remedy = 'remove it, or put the text between quotes if the "!" belongs to it'
            self.problems.append(Problem(where, f'YAML tags ("{name}") are not read: {remedy}'))

    def _instead(self, where: Where) -> str:
        """What stands where a value could: nothing, or a comment (is it the code #31# without its quotes?)."""
        rest = self._lines[where.line - 1][where.column - 1:].strip(" \t:")
        return 'a comment (a value that starts with "#" needs quotes)' if rest.startswith("#") else "nothing"

    def _behind(self, anchor: str, where: Where) -> Node:
        if any(anchor == opened.anchor for opened in self._open):
            self._stop(Problem(where, f'"*{anchor}" stands for something that contains itself'))
        if anchor in self._anchors:
            return self._anchors[anchor]
        remedy = f'for the text itself, write "*{anchor}" between quotes'
        self.problems.append(Problem(where, f'"*{anchor}" stands for "&{anchor}", which is not set above: {remedy}'))
        return Text(f"*{anchor}", where)

    def _add(self, value: Node, anchor: str | None, alias: Where | None = None) -> None:
        size = 1 if isinstance(value, Text) else value.size
        if alias:
            self._borrowed += size
            if self._borrowed > MAX_BORROWED:
                self._stop(Problem(alias, f"the aliases up to here stand for more than {MAX_BORROWED} values"))
        if anchor:
            self._anchors[anchor] = value
        if not self._open:
            self._root = value
            return
        values, _, keys = self._open[-1]
        values.size += size
        if isinstance(values, Sequence):
            values.append(value)
        elif not keys:
            keys.append(self._key(values, value, alias or value.where))
        elif (key := keys.pop()) is not None:
            values[key] = value

    def _key(self, values: Mapping, key: Node, where: Where) -> Text | None:
        if not isinstance(key, Text):
            problem = 'a key must be a text; write it between quotes if it starts with "{" or "["'
        elif key.blank:
            problem = f'a key is missing here, there is {key.blank}; write "" for an empty one'
        elif key == "<<":
            problem = '"<<" is not read: write the keys out, or let an alias (*name) stand for the whole value'
        elif _INVISIBLE.search(key):
            problem = f'the key "{key}" contains an invisible character or a no-break space: type it again'
        elif key in values:
            first = next(other for other in values if other == key)
            place = f"line {first.where.line}, column {first.where.column}"
            problem = f'"{short(key)}" is already set on {place}: remove one of the two'
        else:
            return key
        self.problems.append(Problem(where, problem))
        return None


def short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 40 else line[:39] + "…"


_SYNTAX = {
    "found unexpected end of stream": "the quote opened here is never closed",
    "did not find expected ',' or ']'": 'the list opened here is not closed with "]", or a comma is missing in it',
    "did not find expected ',' or '}'": 'what is opened here is not closed with "}", or a comma is missing in it',
    "could not find expected ':'": 'this line is neither "key: value" nor "- item"',
    "did not find expected alphabetic or numeric character":
        'a text that starts with "*" or "&" needs quotes, because these two name and repeat values',
    "mapping values are not allowed": "this line is indented too far, or the line before must end with a colon",
    "did not find expected key": "this line does not line up with any line above: check the spaces in front of it",
    "did not find expected '-' indicator":
        'a list goes on here, so this line must begin with "- ", or stand further left if the list has ended',
    "block sequence entries are not allowed": 'begin the list on a new line: "- " cannot stand here',
    "found unknown escape character": "in double quotes a backslash needs another one before it; or use single quotes",
    "hexdecimal number": "in double quotes a backslash needs another one before it; or use single quotes",
    "cannot start any token": "a text cannot start with this character: put it between quotes",
    "did not find expected node content": "a value should stand here; use quotes if this character belongs to it",
    "<document start>": 'nothing can follow the "..." that ends the document: remove it',
    "comment or line break": 'the text of a "|" or ">" begins on the next line',
    "YAML document": 'a line that starts with "%" is not read: remove it',
    "directive": 'a line that starts with "%" is not read: remove it',
}
_ABOUT_THE_BEGINNING = ("end of stream", "',' or '", "expected ':'", "alphabetic or numeric")


def _at(mark: Any, lines: list[str], file: str) -> Where:
    """Where a mark of libyaml's or PyYAML's is. Their end of a file may be a line further than an editor's."""
    if mark is None or mark.line >= len(lines):
        return Where(file, len(lines), len(lines[-1]) + 1)
    return Where(file, mark.line + 1, mark.column + 1)


def _syntax_problems(error: yaml.MarkedYAMLError, lines: list[str], file: str) -> list[Problem]:
    """The parser stops at the first error; the message says what it means, at the place where it can be put right."""
    said = str(error.problem)
    opened = error.context_mark if any(phrase in said for phrase in _ABOUT_THE_BEGINNING) else None
    where = _at(opened or error.problem_mark, lines, file)
    line = lines[where.line - 1]
    before, after = line[:where.column - 1], line[where.column - 1:]
    level = error.context_mark.column if error.context_mark else 0
    if after.startswith("\t") or re.match(r" *\t", line):
        return list(_tabs(lines, file)) or [Problem(where, "a tab cannot stand here: use spaces")]
    message = next((text for phrase, text in _SYNTAX.items() if phrase in said), f"this is not valid YAML: {said}")
    if "mapping values" in said and re.search(r":\s", before):
        message = 'a text with a colon and a space inside needs quotes, as in "Paris: accueil"'
    elif "mapping values" in said:
        where = Where(file, where.line, len(before) - len(before.lstrip()) + 1)
    elif "expected ':'" in said and (glued := re.match(r"([\w.+-]+):(\S+)", after)):
        message = f'write a space after the colon: "{glued[1]}: {glued[2]}"'
    elif "expected ':'" in said and re.match(r"-\w", after):
        message = 'write a space after the dash: "- item"'
    elif "expected key" in said and before.strip():
        message = "the quotes are closed before this: a text with an apostrophe goes between double quotes"
    elif "expected key" in said and re.match(r"-(\s|$)", after) and level == len(before):
        message = "a list cannot begin here: the key above it has a value already"
    elif "node content" in said and not after.strip() and where.line == len(lines):
        message = "the file ends in the middle of a value: is a bracket not closed?"
    elif "<document start>" in said and "..." not in lines[:where.line - 1]:
        message = _SYNTAX["did not find expected key"]
    return [Problem(where, message)]


def _tabs(lines: list[str], file: str) -> Iterator[Problem]:
    for number, line in enumerate(lines, 1):
        if tab := re.match(r" *\t", line):
            yield Problem(Where(file, number, tab.end()), "a tab in front of the line: use spaces")
