from __future__ import annotations

from pathlib import Path

from office import Office
from office import office
from plans import calls
from plans import noted
from plans import plan

from pbx.simulator import Party
from pbx.simulator import virtual
from pbx.store import Message

PIN = "sound:fr/Tapez votre code puis dièse."
KEYS = "sound:fr/Pour réécouter tapez 1. Pour conserver tapez 2. Pour effacer tapez 3."


async def leave(company: Office, *, heard: bool = False) -> Message:
    """Somebody calls 101, whose handset is off, and leaves a message."""
    company.asterisk.handset("acme-101", registered=False)
    before = await company.store.messages("acme", "101")
    caller = calls(company, dialled="+33199000101")
    await caller.hears("beep")
    caller.press("#", after=3)
    await caller.over()
    await company.quiet()
    (message,) = [message for message in await company.store.messages("acme", "101") if message not in before]
    if heard:
        await company.store.mark_heard(message.id)
    return message


def listens(company: Office, line: str = "101") -> Party:
    """Somebody dials *98 on his own handset."""
    return company.asterisk.call(f"acme-{line}", "*98", caller=line)


def played(party: Party) -> list[str]:
    """The recordings that somebody heard, in order."""
    return [sound for sound in party.sounds if sound.startswith("recording:")]


@virtual
async def test_somebody_listens_and_saves_and_deletes(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "- answer")) as company:
        first = await leave(company)
        second = await leave(company)
        assert company.lamps == {"acme-101": (2, 0)}

        listener = listens(company)
        await listener.hears(PIN)
        listener.press("4711#")
        await listener.hears(KEYS)
        listener.press("1")  # again
        await listener.hears(KEYS, times=2)
        listener.press("2")  # saved
        await listener.hears(KEYS, times=3)
        listener.press("3")  # deleted
        await listener.over()

        assert played(listener) == [f"recording:{name}" for name in (first.file, first.file, second.file)]
        assert [kept.id for kept in await company.store.messages("acme", "101")] == [first.id]
        assert list(company.asterisk.stored) == [first.file]
        assert company.lamps == {"acme-101": (0, 1)}
        assert listener.sounds[-1] == "sound:fr/Vous n'avez plus d'autre message."


@virtual
async def test_new_messages_come_first_with_day_time_and_number(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "- answer")) as company:
        heard = await leave(company, heard=True)
        fresh = await leave(company)
        listener = listens(company)
        await listener.hears(PIN)
        listener.press("4711#")
        await listener.over()
        assert played(listener) == [f"recording:{fresh.file}", f"recording:{heard.file}"]
        new = listener.sounds.index("sound:fr/Nouveau message reçu le")
        old = listener.sounds.index("sound:fr/Message conservé reçu le")
        assert new < old
        assert "sound:digits/day-1" in listener.sounds[new:old]  # a Monday
        assert "sound:digits/10" in listener.sounds[new:old]  # nine o'clock in UTC is ten in Paris
        assert "sound:letters/plus" in listener.sounds[new:old]


@virtual
async def test_a_key_pressed_while_a_message_plays_counts_at_once(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "- answer")) as company:
        message = await leave(company)
        listener = listens(company)
        await listener.hears(PIN)
        listener.press("4711#")
        await listener.hears(f"recording:{message.file}")
        listener.press("3")
        await listener.over()
        assert KEYS not in listener.sounds
        assert await company.store.messages("acme", "101") == []


@virtual
async def test_who_hangs_up_in_the_middle_of_a_message_leaves_it_new(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "- answer")) as company:
        message = await leave(company)
        listener = listens(company)
        await listener.hears(PIN)
        listener.press("4711#")
        await listener.hears(f"recording:{message.file}")
        listener.hang_up()
        await company.quiet()
        (kept,) = await company.store.messages("acme", "101")
        assert kept.heard_at is None


@virtual
async def test_three_wrong_pins_end_it(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "- answer")) as company:
        await leave(company)
        listener = listens(company)
        for times in (1, 2, 3):
            await listener.hears(PIN, times)
            listener.press("0000#")
        await listener.over()
        await company.quiet()
        record = (await company.records())[0]
        assert len(noted(record, "wrong_pin")) == 3 and played(listener) == []
        assert not any("0000" in str(moment.detail) for moment in record.timeline)


@virtual
async def test_an_empty_box_says_so(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "- answer")) as company:
        listener = listens(company)
        await listener.hears(PIN)
        listener.press("4711#")
        await listener.over()
        assert listener.sounds == [PIN, "sound:fr/Vous n'avez pas de message."]


@virtual
async def test_a_line_without_a_box_of_its_own_opens_the_shared_one(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "- answer")) as company:
        listener = listens(company, "103")
        await listener.hears(PIN)
        listener.press("2580#")
        await listener.over()
        assert listener.sounds[-1] == "sound:fr/Vous n'avez pas de message."


@virtual
async def test_a_line_without_any_box_is_told(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "- answer")) as company:
        listener = listens(company, "102")
        await listener.over()
        assert listener.sounds == ["sound:fr/Ce poste n'a pas de messagerie."]


@virtual
async def test_a_flow_may_open_a_box_for_callers_from_outside(tmp_path: Path) -> None:
    async with office(plan(tmp_path, "- messages: desk")) as company:
        caller = calls(company)
        await caller.hears(PIN)
        caller.press("2580#")
        await caller.over()
        assert caller.sounds == [PIN, "sound:fr/Vous n'avez pas de message."]
