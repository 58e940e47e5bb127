"""Calls as their people live them: a real PBX, real telephones, and what each of them hears."""

from __future__ import annotations

import pytest
from live.pbx import Pbx
from live.sound import search
from live.sound import silence
from live.sound import tone

pytestmark = pytest.mark.asyncio(loop_scope="session")

COMPANY = "+33199000100"
ALICE = "+33199000101"

WELCOME = "Bonjour, vous êtes bien chez Acme."
MENU = "Pour le service commercial, tapez 1. Pour le support, tapez 2. Pour nos horaires, tapez 3."
BUSY = "Notre technicien est déjà en ligne."
ALICE_IS_OUT = "Bonjour, vous êtes sur la messagerie d'Alice Martin. Laissez un message après le bip."


async def test_a_caller_hears_the_menu_and_key_1_reaches_alice(acme: Pbx) -> None:
    alice, chloe = await acme.handset("101"), await acme.handset("103")
    call = await acme.carrier.calls(COMPANY, playing=tone(620, 60))
    await call.hears(await acme.spoken(WELCOME))
    await call.hears(await acme.spoken(MENU))
    await call.presses("1")
    await chloe.rings()
    await alice.rings()
    await alice.answers()
    await chloe.is_released()
    await call.hears_tone(440)
    await alice.hears_tone(620)
    await call.hangs_up()
    await alice.is_released()

    record = await acme.record(call.name)
    assert (record.tenant, record.direction, record.dialled) == ("acme", "inbound", COMPANY)
    assert (record.outcome, record.ended_by, record.cause) == ("answered", "caller", 16)
    assert {leg.target: leg.outcome for leg in record.legs} == {"101": "answered", "103": "answered_elsewhere"}


async def test_a_key_cuts_the_prompt_short(acme: Pbx) -> None:
    welcome, menu = await acme.spoken(WELCOME), await acme.spoken(MENU)
    call = await acme.carrier.calls(COMPANY)
    await call.hears(welcome)
    await call.hears(menu.first(1.0))
    await call.presses("3")
    await call.hears((await acme.spoken("Nos bureaux sont ouverts du lundi au vendredi, de neuf heures à midi et demi, "
                                        "et de treize heures trente à dix-huit heures. Le vendredi, nous fermons à "
                                        "dix-sept heures.")).first(2.0))
    assert not call.has_heard(menu.after(3.0))


async def test_a_caller_who_knows_the_way_types_ahead(acme: Pbx) -> None:
    alice = await acme.handset("101")
    call = await acme.carrier.calls(COMPANY)
    await call.is_connected()
    await call.presses("1")
    await alice.rings()
    assert not call.has_heard((await acme.spoken(MENU)).first(1.0))


async def test_nobody_answers_and_the_message_lights_the_lamp(acme: Pbx) -> None:
    alice = await acme.handset("101")
    speech = await acme.prompt("basic-pbx-ivr-main", "en")
    call = await acme.carrier.calls(COMPANY, playing=silence(1))
    await call.is_connected()
    await call.presses("1")
    await alice.rings()
    await alice.is_released()
    await call.hears(await acme.spoken(ALICE_IS_OUT))
    await call.hears(await acme.prompt("beep", "en"))
    await call.says(speech.first(3.0))
    await call.hangs_up()
    await alice.lamp_shows(new=1)

    [message] = await acme.messages("101")
    assert message.caller_number == call.name
    assert search(speech.first(3.0), acme.recording(message)).found
    record = await acme.record(call.name)
    assert (record.outcome, record.ended_by) == ("voicemail", "caller")
