from __future__ import annotations

from pathlib import Path

from office import office
from plans import calls
from plans import noted
from plans import plan
from plans import record_of

from pbx.simulator import virtual

BILINGUAL = "languages: [fr, en]"


@virtual
async def test_a_text_is_spoken_in_the_language_of_the_plan_and_the_call_is_answered(tmp_path: Path) -> None:
    async with office(plan(tmp_path, '- say: "Bonjour."')) as company:
        caller = calls(company)
        await caller.over()
        assert caller.sounds == ["sound:fr/Bonjour."]
        assert caller.heard[0].complete and caller.answered_at is not None


@virtual
async def test_an_early_text_is_heard_without_an_answer(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "[say: {text: Fermé, early: yes}, reject: busy]")) as company:
        caller = calls(company)
        await caller.over()
        assert caller.sounds == ["sound:fr/Fermé"]
        assert caller.answered_at is None and caller.status == 486


@virtual
async def test_texts_follow_the_language_of_the_call(tmp_path: Path) -> None:
    steps = """
        - say: {fr: Bonjour, en: Hello}
        - set: {language: en}
        - say: {fr: Bonjour, en: Hello}
        - say: {text: Bienvenue, language: fr}
    """
    async with office(plan(tmp_path, steps, language=BILINGUAL)) as company:
        caller = calls(company)
        await caller.over()
        assert caller.sounds == ["sound:fr/Bonjour", "sound:en/Hello", "sound:fr/Bienvenue"]


@virtual
async def test_variables_are_spoken_with_the_text(tmp_path: Path) -> None:
    async with office(plan(tmp_path, '[set: {who: "{caller}!"}, say: "Bonjour {who} {{vous}}"]')) as company:
        caller = calls(company)
        await caller.over()
        assert caller.sounds == ["sound:fr/Bonjour +33199000177! {vous}"]


@virtual
async def test_a_text_of_empty_variables_is_passed_over(tmp_path: Path) -> None:
    async with office(plan(tmp_path, '[answer, say: "{digits}", say: Merci]')) as company:
        caller = calls(company)
        await caller.over()
        assert caller.sounds == ["sound:fr/Merci"]


@virtual
async def test_each_step_is_noted_with_its_place_in_the_plan(tmp_path: Path) -> None:
    path = plan(tmp_path, '- say: "Bonjour."\n- hangup')
    async with office(path) as company:
        calls(company)
        record = await record_of(company)
        lines = path.read_text().splitlines()
        first = next(number for number, line in enumerate(lines, 1) if "Bonjour" in line)
        assert noted(record, "step") == [
            {"step": "say", "where": f"{path}:{first}:7"}, {"step": "hangup", "where": f"{path}:{first + 1}:7"},
        ]
