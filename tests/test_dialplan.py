"""Plans as a whole: who is found by what number, what a handset reaches, and what several plans may not share."""

from __future__ import annotations

import sys
import tempfile
import wave
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from office import office
from plans import calls
from plans import plan
from plans import record_of

from pbx.dialplan import Plan
from pbx.dialplan import Plans
from pbx.dialplan import check
from pbx.dialplan import compile_plan
from pbx.dialplan import load_plans
from pbx.emergency import Emergency
from pbx.leg import Cause
from pbx.links import Installation
from pbx.simulator import Behaviour
from pbx.simulator import answers
from pbx.simulator import busy
from pbx.simulator import refuses
from pbx.simulator import rings
from pbx.simulator import virtual
from pbx.tenant import Line
from pbx.yamlfile import Problems

EXAMPLES = Path(__file__).parent.parent / "dialplans"
ONE_TRUNK = Installation(trunks=["x"])


def acme(folder: Path, installation: Installation = ONE_TRUNK) -> Plan:
    return compile_plan(plan(folder, "- answer"), installation)


@pytest.fixture(scope="module")
def duo() -> Plan:
    return compile_plan(EXAMPLES / "duo.yml", ONE_TRUNK)


def outside(plan: Plan, line: Line, dialled: str) -> str:
    """The number that goes out to the trunk, or the name of what else happens."""
    route = plan.route_from_line(line, dialled)
    return str(route.flow.steps[0].to[0]) if route.outbound else route.flow.name  # type: ignore[attr-defined]


# -- the examples -----------------------------------------------------------------------------------


def test_the_examples_are_faultless() -> None:
    installation = Installation(trunks=["carrier"], contracts=["ooma-wework", "kenotronix-managed", "kompaas-pbxv"])
    assert check([EXAMPLES], installation) == []
    assert {plan.tenant for plan in load_plans(EXAMPLES, installation)} == {"acme", "boreal", "duo"}


# -- finding ----------------------------------------------------------------------------------------


def test_a_line_is_found_by_its_endpoint_and_a_number_by_its_digits(tmp_path: Path) -> None:
    plans = Plans([acme(tmp_path)])
    found = plans.line("acme-101")
    assert found is not None and (found[1].id, found[1].name) == ("101", "Alice Martin")
    assert found[0].identity(found[1]) == "acme-101"
    for number, flow in {"+33199000100": "welcome", "+33199000101": "line 101"}.items():
        answered = plans.number(number)
        assert answered is not None and answered[1].flow.name == flow and not answered[1].outbound
    assert plans.line("acme-109") is None and plans.line("101") is None
    assert plans.number("+33199000109") is None
    assert plans.number("200") is None  # a short number is for handsets alone


def test_a_number_of_its_own_is_answered_by_the_line_unless_the_plan_says_otherwise(tmp_path: Path) -> None:
    path = plan(tmp_path, "- answer")
    path.write_text(path.read_text().replace("numbers:\n", 'numbers:\n  "+33199000101": {group: sales}\n'))
    answered = Plans([compile_plan(path)]).number("+33199000101")
    assert answered is not None and answered[1].flow.name == "group sales"


def test_the_version_is_that_of_the_content(tmp_path: Path) -> None:
    first = acme(tmp_path)
    again = acme(tmp_path)
    other = compile_plan(plan(tmp_path, "- hangup"))
    assert first.version == again.version != other.version
    assert len(first.version) == 12


# -- what handsets reach ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dialled, reached",
    [
        ("102", "line 102"),
        ("200", "group sales"),
        ("300", "welcome"),
        ("*98", "*98"),
        ("0199000100", "welcome"),  # a number of the company stays inside
        ("0 01 99 00 01 01", "line 101"),
        ("+33199000101", "line 101"),
        ("00639980042", "+33639980042"),  # behind the prefix
        ("0639980042", "+33639980042"),
        ("000447700900123", "+447700900123"),
        ("999", "unknown number"),
        ("*99", "unknown number"),
        ("", "unknown number"),
        ("102#", "unknown number"),
        ("trunk-x", "unknown number"),
    ],
)
def test_what_a_handset_reaches(tmp_path: Path, dialled: str, reached: str) -> None:
    plan = acme(tmp_path)
    assert outside(plan, plan.lines["101"], dialled) == reached


def test_each_site_dials_with_its_own_prefix_and_shows_its_own_number(duo: Plan) -> None:
    paris, lyon = duo.lines["302"], duo.lines["402"]
    assert outside(duo, paris, "00639980042") == outside(duo, lyon, "90639980042") == "+33639980042"
    assert (duo.caller_id(paris).number, duo.caller_id(lyon).number) == ("+33199000200", "+33465710200")
    assert duo.caller_id(duo.lines["401"]).number == "+33465710201"
    assert outside(duo, paris, "400") == "group lyon" and outside(duo, lyon, "301") == "line 301"


@pytest.mark.parametrize("dialled, number", [
    ("15", "15"), ("112", "112"), ("0112", "112"), ("18#", "18"), ("+33112", "112"), ("102", None), ("1512", None),
])
def test_emergency_numbers_are_known_from_every_line(duo: Plan, dialled: str, number: str | None) -> None:
    found = duo.emergency(duo.lines["301"], dialled)
    assert (found.number if found else None) == number


def test_the_country_of_the_site_decides_what_an_emergency_is(tmp_path: Path) -> None:
    path = plan(tmp_path, "- answer")
    path.write_text(path.read_text().replace("sites:\n", "sites:\n  geneva: {country: CH}\n").replace(
        'for: 10s}', 'for: 10s, site: geneva}').replace("for: 10s, voicemail", "for: 10s, site: paris, voicemail"))
    plan_ = compile_plan(path)
    assert plan_.emergency(plan_.lines["102"], "144") == Emergency("144", "vital", "ambulance")
    assert plan_.emergency(plan_.lines["101"], "144") is None


@pytest.mark.parametrize(
    "trunks, number, reached",
    [
        (["x"], "0639980042", "PJSIP/+33639980042@trunk-x"),
        (["x", "y"], "0639980042", None),  # which one?
        ([], "0639980042", None),
    ],
)
def test_outside_calls_go_by_the_only_trunk(
    tmp_path: Path, trunks: list[str], number: str, reached: str | None
) -> None:
    plan = acme(tmp_path, Installation(trunks=trunks))
    way = plan.outside("+33639980042", plan.lines["101"], "")
    assert (way.endpoint if way else None) == reached
    assert (outside(plan, plan.lines["101"], number) == "+33639980042") if reached else True


def test_the_trunk_of_the_site_comes_before_that_of_the_tenant(tmp_path: Path) -> None:
    path = plan(tmp_path, "- answer")
    path.write_text(path.read_text().replace('outside_prefix: "0"', 'outside_prefix: "0", trunk: b').replace(
        "country: FR\n", "country: FR\ntrunk: a\n", 1))
    plan_ = compile_plan(path, Installation(trunks=["a", "b"]))
    from_line, from_outside = (plan_.outside("+33639980042", line, "") for line in (plan_.lines["101"], None))
    assert from_line is not None and from_line.endpoint.endswith("@trunk-b")
    assert from_outside is not None and from_outside.endpoint.endswith("@trunk-a")


@given(st.text(max_size=20))
def test_any_dialled_text_reaches_something(duo: Plan, dialled: str) -> None:
    line = duo.lines["301"]
    assert duo.route_from_line(line, dialled).flow.steps
    duo.emergency(line, dialled)


# -- routes of the engine's own, as stories ---------------------------------------------------------------


@pytest.mark.parametrize(
    "behaviour, sentence, cause, status",
    [
        (busy(), "Votre correspondant est en ligne.", Cause.BUSY, 486),
        (rings(), "Votre correspondant ne répond pas.", Cause.NO_ANSWER, 480),
        (refuses(404), "Votre correspondant n'est pas joignable.", Cause.SUBSCRIBER_ABSENT, 480),
    ],
)
def test_a_colleague_who_cannot_talk_costs_nothing_and_says_why(
    tmp_path: Path, behaviour: Behaviour, sentence: str, cause: int, status: int
) -> None:
    @virtual
    async def story() -> None:
        async with office(plan(tmp_path, "- answer")) as company:
            company.asterisk.handset("acme-102", behaviour)
            caller = company.asterisk.call("acme-101", "102", caller="101")
            await caller.over()
            assert caller.sounds[-1] == f"sound:fr/{sentence}"
            assert caller.answered_at is None and caller.status == status
            record = await record_of(company)
            assert (record.direction, record.cause) == ("internal", cause)

    story()


@virtual
async def test_two_colleagues_talk(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "- answer")) as company:
        handset = company.asterisk.handset("acme-102", answers(leaves=10))
        caller = company.asterisk.call("acme-101", "102", caller="101")
        assert await caller.meets() is await handset.rung()
        assert handset.calls[0].channel.connected == {"name": "Alice Martin", "number": "101"}
        await caller.over()


@virtual
async def test_a_line_with_voicemail_takes_a_message_when_nobody_answers(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "- answer")) as company:
        company.asterisk.handset("acme-101", rings())
        caller = calls(company, dialled="+33199000101")
        await caller.hears("beep")
        caller.hang_up(after=4)
        assert (await record_of(company)).outcome == "voicemail"
        assert len(await company.store.messages("acme", "101")) == 1


@virtual
async def test_an_unknown_number_is_told(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "- answer")) as company:
        caller = company.asterisk.call("acme-101", "999", caller="101")
        await caller.over()
        assert caller.sounds == ["sound:fr/Le numéro que vous avez composé n'est pas attribué."]
        assert caller.status == 404


@virtual
async def test_an_outside_call_shows_the_lines_own_number(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "- answer")) as company:
        trunk = company.asterisk.handset("trunk-x", answers(leaves=10))
        caller = company.asterisk.call("acme-101", "00639980042", caller="101")
        assert (await caller.meets()).address == "+33639980042@trunk-x"
        assert trunk.calls[0].channel.connected["number"] == "+33199000101"
        record = await record_of(company)
        assert (record.direction, record.outcome) == ("outbound", "answered")


@virtual
async def test_an_outside_number_that_is_busy_gives_the_busy_tone(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "- answer")) as company:
        company.asterisk.handset("trunk-x", busy())
        caller = company.asterisk.call("acme-101", "00639980042", caller="101")
        await caller.over()
        assert caller.status == 486


# -- several plans ------------------------------------------------------------------------------------


def second(folder: Path, **changes: str) -> Path:
    """A second plan beside acme.yml, with other numbers, but for the changes."""
    draft = plan(Path(tempfile.mkdtemp(dir=folder)), "- answer").read_text()
    text = draft.replace("+331990001", "+331990002").replace("tenant: acme", "tenant: beta")
    for old, new in changes.items():
        text = text.replace(old, new)
    path = folder / "beta.yml"
    path.write_text(text)
    return path


def test_two_tenants_cannot_have_one_number(tmp_path: Path) -> None:
    acme(tmp_path)
    path = second(tmp_path, **{"+33199000200": "+33199000100"})
    (problem,) = check([tmp_path])
    assert str(problem).startswith(f'{path}:19:3: +33199000100 is already a number of tenant "acme" (')
    with pytest.raises(Problems, match="already a number"):
        load_plans(tmp_path)


def test_two_plans_cannot_be_of_one_tenant(tmp_path: Path) -> None:
    acme(tmp_path)
    path = second(tmp_path, beta="acme")
    (problem,) = check([tmp_path])
    assert str(problem).startswith(f'{path}:1:1: tenant "acme" is already in {tmp_path / "acme.yml"}')


def test_problems_of_all_plans_come_at_once_and_nothing_is_half_loaded(tmp_path: Path) -> None:
    plan(tmp_path, "- pley: beep")
    second(tmp_path, **{"- answer": "- goto: nowhere", "lines: [\"101\", \"102\"]": "lines: [\"101\", \"109\"]"})
    with pytest.raises(Problems) as raised:
        load_plans(tmp_path)
    messages = [problem.message for problem in raised.value.problems]
    assert len(messages) == 4
    for part in ("unknown step", "no flow", "no line", "no line"):
        assert any(part in message for message in messages)


def test_warnings_do_not_stop_a_plan(tmp_path: Path) -> None:
    path = plan(tmp_path, "[hangup, say: Jamais]")
    (warning,) = check([path])
    assert warning.warning and "never reached" in warning.message
    assert [plan.warnings for plan in load_plans(tmp_path)] == [(warning,)]


def test_with_several_trunks_one_must_be_named(tmp_path: Path) -> None:
    two = Installation(trunks=["b", "a"])
    path = plan(tmp_path, "- answer")
    (warning,) = check([path], two)
    assert warning.message == "no trunk, so no handset can call outside: name one, trunk: a (trunks: a, b)"
    path.write_text(path.read_text().replace("country: FR\n", "country: FR\ntrunk: b\n", 1))
    assert check([path], two) == []


def test_the_texts_of_a_plan_can_be_spoken_in_advance(tmp_path: Path) -> None:
    steps = """
        - say: {fr: Bonjour, en: Hello}
        - say: {text: Welcome, language: en}
        - say: {fr: "{caller}", en: "{caller}"}
        - voicemail: {box: desk, greeting: {fr: Parlez, en: Speak}}
    """
    texts = compile_plan(plan(tmp_path, steps, language="languages: [fr, en]")).texts
    assert set(texts) == {
        ("Bonjour", "fr"), ("Hello", "en"), ("Welcome", "en"), ("Parlez", "fr"), ("Speak", "en"),
    }


def test_scenarios_beside_the_plans_are_not_read_as_plans(tmp_path: Path) -> None:
    plan(tmp_path, "- answer")
    for name in ("acme.test.yml", ".acme.yml", "notes.txt"):
        (tmp_path / name).write_text("something: else\n")
    assert len(list(load_plans(tmp_path))) == 1


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(Problems, match="nowhere:1:1: cannot be read: No such file"):
        load_plans(tmp_path / "nowhere")


def test_a_plan_that_is_not_there_is_a_problem_like_any_other(tmp_path: Path) -> None:
    (problem,) = check([tmp_path / "none.yml"])
    assert str(problem) == f"{tmp_path / 'none.yml'}:1:1: cannot be read: No such file or directory"


def test_a_folder_without_plans_is_no_success(tmp_path: Path) -> None:
    for look in (load_plans, lambda folder: check([folder])):
        with pytest.raises(Problems, match=r"no plan \(NAME.yml\) is in this folder: write one there, or name another"):
            look(tmp_path)


def test_a_plan_that_is_named_twice_is_one(tmp_path: Path) -> None:
    file = plan(tmp_path, "- answer")
    assert check([file, file, tmp_path]) == check([file])


PIECES = ["", "1", "no", "{}", "[]", "[[]]", "{a: b}", "welcome", "'101'", '"+331"', "{fr: x}", "- a", "&a x", "*a"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(EXAMPLES.glob("*.yml"))), st.data())
def test_a_plan_that_was_spoilt_anywhere_is_told_in_words(tmp_path: Path, example: Path, data: st.DataObject) -> None:
    lines = example.read_text().splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        number = data.draw(st.integers(0, len(lines) - 1))
        key, colon, value = lines[number].partition(": ")
        piece = data.draw(st.sampled_from(PIECES))
        spoilt = ["", f"{key}: {piece}", f"{piece}{colon}{value}", f"  {key}{colon}{value}"]
        lines[number] = data.draw(st.sampled_from(spoilt))
    path = tmp_path / "spoilt.yml"
    path.write_text("\n".join(lines))
    for problem in check([path]):
        assert problem.message and problem.where.file == str(path)


# -- sounds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rate, channels, bits, wrong",
    [(8000, 1, 16, False), (44100, 2, 16, True), (16000, 1, 16, True), (8000, 1, 8, True)],
)
def test_a_sound_that_asterisk_could_not_play_is_told_with_its_remedy(
    tmp_path: Path, rate: int, channels: int, bits: int, wrong: bool
) -> None:
    with wave.open(str(tmp_path / "hello.wav"), "wb") as sound:
        sound.setframerate(rate)
        sound.setnchannels(channels)
        sound.setsampwidth(bits // 8)
        sound.writeframes(bytes(160 * channels * bits // 8))
    problems = check([plan(tmp_path, "- play: hello.wav")])
    assert len(problems) == wrong
    assert all("sox hello.wav -r 8000 -c 1 -b 16" in problem.message for problem in problems)


def test_a_file_that_is_no_sound_is_told(tmp_path: Path) -> None:
    (tmp_path / "hello.wav").write_text("hello")
    (problem,) = check([plan(tmp_path, "- play: hello.wav")])
    assert 'no WAV file that can be read' in problem.message


# -- size ------------------------------------------------------------------------------------------------


def big(folder: Path, lines: int) -> Path:
    path = folder / f"big{lines}.yml"
    path.write_text("\n".join([
        f"tenant: big{lines}\ncountry: FR\nlanguage: fr\ntimezone: Europe/Paris\nlines:",
        *(f'  "{20_000 + n}": {{name: Line {n}, voicemail: {{pin: "4711"}}}}' for n in range(lines)),
        'numbers:\n  "10": welcome\nflows:\n  welcome: {dial: "20000"}',
    ]))
    return path


def work(plans: Plans, tenant: str) -> int:
    """How many functions are called to find a line, a number, and what a handset reaches."""
    count = 0

    def called(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(called)
    try:
        found = plans.line(f"{tenant}-20005")
        plans.number("+33199000999")
        route = found[0].route_from_line(found[1], "20009") if found else None
    finally:
        sys.setprofile(None)
    assert route is not None and route.flow.name == "line 20009"
    return count


def test_a_lookup_takes_as_little_among_ten_thousand_lines_as_among_ten(tmp_path: Path) -> None:
    small, large = (Plans([compile_plan(big(tmp_path, lines))]) for lines in (10, 10_000))
    work(small, "big10")  # the first time, pydantic makes things ready
    assert work(large, "big10000") == work(small, "big10")
