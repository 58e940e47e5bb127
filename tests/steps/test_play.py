from __future__ import annotations

import wave
from pathlib import Path

from office import office
from plans import calls
from plans import plan

from pbx.simulator import virtual


def silence(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(1600))


@virtual
async def test_files_are_played_from_beside_the_plan_and_names_from_asterisk(tmp_path: Path) -> None:
    silence(tmp_path / "sounds" / "welcome.wav")
    async with office(plan(tmp_path, "- play: [beep, sounds/welcome.wav]")) as company:
        caller = calls(company)
        await caller.over()
        assert caller.sounds == ["sound:beep", f"sound:{tmp_path}/sounds/welcome"]
        assert all(heard.complete for heard in caller.heard) and caller.answered_at is not None


@virtual
async def test_a_sound_follows_the_language_of_the_call(tmp_path: Path) -> None:
    silence(tmp_path / "fr.wav")
    silence(tmp_path / "en.wav")
    steps = "[set: {language: en}, play: {fr: fr.wav, en: en.wav}]"
    async with office(plan(tmp_path, steps, language="languages: [fr, en]")) as company:
        caller = calls(company)
        await caller.over()
        assert caller.sounds == [f"sound:{tmp_path}/en"]


@virtual
async def test_an_early_sound_does_not_answer(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "[play: {sound: beep, early: yes}, reject]")) as company:
        caller = calls(company)
        await caller.over()
        assert caller.sounds == ["sound:beep"] and caller.answered_at is None
