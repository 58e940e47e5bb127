"""How steps are read, and how a call runs through them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from office import office
from plans import calls
from plans import noted
from plans import plan
from plans import record_of
from prometheus_client import REGISTRY

from pbx.leg import Cause
from pbx.simulator import virtual
from pbx.speech import SpeechError
from pbx.step import MOST_STEPS_AT_ONCE
from pbx.step import Step
from pbx.step import Steps
from pbx.steps import STEPS
from pbx.steps.dial import Dial
from pbx.steps.if_ import If
from pbx.steps.say import Say
from pbx.yamlfile import Model
from pbx.yamlfile import Where
from pbx.yamlfile import parse


class Book(Model):
    do: Steps


def read(steps: str) -> Steps:
    return parse(f"do: {steps}", "plan.yml", Book, context={"steps": {step.word: step for step in STEPS}}).do


@pytest.mark.parametrize(
    "short, full",
    [
        ("answer", "[answer: {}]"),
        ("[answer]", "[answer: {}]"),
        ("{say: Bonjour}", "[say: {text: Bonjour}]"),
        ("[say: {fr: Bonjour}]", "[say: {text: {fr: Bonjour}}]"),
        ("[play: beep]", "[play: {sound: [beep]}]"),
        ("[play: {fr: a.wav, en: b.wav}]", "[play: {sound: [{fr: a.wav, en: b.wav}]}]"),
        ('[dial: "101"]', '[dial: {to: ["101"]}]'),
        ('[dial: ["101", sales]]', '[dial: {to: ["101", sales]}]'),
        ("[wait: 2s]", "[wait: {for: 2000ms}]"),
        ("[goto: night]", "[goto: {flow: night}]"),
        ("[reject]", "[reject: {reason: refused}]"),
        ("[record: name]", "[record: {into: name}]"),
        ("[messages]", "[messages: {}]"),
        ("[menu: {prompt: P, keys: {1: hangup}}]", '[menu: {prompt: [{say: P}], keys: {"1": [hangup]}}]'),
    ],
)
def test_short_forms_mean_the_full_ones(short: str, full: str) -> None:
    assert read(short) == read(full)


def test_a_step_is_where_its_word_is() -> None:
    steps = parse(
        "do:\n  - answer\n  - menu:\n      prompt: P\n      keys:\n        '1': {dial: '101'}\n", "plan.yml", Book,
        context={"steps": {step.word: step for step in STEPS}},
    ).do
    assert [step.where for step in steps] == [Where("plan.yml", 2, 5), Where("plan.yml", 3, 5)]
    (branch,) = steps[1].branches
    assert branch[0].where == Where("plan.yml", 6, 15)


@pytest.mark.parametrize(
    "steps, goes_on",
    [
        ("[answer]", True),
        ("[hangup]", False),
        ("[reject]", False),
        ("[goto: night]", False),
        ("[call: night]", True),
        ("[if: {when: caller, then: hangup}]", True),
        ("[if: {when: caller, then: hangup, else: reject}]", False),
        ("[if: {when: caller, then: hangup, else: answer}]", True),
        ("[hours: {in: office, else: hangup}]", True),
        ("[hours: {in: office, then: hangup, else: hangup}]", False),
        ("[menu: {prompt: P, keys: {1: hangup}}]", True),
        ("[menu: {prompt: P, keys: {1: hangup}, otherwise: hangup}]", False),
        ("[ask: {prompt: P, otherwise: hangup}]", True),
        ("[dial: {to: a, busy: hangup, no_answer: hangup}]", True),
        ("[dial: {to: a, busy: hangup, no_answer: hangup, unreachable: hangup}]", False),
        ("[answer, if: {when: caller, then: [answer, hangup], else: [goto: night]}, answer]", False),
    ],
)
def test_whether_anything_can_follow_is_known(steps: str, goes_on: bool) -> None:
    assert read(steps).goes_on is goes_on


def test_the_branches_of_a_step_are_found_wherever_they_stand() -> None:
    (step,) = read("[dial: {to: a, busy: answer, unreachable: hangup}]")
    assert isinstance(step, Dial) and list(step.branches) == [step.busy, step.unreachable]
    (step,) = read("[if: {when: caller, then: answer}]")
    assert isinstance(step, If) and list(step.branches) == [step.then]
    (step,) = read("[menu: {prompt: P, keys: {1: answer, 2: hangup}, otherwise: reject}]")
    assert [branch[0].word for branch in step.branches] == ["reject", "answer", "hangup"]


def test_every_step_has_a_word_and_a_manual_of_its_own() -> None:
    words = [step.word for step in STEPS]
    assert len(set(words)) == len(words)
    for step in STEPS:
        manual = step.__doc__ or ""
        assert manual != Step.__doc__ and f"- {step.word}" in manual, step
        assert not step.short or step.short in {field.alias for field in step.model_fields.values()}


def test_steps_cannot_be_changed() -> None:
    (step,) = read("[say: Bonjour]")
    assert isinstance(step, Say)
    with pytest.raises(ValueError, match="frozen"):
        step.early = True  # type: ignore[misc]


@virtual
async def test_a_call_that_runs_in_circles_is_ended_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The dial takes time in every plan that the check can see; here no handset is there, so that it takes none."""
    steps = "[answer, dial: {to: '101', unreachable: {goto: welcome}}]"
    path = plan(tmp_path, steps)
    async with office(path) as company:
        company.asterisk.handset("acme-101", registered=False)
        caller = calls(company)
        with caplog.at_level(logging.CRITICAL):
            await caller.over()
        record = await record_of(company)
        assert record.cause == Cause.TEMPORARY_FAILURE and record.ended_by == "engine"
        (runaway,) = noted(record, "runaway")
        assert runaway["steps"] == MOST_STEPS_AT_ONCE and str(runaway["where"]).startswith(f"{path}:")


@virtual
async def test_the_time_of_each_step_is_measured(tmp_path: Path) -> None:
    def waited() -> float:
        return REGISTRY.get_sample_value("pbx_step_seconds_sum", {"step": "wait"}) or 0.0

    before = waited()
    async with office(plan(tmp_path, "[wait: 7s, wait: 3s]")) as company:
        caller = calls(company)
        await caller.over()
    assert 10.0 <= waited() - before < 10.5


class Mute:
    """A voice that can say nothing."""

    async def sound(self, text: str, language: str) -> str:
        raise SpeechError("no voice")


@virtual
async def test_a_text_that_cannot_be_spoken_is_left_out_and_noted(tmp_path: Path) -> None:
    path = plan(tmp_path, "[menu: {prompt: [Bonjour, {play: beep}], tries: 1, keys: {1: hangup}}]")
    async with office(path) as company:
        company.engine._speaker = Mute()
        caller = calls(company)
        await caller.over()
        assert caller.sounds == ["sound:beep"]
        (silent,) = noted(await record_of(company), "not_spoken")
        assert silent["error"] == "no voice" and str(silent["where"]).startswith(f"{path}:")
