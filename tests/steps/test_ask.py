from __future__ import annotations

from pathlib import Path

import pytest
from office import office
from plans import calls
from plans import noted
from plans import plan
from plans import record_of

from pbx.simulator import virtual

ASK = """
    - ask:
        prompt: Compte
        into: account
        min: 3
        max: 5
        valid: account starts_with 33
        invalid: Faux
        timeout: Rien
        tries: 2
        otherwise: {say: Sinon}
    - say: "Compte {account}."
"""
PROMPT = "sound:fr/Compte"


@pytest.mark.parametrize(
    "typed, heard",
    [
        ("331#", ["sound:fr/Compte 331."]),
        ("33123", ["sound:fr/Compte 33123."]),  # five digits are enough, no # is needed
        ("331", ["sound:fr/Compte 331."]),  # nothing more comes
        ("33#", ["sound:fr/Faux", PROMPT, "sound:fr/Rien", "sound:fr/Sinon", "sound:fr/Compte ."]),  # too short
        ("441#", ["sound:fr/Faux", PROMPT, "sound:fr/Rien", "sound:fr/Sinon", "sound:fr/Compte ."]),  # not valid
        ("", ["sound:fr/Rien", PROMPT, "sound:fr/Rien", "sound:fr/Sinon", "sound:fr/Compte ."]),
    ],
)
def test_digits_are_taken_checked_and_asked_for_again(tmp_path: Path, typed: str, heard: list[str]) -> None:
    @virtual
    async def story() -> None:
        async with office(plan(tmp_path, ASK)) as company:
            caller = calls(company)
            await caller.hears(PROMPT)
            caller.press(typed)
            await caller.over()
            assert caller.sounds == [PROMPT, *heard]

    story()


@virtual
async def test_without_an_end_key_the_hash_is_a_digit(tmp_path: Path) -> None:
    async with office(plan(tmp_path, '[ask: {prompt: Code, max: 3, end: none}, say: "{digits}"]')) as company:
        caller = calls(company)
        await caller.hears("sound:fr/Code")
        caller.press("1#2")
        await caller.over()
        assert caller.sounds[-1] == "sound:fr/1#2"


@virtual
async def test_a_secret_is_kept_out_of_the_timeline(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "- ask: {prompt: Code, into: code, secret: yes}")) as company:
        caller = calls(company)
        await caller.hears("sound:fr/Code")
        caller.press("4711#")
        record = await record_of(company)
        assert noted(record, "typed") == [{"step": "ask", "digits": "****", "reason": "terminator"}]
        assert not any("4711" in str(moment.detail) for moment in record.timeline)
