from __future__ import annotations

from pathlib import Path

from office import office
from plans import calls
from plans import noted
from plans import plan
from plans import record_of
from switchboard import in_every_order

from pbx.simulator import virtual

MENU = """
    - menu:
        prompt: Choisissez
        keys:
          "1": {say: Un}
          "12": {say: Douze}
          "2": {say: "Touche {digits}"}
          "*#": {say: Étoile}
        timeout: Rien
        otherwise: {say: Sinon}
    - say: Fin
"""
PROMPT, WRONG = "sound:fr/Choisissez", "sound:fr/Ce choix n'est pas possible."


def after_typing(folder: Path, *typed: str) -> None:
    """Checks, for every order of events, what a caller hears who types the first of `typed`: the rest of them."""
    keys, *heard = typed

    async def story(seed: int) -> None:
        async with office(plan(folder, MENU), seed) as company:
            caller = calls(company)
            await caller.hears(PROMPT)
            caller.press(keys, after=0.3)
            await caller.over()
            assert caller.sounds == [PROMPT, *heard, "sound:fr/Fin"]
            assert not caller.heard[0].complete

    in_every_order(story)


def test_a_key_cuts_the_prompt_short_and_does_its_steps(tmp_path: Path) -> None:
    after_typing(tmp_path, "2", "sound:fr/Touche 2")


def test_a_longer_key_is_waited_for(tmp_path: Path) -> None:
    after_typing(tmp_path, "12", "sound:fr/Douze")


def test_a_shorter_key_counts_when_nothing_follows(tmp_path: Path) -> None:
    after_typing(tmp_path, "1", "sound:fr/Un")


def test_a_key_may_hold_star_and_hash(tmp_path: Path) -> None:
    after_typing(tmp_path, "*#", "sound:fr/Étoile")


def test_a_wrong_key_is_told_at_once_and_the_prompt_comes_again(tmp_path: Path) -> None:
    async def story(seed: int) -> None:
        async with office(plan(tmp_path, MENU), seed) as company:
            caller = calls(company)
            await caller.hears(PROMPT)
            caller.press("9")
            await caller.hears(PROMPT, times=2)
            caller.press("2")
            await caller.over()
            assert caller.sounds == [PROMPT, WRONG, PROMPT, "sound:fr/Touche 2", "sound:fr/Fin"]

    in_every_order(story)


@virtual
async def test_after_silence_the_prompt_comes_again_and_then_the_steps_of_otherwise(tmp_path: Path) -> None:
    async with office(plan(tmp_path, MENU)) as company:
        caller = calls(company)
        await caller.over()
        silence = "sound:fr/Rien"
        asked = [PROMPT, silence, PROMPT, silence, PROMPT, silence]
        assert caller.sounds == [*asked, "sound:fr/Sinon", "sound:fr/Fin"]
        # Three prompts of a second, each with five seconds for the first key, and what is said between.
        assert caller.ended_at is not None and caller.answered_at is not None
        assert 23.0 <= caller.ended_at - caller.answered_at <= 24.0


@virtual
async def test_who_knows_the_way_types_through_several_menus(tmp_path: Path) -> None:
    steps = """
        - answer
        - wait: 1s
        - menu: {prompt: Un, keys: {"1": {menu: {prompt: Deux, keys: {"2": {goto: third}}}}}}
    """
    flows = """
        third:
          - menu: {prompt: Trois, keys: {"31": {say: Arrivé}}}
    """
    async with office(plan(tmp_path, steps, flows=flows)) as company:
        caller = calls(company)
        await caller.answered()
        caller.press("1231", gap=0.1)
        await caller.over()
        assert caller.sounds == ["sound:fr/Arrivé"]
        typed = noted(await record_of(company), "typed")
        assert [moment["digits"] for moment in typed] == ["1", "2", "31"]


@virtual
async def test_a_prompt_may_be_a_list_in_several_languages(tmp_path: Path) -> None:
    steps = """
        - menu:
            prompt:
              - {say: Bienvenue, language: fr}
              - {say: Welcome, language: en}
              - {digits: "{caller}"}
              - {play: beep}
            tries: 1
            keys: {"1": hangup}
    """
    async with office(plan(tmp_path, steps, language="languages: [fr, en]")) as company:
        caller = calls(company, caller="07")
        await caller.over()
        digits = ["sound:digits/0", "sound:digits/7"]
        assert caller.sounds == ["sound:fr/Bienvenue", "sound:en/Welcome", *digits, "sound:beep"]


@virtual
async def test_a_caller_who_hangs_up_in_the_menu_ends_the_call(tmp_path: Path) -> None:
    async with office(plan(tmp_path, MENU)) as company:
        caller = calls(company)
        await caller.hears(PROMPT)
        caller.hang_up()
        record = await record_of(company)
        assert record.ended_by == "caller" and caller.sounds == [PROMPT]
