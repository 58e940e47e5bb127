from __future__ import annotations

from pathlib import Path

from office import office
from plans import calls
from plans import noted
from plans import plan
from plans import record_of

from pbx.simulator import answers
from pbx.simulator import virtual


@virtual
async def test_a_variable_is_set_from_others_and_kept_for_later_steps(tmp_path: Path) -> None:
    steps = """
        - set: {who: "{caller}"}
        - set: {who: "<{who}>", other: "{who}"}
        - say: "{who} {other}"
    """
    async with office(plan(tmp_path, steps)) as company:
        caller = calls(company)
        await caller.over()
        assert caller.sounds == ["sound:fr/<+33199000177> +33199000177"]
        assert noted(await record_of(company), "set")[0] == {"variables": {"who": "+33199000177"}}


@virtual
async def test_the_language_changes_what_the_engine_says_too(tmp_path: Path) -> None:
    steps = '[set: {language: en}, menu: {prompt: {fr: Un, en: One}, tries: 1, keys: {"1": hangup}}]'
    async with office(plan(tmp_path, steps, language="languages: [fr, en]")) as company:
        caller = calls(company)
        await caller.hears("sound:en/One")
        caller.press("2")
        await caller.over()
        assert caller.sounds == ["sound:en/One", "sound:en/That is not a valid choice."]


@virtual
async def test_handsets_show_the_callers_name_that_was_set(tmp_path: Path) -> None:
    async with office(plan(tmp_path, '[set: {caller_name: "VIP {caller}"}, dial: "101"]')) as company:
        handset = company.asterisk.handset("acme-101", answers(leaves=3))
        caller = calls(company)
        party = await handset.rung()
        assert party.channel.connected == {"name": "VIP +33199000177", "number": "+33199000177"}
        await caller.over()
