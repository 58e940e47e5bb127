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


async def test_a_message_left_while_her_telephone_was_off_is_heard_and_deleted_by_its_owner(acme: Pbx) -> None:
    bob = await acme.handset("102", playing=silence(1))
    speech = (await acme.prompt("vm-review")).first(3.0)
    await bob.dials("103")
    await bob.hears(await acme.spoken(
        "Votre correspondant n'est pas disponible. Laissez votre message après le bip, puis raccrochez."
    ))
    await bob.hears(await acme.prompt("beep"))
    await bob.says(speech)
    await bob.hangs_up()
    await acme.record("102")

    chloe = await acme.handset("103")
    await chloe.lamp_shows(new=1)
    await chloe.dials("*98")
    await chloe.is_connected()
    await chloe.presses("3105#")
    await chloe.hears(await acme.spoken("Nouveau message, reçu le"))
    await chloe.hears(speech, within=20)
    await chloe.hears((await acme.spoken("Pour réécouter, tapez 1. Pour conserver, tapez 2. Pour effacer, tapez 3.")))
    await chloe.presses("3")
    await chloe.hears(await acme.spoken("Message effacé."))
    await chloe.lamp_shows(new=0)
    assert await acme.messages("103") == []


async def test_a_busy_line_is_told_to_the_caller(acme: Pbx) -> None:
    bob = await acme.handset("102")
    call = await acme.carrier.calls(COMPANY)
    await call.is_connected()
    await call.presses("2")
    await bob.rings()
    await bob.rejects()
    await call.hears(await acme.spoken(BUSY))
    await call.hangs_up()
    record = await acme.record(call.name)
    assert [(leg.target, leg.outcome) for leg in record.legs] == [("102", "busy")]


async def test_a_colleague_is_reached_by_his_short_number(acme: Pbx) -> None:
    alice, bob = await acme.handset("101", playing=tone(440, 60)), await acme.handset("102", playing=tone(520, 60))
    await alice.dials("102")
    ringing = await bob.rings()
    assert ringing.peer.startswith("sip:101@")
    await bob.answers()
    await alice.hears_tone(520)
    await bob.hears_tone(440)
    await bob.hangs_up()
    await alice.is_released()
    record = await acme.record("101")
    assert (record.direction, record.outcome, record.ended_by) == ("internal", "answered", "callee")


async def test_a_caller_who_gives_up_stops_the_ringing(acme: Pbx) -> None:
    alice = await acme.handset("101")
    call = await acme.carrier.calls(ALICE)
    await alice.rings()
    await call.hangs_up()
    await alice.is_released()
    record = await acme.record(call.name)
    assert (record.ended_by, [leg.outcome for leg in record.legs]) == ("caller", ["cancelled"])


async def test_a_number_that_nobody_has_is_refused(acme: Pbx) -> None:
    call = await acme.carrier.calls("+33199000999")
    await call.is_released("404")


async def test_a_handset_calls_out_and_shows_its_own_number(acme: Pbx) -> None:
    alice = await acme.handset("101")
    mobile = await acme.carrier.subscriber("+33639989000")
    await alice.dials("00639989000")
    ringing = await mobile.rings()
    assert ringing.peer.startswith("sip:+33199000101@")
    await mobile.answers()
    await alice.hears_tone(620)
    await mobile.hears_tone(440)
    await alice.hangs_up()
    await mobile.is_released()
    record = await acme.record("101")
    assert (record.direction, record.outcome, record.legs[0].target) == ("outbound", "answered", "+33639989000")


async def test_two_wideband_handsets_hear_what_no_narrowband_call_carries(acme: Pbx) -> None:
    high = tone(6000, 60, rate=16000)
    alice = await acme.handset("101", playing=high, wideband=True)
    bob = await acme.handset("102", playing=high, wideband=True)
    await alice.dials("102")
    await bob.rings()
    await bob.answers()
    await alice.hears_tone(6000)
    await bob.hears_tone(6000)


async def test_whoever_is_put_on_hold_hears_music_until_he_is_taken_back(acme: Pbx) -> None:
    alice, bob = await acme.handset("101", playing=tone(440, 60)), await acme.handset("102")
    await alice.dials("102")
    await bob.rings()
    await bob.answers()
    await bob.hears_tone(440)
    await alice.holds()
    await bob.hears_other_than(440)
    await alice.resumes()
    await bob.hears_tone(440)
