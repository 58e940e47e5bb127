"""What a plan computes: texts with `{variable}` in them, and the conditions of `if`. Nothing here runs Python code."""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar
from typing import Self

from pbx.yamlfile import NOWHERE
from pbx.yamlfile import Text
from pbx.yamlfile import Where

VARIABLE = re.compile(r"[a-z][a-z0-9_]*")

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<quoted>"[^"]*"|'[^']*')
      | (?P<sign>==|!=|<=|>=|<|>|[()\[\],])
      | (?P<word>[\w+*#.{}-]+)
      | (?P<strange>\S)
    )""",
    re.VERBOSE,
)
_KEYWORDS = {"and", "or", "not", "in", "starts_with", "ends_with", "contains"}

Variables = Mapping[str, str]


# The variables that every call has, and what they hold.
GIVEN = {
    "caller": "the caller's number, as it came (empty when withheld)",
    "caller_name": "the caller's name, which the handsets that ring show",
    "dialled": "the number that was called",
    "digits": "what was typed last, in a menu or an ask",
    "language": "the language of the call, fr or en",
    "line": "the short number of the handset that calls (empty for a call from outside)",
}


class Variable(Text):
    """The name of a variable that is read."""

    __slots__ = ()

    def __new__(cls, text: str, where: Where = NOWHERE, blank: str = "") -> Self:
        if not VARIABLE.fullmatch(text):
            raise ValueError(f'"{text}" is no name of a variable: write small letters, digits and "_"')
        return super().__new__(cls, text, where, blank)

    @property
    def names(self) -> tuple[str, ...]:
        """The variables that it reads: itself. A Template and a Condition have the same."""
        return (str(self),)


class NewVariable(Variable):
    """The name of a variable that is set."""

    __slots__ = ()
    fixed: ClassVar[frozenset[str]] = frozenset(GIVEN) - {"caller_name", "digits"}

    def __new__(cls, text: str, where: Where = NOWHERE, blank: str = "") -> Self:
        if text in cls.fixed:
            raise ValueError(f'"{text}" is {GIVEN[text]}, and cannot be set: choose another name')
        return super().__new__(cls, text, where, blank)


class Template(Text):
    """A text with variables in braces: "Bonjour {caller_name}". A brace that is meant is written twice.

    Raises ValueError, with a message for the admin, for braces that do not pair or a name that cannot be one.
    """

    __slots__ = ("names", "_parts")
    names: tuple[str, ...]
    _parts: tuple[str | _Name, ...]

    def __new__(cls, text: str, where: Where = NOWHERE, blank: str = "") -> Self:
        self = super().__new__(cls, text, where, blank)
        self._parts = tuple(_parts(text))
        self.names = tuple(dict.fromkeys(part.name for part in self._parts if isinstance(part, _Name)))
        return self

    def fill(self, variables: Variables) -> str:
        """The text with every variable in its place; one that was never set is empty."""
        return "".join(variables.get(part.name, "") if isinstance(part, _Name) else part for part in self._parts)


@dataclass(frozen=True, slots=True)
class _Name:
    name: str


def _parts(text: str) -> Iterator[str | _Name]:
    end = 0
    for match in _PLACEHOLDER.finditer(text):
        yield text[end:match.start()]
        end = match.end()
        found, name = match.group(), match.group(1)
        if found in ("{{", "}}"):
            yield found[0]
        elif name is None:
            raise ValueError(f'a lone "{found}": write "{{variable}}", or "{found * 2}" for the sign itself')
        elif not VARIABLE.fullmatch(name):
            raise ValueError(f'"{found}" is no variable: a name has small letters, digits and "_", as in "{{caller}}"')
        else:
            yield _Name(name)
    yield text[end:]


class Condition(Text):
    """What `if` decides by: `caller starts_with "+33" and not language == fr`.

    On the left of an operator stands a variable, on the right a value (with quotes if it has spaces) or, after `in`,
    a list of values: `digits in [1, 2]`. A variable alone is true when it is not empty. `<` and its kin compare
    whole numbers. Raises ValueError with a message that says what was expected, and where.
    """

    __slots__ = ("names", "holds")
    names: tuple[str, ...]
    holds: Callable[[Variables], bool]

    def __new__(cls, text: str, where: Where = NOWHERE, blank: str = "") -> Self:
        self = super().__new__(cls, text, where, blank)
        parser = _Parser(text)
        self.holds = parser.parse()
        self.names = tuple(parser.names)
        return self


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,30}", text) else None


def _compare(test: Callable[[int, int], bool]) -> Callable[[str, str], bool]:
    def compare(left: str, right: str) -> bool:
        a, b = _number(left), _number(right)
        return a is not None and b is not None and test(a, b)

    return compare


_OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": _compare(lambda a, b: a < b),
    "<=": _compare(lambda a, b: a <= b),
    ">": _compare(lambda a, b: a > b),
    ">=": _compare(lambda a, b: a >= b),
    "starts_with": lambda a, b: a.startswith(b),
    "ends_with": lambda a, b: a.endswith(b),
    "contains": lambda a, b: b in a,
}
_ORDERING = {"<", "<=", ">", ">="}
_KNOWN = ", ".join([*_OPERATORS, "in"])


class _Parser:
    """Recursive descent over the tokens; one method for each level of the grammar."""

    def __init__(self, text: str) -> None:
        self._tokens = [match.group().strip() for match in _TOKEN.finditer(text.rstrip())]
        self._next = 0
        self.names: dict[str, None] = {}  # in order, as a set is not

    def parse(self) -> Callable[[Variables], bool]:
        holds = self._either()
        if self._peek():
            raise self._expected('the end, "and" or "or"')
        return holds

    def _either(self) -> Callable[[Variables], bool]:
        terms = [self._both()]
        while self._take("or"):
            terms.append(self._both())
        return terms[0] if len(terms) == 1 else lambda variables: any(term(variables) for term in terms)

    def _both(self) -> Callable[[Variables], bool]:
        terms = [self._single()]
        while self._take("and"):
            terms.append(self._single())
        return terms[0] if len(terms) == 1 else lambda variables: all(term(variables) for term in terms)

    def _single(self) -> Callable[[Variables], bool]:
        if self._take("not"):
            inner = self._single()
            return lambda variables: not inner(variables)
        if self._take("("):
            inner = self._either()
            self._expect(")")
            return inner
        return self._comparison()

    def _comparison(self) -> Callable[[Variables], bool]:
        name = self._variable()
        if self._take("in"):
            values = self._list()
            return lambda variables: variables.get(name, "") in [value.fill(variables) for value in values]
        if self._peek() not in _OPERATORS:
            if self._peek() and self._peek() not in ("and", "or", ")"):
                raise self._expected(f"an operator ({_KNOWN})")
            return lambda variables: bool(variables.get(name))
        operator = self._advance()
        test, value = _OPERATORS[operator], self._value()
        if operator in _ORDERING and not value.names and _number(value.fill({})) is None:
            raise ValueError(f'"{operator}" compares whole numbers, and "{value.fill({})}" is none')
        return lambda variables: test(variables.get(name, ""), value.fill(variables))

    def _variable(self) -> str:
        token = self._peek()
        if not VARIABLE.fullmatch(token) or token in _KEYWORDS:
            raise self._expected('a variable, as in: caller == "anonymous"')
        self.names[token] = None
        return self._advance()

    def _value(self) -> Template:
        token = self._peek()
        if not token or token in _KEYWORDS or re.fullmatch(r"[=!<>()\[\],]+", token):
            raise self._expected('a value, as in: caller starts_with "+33"')
        value = Template(self._unquoted(self._advance()))
        self.names.update(dict.fromkeys(value.names))
        return value

    def _unquoted(self, token: str) -> str:
        if token[0] not in "\"'":
            return token
        if len(token) < 2 or token[-1] != token[0]:
            raise ValueError(f"a quote ({token[0]}) is opened and not closed")
        return token[1:-1]

    def _list(self) -> tuple[Template, ...]:
        self._expect("[")
        values = [self._value()]
        while self._take(","):
            values.append(self._value())
        self._expect("]")
        return tuple(values)

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _advance(self) -> str:
        self._next += 1
        return self._tokens[self._next - 1]

    def _take(self, token: str) -> bool:
        if self._peek() != token:
            return False
        self._next += 1
        return True

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise self._expected(token)

    def _expected(self, what: str) -> ValueError:
        before = " ".join(self._tokens[max(0, self._next - 3):self._next])
        found = self._peek() or "the end"
        return ValueError(f"expected {what}; found {found}" + (f", after: {before}" if before else ""))
