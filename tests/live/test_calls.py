"""Calls as their people live them: a real PBX, real telephones, and what each of them hears."""

from __future__ import annotations

from live.pbx import Pbx

COMPANY = "+33199000100"
ALICE = "+33199000101"


async def test_a_caller_hears_the_menu_and_key_1_reaches_alice(acme: Pbx) -> None:
    alice = await acme.handset("101")
    call = await acme.carrier.calls(COMPANY, caller="+33639980001")
    await call.hears(await acme.spoken("Bonjour, vous êtes bien chez Acme."))
    await call.hears(await acme.spoken(
        "Pour le service commercial, tapez 1. Pour le support, tapez 2. Pour nos horaires, tapez 3."
    ))
    await call.presses("1")
    await alice.rings()
    await alice.answers()
    await call.hears_tone(440)
    await alice.hears_tone(620)
    await call.hangs_up()
    await alice.is_released()
    record = await acme.record("+33639980001")
    print(record)
    await acme.is_idle()
