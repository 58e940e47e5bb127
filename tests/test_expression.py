"""Texts with variables, and conditions: what they mean, and what an admin is told who writes them wrongly."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbx.expression import Condition
from pbx.expression import NewVariable
from pbx.expression import Template

CALL = {"caller": "+33199000177", "digits": "12", "language": "fr", "empty": "", "same": "12"}


@pytest.mark.parametrize(
    "condition, holds",
    [
        ('digits == "12"', True),
        ("digits == 12", True),
        ("digits == '12'", True),
        ("digits != 12", False),
        ("digits == {same}", True),
        ('digits == "1{same}"', False),
        ('caller starts_with "+33"', True),
        ("caller starts_with +33", True),
        ("caller ends_with 77", True),
        ("caller contains 9900", True),
        ("caller contains x", False),
        ("digits in [1, 12, 3]", True),
        ('digits in ["1"]', False),
        ("digits > 9", True),
        ("digits < 9", False),
        ("digits >= 12 and digits <= 12", True),
        ("caller > 1", False),  # not a whole number
        ("caller", True),
        ("empty", False),
        ("not empty", True),
        ("never_set", False),
        ("not digits == 12", False),
        ("empty or caller and digits == 12", True),
        ("(empty or caller) and digits == 3", False),
        ("not (empty or digits == 3)", True),
        ("not not caller", True),
        ('language == fr and not (caller starts_with "+49" or digits in [7, 8])', True),
    ],
)
def test_conditions_mean_what_they_say(condition: str, holds: bool) -> None:
    assert Condition(condition).holds(CALL) is holds


@pytest.mark.parametrize(
    "condition, message",
    [
        ("", 'expected a variable, as in: caller == "anonymous"; found the end'),
        ("caller is x", "expected an operator .*; found is, after: caller"),
        ("caller = x", "expected an operator .*; found =, after: caller"),
        ("caller ==", "expected a value, as in: caller starts_with .*; found the end, after: caller =="),
        ("caller == and", "expected a value.*; found and"),
        ('"x" == caller', 'expected a variable.*; found "x"'),
        ("caller and", "expected a variable.*; found the end, after: caller and"),
        ("(caller", r"expected \); found the end, after: \( caller"),
        ("caller)", 'expected the end, "and" or "or"; found \\), after: caller'),
        ("caller in x", r"expected \[; found x"),
        ("caller in [x", r"expected \]; found the end"),
        ("caller in []", r"expected a value.*; found \]"),
        ("caller == 'x", "a quote \\('\\) is opened and not closed"),
        ("digits < ten", '"<" compares whole numbers, and "ten" is none'),
        ('caller == "{x"', "a lone"),
        ("Caller == x", "expected a variable"),
    ],
)
def test_a_condition_that_cannot_be_read_says_what_was_expected(condition: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        Condition(condition)


def test_the_variables_of_a_condition_are_known() -> None:
    assert Condition('caller == "{a}" or (b and not c in [{d}])').names == ("caller", "a", "b", "c", "d")


@given(st.text(max_size=60))
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        Condition(text).holds(CALL)
    except ValueError as error:
        assert str(error)


WORDS = st.sampled_from('caller digits and or not ( ) == < in [ ] , 12 "x"'.split())


@given(st.lists(WORDS, max_size=12))
def test_no_order_of_words_breaks_the_parser(words: list[str]) -> None:
    try:
        assert Condition(" ".join(words)).holds(CALL) in (True, False)
    except ValueError as error:
        assert str(error)


@given(st.recursive(
    st.booleans().map(lambda value: ("caller" if value else "empty", value)),
    lambda inner: st.one_of(
        inner.map(lambda part: (f"not ({part[0]})", not part[1])),
        st.tuples(inner, inner).map(lambda two: (f"({two[0][0]}) and ({two[1][0]})", two[0][1] and two[1][1])),
        st.tuples(inner, inner).map(lambda two: (f"({two[0][0]}) or ({two[1][0]})", two[0][1] or two[1][1])),
    ),
    max_leaves=20,
))
def test_nested_conditions_keep_their_logic(written: tuple[str, bool]) -> None:
    text, holds = written
    assert Condition(text).holds(CALL) is holds


def test_a_template_is_filled() -> None:
    template = Template("Bonjour {caller}, {{x}} {never_set}!")
    assert template.fill(CALL) == "Bonjour +33199000177, {x} !"
    assert template.names == ("caller", "never_set")


@given(st.text(string.ascii_letters + "{} ", max_size=40))
def test_doubled_braces_give_any_text_back(text: str) -> None:
    assert Template(text.replace("{", "{{").replace("}", "}}")).fill({}) == text


@given(st.text(max_size=20))
def test_values_are_never_read_as_templates(value: str) -> None:
    assert Template("<{caller}>").fill({"caller": value}) == f"<{value}>"


@pytest.mark.parametrize(
    "text", ["{", "}", "a {caller", "caller} b", "{{{", "{Caller}", "{}", "{caller.x}", "{0}", "{a b}"]
)
def test_braces_that_name_no_variable_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="variable"):
        Template(text)


@pytest.mark.parametrize("name", ["caller", "dialled", "language", "line"])
def test_what_a_call_brings_with_it_cannot_be_set(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be set: choose another name"):
        NewVariable(name)
