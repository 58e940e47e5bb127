"""Stories of calls, told in many orders of events: the same things must come of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from switchboard import in_every_order
from switchboard import switchboard

from pbx.call import Asked
from pbx.call import Call
from pbx.call import Recorded
from pbx.dial import CallerId
from pbx.dial import Destination
from pbx.dial import Dialled
from pbx.leg import Cause
from pbx.leg import Outcome
from pbx.simulator import Behaviour
from pbx.simulator import Party
from pbx.simulator import announces
from pbx.simulator import answers
from pbx.simulator import busy
from pbx.simulator import refuses
from pbx.simulator import rings
from pbx.simulator import silent

OUTSIDE = CallerId("+33199000177")


def line(number: str) -> Destination:
    return Destination(f"PJSIP/acme-{number}", number)


async def dial(call: Call, *numbers: str, ring_ms: int = 10_000) -> Dialled:
    return await call.dial([line(number) for number in numbers], ring_ms=ring_ms, caller=OUTSIDE)


# -- answering, playing, asking ---------------------------------------------------------------------


def test_a_caller_is_answered_hears_everything_in_order_and_is_sent_away() -> None:
    async def welcome(call: Call) -> None:
        await call.answer()
        await call.play(["sound:hello", "sound:bye"])
        await call.say("Merci", "fr")

    async def story(seed: int) -> None:
        async with switchboard(welcome, seed) as board:
            caller = board.ring()
            await caller.over()
            assert [(heard.what, heard.complete) for heard in caller.heard] == [
                ("sound:hello", True), ("sound:bye", True), ("sound:fr/Merci", True),
            ]
            assert (caller.cause, caller.status) == (Cause.NORMAL, 0)
        record = board.calls[0].record
        assert (record.outcome, record.ended_by, record.cause) == ("completed", "engine", 16)
        assert record.duration_ms == pytest.approx(3_000, abs=150)

    in_every_order(story)


def test_sounds_before_the_answer_are_early_media() -> None:
    async def notice(call: Call) -> None:
        await call.play(["sound:closed"])
        await call.reject(Cause.BUSY)

    async def story(seed: int) -> None:
        async with switchboard(notice, seed) as board:
            caller = board.ring()
            await caller.over()
            assert caller.sounds == ["sound:closed"] and caller.answered_at is None and caller.status == 486
        assert board.calls[0].record.answered_at is None

    in_every_order(story)


def test_a_sound_that_is_missing_or_vanishes_does_not_hold_the_call_up() -> None:
    async def play(call: Call) -> None:
        await call.play(["sound:missing"])
        await call.play(["recording:missing"])
        await call.play(["sound:there"])

    async def story(seed: int) -> None:
        async with switchboard(play, seed, length_of=lambda uri, language: None if "missing" in uri else 1.0) as board:
            caller = board.ring()
            await caller.over()
            assert caller.sounds == ["sound:there"]
        assert [moment.kind for moment in board.calls[0].record.timeline].count("sound_failed") == 1

    in_every_order(story)


def _ask(prompt: Sequence[str] = ("sound:menu",), *, typed: str, after: float, gap: float = 0.2, **how: Any) -> list[
    tuple[Asked, list[str], list[bool]]
]:
    """Asks a caller who types `typed`, `after` seconds into the call; gives the answer and what he heard, per seed."""
    answers_given = []

    async def ask(call: Call) -> None:
        await call.answer()
        asked = await call.ask(prompt, **how)
        answers_given.append(asked)

    heard: list[tuple[list[str], list[bool]]] = []

    async def story(seed: int) -> None:
        async with switchboard(ask, seed) as board:
            caller = board.ring()
            await caller.answered()
            caller.press(typed, after=after, gap=gap)
            await caller.over()
            heard.append((caller.sounds, [sound.complete for sound in caller.heard]))

    in_every_order(story)
    return [(asked, *sounds) for asked, sounds in zip(answers_given, heard, strict=True)]


def test_a_key_cuts_the_prompt_short() -> None:
    for asked, sounds, complete in _ask(["sound:a", "sound:b", "sound:c"], typed="1", after=1.5):
        assert asked == Asked("1", "max") and sounds == ["sound:a", "sound:b"] and complete == [True, False]


def test_keys_typed_ahead_are_used_and_the_prompt_is_not_played() -> None:
    async def two_questions(call: Call) -> None:
        await call.answer()
        await call.wait(1_000)
        answers_given.append((await call.ask(["sound:first"]), await call.ask(["sound:second"], max_digits=2)))

    answers_given: list[tuple[Asked, Asked]] = []

    async def story(seed: int) -> None:
        async with switchboard(two_questions, seed) as board:
            caller = board.ring()
            await caller.answered()
            caller.press("123")
            await caller.over()
            assert caller.sounds == []

    in_every_order(story)
    assert set(answers_given) == {(Asked("1", "max"), Asked("23", "max"))}


@pytest.mark.parametrize("typed, gap, how, expected", [
    ("", 0.2, {}, Asked("", "first_digit")),
    ("12", 0.2, {"max_digits": 4}, Asked("12", "inter_digit")),
    ("12", 3.0, {"max_digits": 4}, Asked("1", "inter_digit")),
    ("12#", 0.2, {"max_digits": 4}, Asked("12", "terminator")),
    ("#", 0.2, {"max_digits": 4}, Asked("", "terminator")),
    ("1234", 0.2, {"max_digits": 4}, Asked("1234", "max")),
    ("1234", 2.0, {"max_digits": 4, "total_ms": 5_000}, Asked("123", "total")),
    ("1234", 0.2, {"max_digits": 4, "complete": lambda digits: digits == "12"}, Asked("12", "complete")),
    ("1#2", 0.2, {"max_digits": 4, "terminator": ""}, Asked("1#2", "inter_digit")),
])
def test_asking_ends_for_one_of_these_reasons(typed: str, gap: float, how: dict[str, Any], expected: Asked) -> None:
    answered = {asked for asked, _, _ in _ask(typed=typed, after=0.5, gap=gap, **how)}
    assert answered == {expected}


def test_first_digit_time_runs_from_the_end_of_the_prompt() -> None:
    for asked, sounds, complete in _ask(["sound:menu"], typed="7", after=5.8):
        assert asked == Asked("7", "max") and complete == [True]


# -- recording ----------------------------------------------------------------------------------


def test_a_caller_records_until_the_key_which_is_no_answer_to_the_next_question() -> None:
    captured: list[Recorded | None] = []

    async def record(call: Call) -> None:
        await call.answer()
        captured.append(await call.capture("m.r1", max_ms=60_000))
        assert await call.ask(first_ms=500) == Asked("", "first_digit")

    async def story(seed: int) -> None:
        async with switchboard(record, seed) as board:
            caller = board.ring()
            await caller.hears("beep")
            caller.press("#", after=5)
            await caller.over()

    in_every_order(story)
    for recorded in captured:
        assert recorded is not None and recorded.duration_ms == pytest.approx(5_000, abs=500)


def test_a_caller_who_hangs_up_while_recording_leaves_a_closed_file() -> None:
    captured: list[Recorded | None] = []

    async def record(call: Call) -> None:
        await call.answer()
        captured.append(await call.capture("m.r1", max_ms=60_000))
        await call.wait(1)

    async def story(seed: int) -> None:
        async with switchboard(record, seed) as board:
            caller = board.ring()
            await caller.hears("beep")
            caller.hang_up(after=4)
            await caller.over()
            await asyncio.sleep(1)
            assert "m.r1" in board.asterisk.stored
        assert board.calls[0].record.ended_by == "caller"

    in_every_order(story)
    for recorded in captured:
        assert recorded is not None and recorded.duration_ms >= 3_000


# -- dialling -----------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour, outcome, cause", [
    (busy(), Outcome.BUSY, 17),
    (refuses(603), Outcome.REFUSED, 21),
    (refuses(403), Outcome.REFUSED, 21),
    (rings(), Outcome.NO_ANSWER, 19),
    (silent(), Outcome.NO_ANSWER, 19),
    (refuses(404), Outcome.UNREACHABLE, 1),
    (refuses(503), Outcome.UNREACHABLE, 34),
    (announces(then=486), Outcome.BUSY, 17),
])
def test_a_leg_that_is_not_answered_has_the_outcome_of_its_refusal(
    behaviour: Behaviour, outcome: Outcome, cause: int
) -> None:
    dialled: list[Dialled] = []

    async def ring_101(call: Call) -> None:
        dialled.append(await dial(call, "101"))

    async def story(seed: int) -> None:
        async with switchboard(ring_101, seed) as board:
            board.asterisk.handset("acme-101", behaviour)
            await board.ring().over()
        leg = board.calls[0].record.legs[0]
        assert (leg.outcome, leg.cause) == (outcome, cause) and leg.ended_at is not None

    in_every_order(story)
    assert {(one.outcome, one.cause, one.leg) for one in dialled} == {(outcome, cause, None)}


def test_a_handset_that_is_not_registered_is_unreachable_at_once() -> None:
    async def ring_101(call: Call) -> None:
        assert (await dial(call, "101")).outcome is Outcome.UNREACHABLE

    async def story(seed: int) -> None:
        async with switchboard(ring_101, seed) as board:
            board.asterisk.handset("acme-101", registered=False)
            await board.ring().over()
        record = board.calls[0].record
        assert record.duration_ms < 500 and record.legs[0].cause == Cause.SUBSCRIBER_ABSENT

    in_every_order(story)


def test_the_most_telling_outcome_of_several_counts() -> None:
    async def ring_all(call: Call) -> None:
        assert (await dial(call, "101", "102", "103")).outcome is Outcome.BUSY

    async def story(seed: int) -> None:
        async with switchboard(ring_all, seed) as board:
            board.asterisk.handset("acme-101", rings())
            board.asterisk.handset("acme-102", busy())
            board.asterisk.handset("acme-103", registered=False)
            await board.ring().over()
        outcomes = [leg.outcome for leg in board.calls[0].record.legs]
        assert outcomes == [Outcome.NO_ANSWER, Outcome.BUSY, Outcome.UNREACHABLE]

    in_every_order(story)


async def _talk(call: Call, *numbers: str) -> None:
    result = await dial(call, *numbers)
    if result.leg is not None:
        await call.talk(result.leg)


def test_caller_and_callee_hear_each_other_until_the_caller_hangs_up() -> None:
    async def story(seed: int) -> None:
        async with switchboard(lambda call: _talk(call, "101"), seed) as board:
            handset = board.asterisk.handset("acme-101", answers(after=3))
            caller = board.ring()
            callee = await caller.meets()
            assert handset.calls == [callee] and callee.company() == [caller]
            assert "ringing" in caller.sounds
            caller.hang_up(after=30)
            await callee.over()
            assert callee.cause == Cause.NORMAL
        record = board.calls[0].record
        assert (record.outcome, record.ended_by) == ("answered", "caller")
        assert record.talk_ms == pytest.approx(30_000, abs=200)
        assert record.legs[0].outcome == "answered"

    in_every_order(story)


def test_when_the_callee_hangs_up_the_flow_goes_on_with_the_caller() -> None:
    async def flow(call: Call) -> None:
        await _talk(call, "101")
        await call.play(["sound:survey"])

    async def story(seed: int) -> None:
        async with switchboard(flow, seed) as board:
            board.asterisk.handset("acme-101", answers(after=1, leaves=5))
            caller = board.ring()
            await caller.over()
            assert caller.sounds[-1] == "sound:survey" and caller.heard[-1].complete
        assert board.calls[0].record.ended_by == "callee"

    in_every_order(story)


def test_the_first_to_answer_gets_the_call_and_the_others_are_told() -> None:
    async def story(seed: int) -> None:
        async with switchboard(lambda call: _talk(call, "101", "102", "103"), seed) as board:
            slow = board.asterisk.handset("acme-101", answers(after=4))
            board.asterisk.handset("acme-102", answers(after=3, leaves=10))
            board.asterisk.handset("acme-103", busy())
            caller = board.ring()
            assert (await caller.meets()).address == "acme-102"
            await slow.calls[0].over()
            assert slow.calls[0].cause == Cause.ANSWERED_ELSEWHERE
            await caller.over()
            assert [partner.address for partner in caller.partners] == ["acme-102"]
        outcomes = [leg.outcome for leg in board.calls[0].record.legs]
        assert outcomes == [Outcome.ANSWERED_ELSEWHERE, Outcome.ANSWERED, Outcome.BUSY]

    in_every_order(story)


def test_of_two_who_answer_in_the_same_instant_one_gets_the_call() -> None:
    winners = set()

    async def story(seed: int) -> None:
        async with switchboard(lambda call: _talk(call, "101", "102"), seed) as board:
            handsets = [board.asterisk.handset(f"acme-{n}", answers(after=3, rings=1)) for n in ("101", "102")]
            caller = board.ring()
            callee = await caller.meets()
            winners.add(callee.address)
            [other] = [handset.calls[0] for handset in handsets if handset.calls[0] is not callee]
            await other.over()
            assert other.cause == Cause.ANSWERED_ELSEWHERE and other.partners == []
            callee.hang_up(after=5)
            await caller.over()
        assert sorted(leg.outcome for leg in board.calls[0].record.legs) == ["answered", "answered_elsewhere"]

    in_every_order(story)
    assert winners == {"acme-101", "acme-102"}


def test_a_callee_who_answers_and_leaves_at_once_does_not_hold_the_caller() -> None:
    async def flow(call: Call) -> None:
        await _talk(call, "101")
        await call.play(["sound:sorry"])

    async def story(seed: int) -> None:
        async with switchboard(flow, seed) as board:
            board.asterisk.handset("acme-101", answers(after=1, leaves=0.001 * (seed % 10)))
            caller = board.ring()
            await caller.over()
            assert caller.sounds[-1] == "sound:sorry"
        assert board.calls[0].record.duration_ms < 5_000

    in_every_order(story)


def test_the_announcement_of_the_callees_network_is_heard_before_the_answer() -> None:
    async def story(seed: int) -> None:
        async with switchboard(lambda call: _talk(call, "101"), seed) as board:
            handset = board.asterisk.handset("acme-101", announces(then=480, for_s=5))
            caller = board.ring()
            callee = await handset.rung()
            await asyncio.sleep(3)
            assert caller.channel.bridge is not None and caller.channel.bridge is callee.channel.bridge
            assert caller.answered_at is None
            await caller.over()

    in_every_order(story)


def test_an_answered_caller_hears_ringing_only_until_the_callee_answers() -> None:
    async def flow(call: Call) -> None:
        await call.answer()
        await _talk(call, "101", "102")

    async def story(seed: int) -> None:
        async with switchboard(flow, seed) as board:
            board.asterisk.handset("acme-101", answers(after=3))
            board.asterisk.handset("acme-102", rings())
            caller = board.ring()
            callee = await caller.meets()
            [ringing] = [heard for heard in caller.heard if heard.what == "ringing"]
            assert ringing.until is not None and callee.answered_at is not None
            assert ringing.until == pytest.approx(callee.answered_at, abs=0.1)
            caller.hang_up()

    in_every_order(story)


# -- ends ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause, status", [(Cause.BUSY, 486), (Cause.REJECTED, 403), (Cause.UNALLOCATED, 404)])
def test_a_rejected_caller_gets_the_reason(cause: int, status: int) -> None:
    async def reject(call: Call) -> None:
        await call.reject(cause)

    async def story(seed: int) -> None:
        async with switchboard(reject, seed) as board:
            caller = board.ring()
            await caller.over()
            assert caller.status == status
        assert board.calls[0].record.cause == cause

    in_every_order(story)


def test_a_caller_may_hang_up_at_any_moment() -> None:
    """Answer, menu, recording, ringing, talk: wherever he leaves, nothing stays behind and the record is complete."""

    async def everything(call: Call) -> None:
        await call.ring()
        await call.answer()
        await call.ask(["sound:menu"], first_ms=500)
        await call.capture("m.r1", max_ms=1_000)
        await _talk(call, "101", "102")
        await _talk(call, "103")
        await call.play(["sound:bye"])

    async def story(seed: int) -> None:
        async with switchboard(everything, seed) as board:
            board.asterisk.handset("acme-101", answers(after=0.5, leaves=0.7))
            board.asterisk.handset("acme-102", rings())
            board.asterisk.handset("acme-103", announces(then=200, for_s=0.5))
            callers: list[Party] = []
            for n in range(60):
                callers.append(board.ring())
                callers[-1].hang_up(after=0.001 + n * 0.11 + seed * 0.0055)
                await asyncio.sleep(7)
                board.asterisk.stored.clear()
            await asyncio.gather(*(caller.over() for caller in callers))
        assert {call.record.ended_by for call in board.calls} == {"caller", "callee"}
        for call in board.calls:
            assert call.record.ended_at is not None and call.record.outcome
            assert all(leg.outcome and leg.ended_at for leg in call.record.legs)
        abandoned = [leg.outcome for call in board.calls for leg in call.record.legs]
        assert Outcome.CANCELLED in abandoned

    in_every_order(story)
