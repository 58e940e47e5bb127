from __future__ import annotations

from pathlib import Path

from office import Office
from office import office
from plans import CALLER
from plans import calls
from plans import noted
from plans import plan
from plans import record_of
from switchboard import in_every_order

from pbx.simulator import virtual
from pbx.store import Message

GREETING = "sound:fr/Votre correspondant n'est pas disponible. Laissez votre message après le bip puis raccrochez."
THANKS = "sound:fr/Merci. Votre message est enregistré."


async def the_message(company: Office, box: str) -> Message:
    (message,) = await company.store.messages("acme", box)
    return message


def test_a_message_is_kept_when_the_caller_just_hangs_up(tmp_path: Path) -> None:
    async def story(seed: int) -> None:
        async with office(plan(tmp_path, '- voicemail: "101"'), seed) as company:
            caller = calls(company)
            await caller.hears("beep")
            caller.hang_up(after=5)
            record = await record_of(company)
            message = await the_message(company, "101")
            assert caller.sounds == [GREETING, "beep"]
            assert (message.tenant, message.call_id, message.caller_number) == ("acme", record.id, CALLER)
            assert 4_000 <= message.duration_ms <= 5_500 and message.file in company.asterisk.stored
            assert company.lamps == {"acme-101": (1, 0)}
            assert record.outcome == "voicemail"

    in_every_order(story)


@virtual
async def test_hash_ends_the_message_and_the_next_step_follows(tmp_path: Path) -> None:
    async with office(plan(tmp_path, '[voicemail: "101", say: Fin]')) as company:
        caller = calls(company)
        await caller.hears("beep")
        caller.press("#", after=4)
        await caller.over()
        assert caller.sounds == [GREETING, "beep", THANKS, "sound:fr/Fin"]


@virtual
async def test_a_message_that_is_too_short_is_thrown_away(tmp_path: Path) -> None:
    async with office(plan(tmp_path, '- voicemail: "101"')) as company:
        caller = calls(company)
        await caller.hears("beep")
        caller.press("#", after=0.6)
        record = await record_of(company)
        assert caller.sounds[-1] == "sound:fr/Votre message était trop court."
        assert await company.store.messages("acme", "101") == []
        assert company.asterisk.stored == {} and company.lamps == {}
        assert len(noted(record, "message_too_short")) == 1


@virtual
async def test_silence_ends_the_message(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "- voicemail: desk")) as company:
        caller = calls(company)
        caller.speaks_s = 3.0
        await caller.over()
        assert caller.sounds[-1] == THANKS
        assert company.lamps == {"acme-101": (1, 0), "acme-103": (1, 0)}


@virtual
async def test_the_lamp_counts_all_boxes_of_a_line(tmp_path: Path) -> None:
    async with office(plan(tmp_path, '[voicemail: "101", voicemail: desk]')) as company:
        caller = calls(company)
        await caller.hears("beep")
        caller.press("#", after=4)
        await caller.hears("beep", times=2)
        caller.press("#", after=4)
        await caller.over()
        assert company.lamps == {"acme-101": (2, 0), "acme-103": (1, 0)}


@virtual
async def test_the_greeting_of_the_step_comes_before_that_of_the_box(tmp_path: Path) -> None:
    steps = '[voicemail: desk, voicemail: {box: desk, greeting: "Dites-nous tout."}]'
    path = plan(tmp_path, steps)
    path.write_text(path.read_text().replace('pin: "2580"', 'pin: "2580", greeting: "Ici le bureau."'))
    async with office(path) as company:
        caller = calls(company)
        caller.speaks_s = 3.0
        await caller.over()
        greetings = [sound for sound in caller.sounds if "bureau" in sound or "tout" in sound]
        assert greetings == ["sound:fr/Ici le bureau.", "sound:fr/Dites-nous tout."]
