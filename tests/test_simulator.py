from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from typing import cast

import pytest

from pbx.ari import AriError
from pbx.ari import Gone
from pbx.ari import Unreachable
from pbx.ari_api import Event
from pbx.ari_api import Operations
from pbx.simulator import Asterisk
from pbx.simulator import Deadlock
from pbx.simulator import Leftover
from pbx.simulator import Party
from pbx.simulator import SoundFiles
from pbx.simulator import VirtualClock
from pbx.simulator import announces
from pbx.simulator import answers
from pbx.simulator import busy
from pbx.simulator import refuses
from pbx.simulator import rings
from pbx.simulator import run
from pbx.simulator import silent
from pbx.simulator import virtual

APP = "pbx-w1"
SEEDS = range(20)


class Console(Operations):
    """Somebody who types requests by hand and sees every event."""

    def __init__(self, asterisk: Asterisk) -> None:
        self.world = asterisk
        self.told: list[dict[str, Any]] = []
        self._news = asyncio.Event()

        async def request(operation: str, method: str, path: str, query: Any, body: Any, timeout: float | None) -> Any:
            return await asterisk.request(operation, method, path, query, body, 3.0 if timeout is None else timeout)

        super().__init__(request)

    def receive(self, event: Event) -> None:
        self.told.append(cast(dict[str, Any], event))
        self._news.set()

    async def sees(self, kind: str, about: str = "", state: str = "") -> dict[str, Any]:
        """Waits for an event of this kind about this object."""
        async with asyncio.timeout(3600):
            while True:
                for event in self.told:
                    if event["type"] == kind and about in (_subject(event), "") and state in (_state(event), ""):
                        return event
                self._news.clear()
                await self._news.wait()

    def kinds(self, about: str = "") -> list[str]:
        return [event["type"] for event in self.told if about in (_subject(event), "") and event["type"] != VARSET]

    async def arrival(self, party: Party) -> str:
        await self.sees("StasisStart", party.channel.id)
        return party.channel.id

    async def leg(self, endpoint: str, leg_id: str = "leg", **more: Any) -> str:
        await self.channels.create(endpoint=f"PJSIP/{endpoint}", app=APP, channel_id=leg_id, **more)
        await self.sees("StasisStart", leg_id)
        return leg_id


VARSET = "ChannelVarset"


def _subject(event: dict[str, Any]) -> str:
    for field, name in (("playback", "id"), ("recording", "name"), ("peer", "id"), ("channel", "id"), ("bridge", "id")):
        if field in event:
            return str(event[field][name])
    return ""


def _state(event: dict[str, Any]) -> str:
    return str(event.get("channel", {}).get("state", ""))


@asynccontextmanager
async def console(seed: int = 0, **settings: Any) -> AsyncIterator[Console]:
    asterisk = Asterisk(seed, **settings)
    it = Console(asterisk)
    await asterisk.connect(APP, it.receive)
    yield it
    await asterisk.close()


def status_of(error: pytest.ExceptionInfo[AriError]) -> int:
    return error.value.status


def in_every_order(story: Callable[[int], Any]) -> None:
    for seed in SEEDS:
        run(story(seed))


# -- the loop -------------------------------------------------------------------------------------


def test_an_hour_passes_at_once() -> None:
    async def story() -> float:
        clock = VirtualClock()
        began = clock.now()
        await asyncio.sleep(3600)
        return (clock.now() - began).total_seconds()

    assert run(story()) == 3600


def test_timers_fire_in_the_order_of_their_times() -> None:
    async def story() -> list[int]:
        fired: list[int] = []
        for n in (3, 1, 2):
            asyncio.get_running_loop().call_later(n, fired.append, n)
        await asyncio.sleep(5)
        return fired

    assert run(story()) == [1, 2, 3]


def test_a_wait_that_nothing_can_end_is_a_deadlock_that_names_the_waiter() -> None:
    async def waits_for_ever() -> None:
        await asyncio.Event().wait()

    async def story() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(waits_for_ever(), name="the waiter")

    with pytest.raises(Deadlock, match=r"the waiter: .*locks\.py:\d+ in Event\.wait"):
        run(story())


def test_a_task_that_is_left_over_is_an_error_that_names_it() -> None:
    tasks = []

    async def story() -> None:
        tasks.append(asyncio.create_task(asyncio.sleep(60), name="the straggler"))

    with pytest.raises(Leftover, match="the straggler"):
        run(story())
    assert tasks[0].cancelled()


def test_an_error_in_a_callback_is_not_lost() -> None:
    async def story() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)

    with pytest.raises(Leftover, match="division by zero"):
        run(story())


def test_threads_and_programs_are_waited_for_in_real_time() -> None:
    async def story() -> tuple[str, bytes, float]:
        word = await asyncio.to_thread(lambda: "thread")
        program = await asyncio.create_subprocess_exec("echo", "program", stdout=asyncio.subprocess.PIPE)
        out, _ = await program.communicate()
        return word, out, asyncio.get_running_loop().time()

    assert run(story()) == ("thread", b"program\n", 0.0)


# -- callers --------------------------------------------------------------------------------------


@virtual
async def test_a_call_from_a_trunk_arrives_with_what_the_dialplan_knows() -> None:
    async with console() as it:
        party = it.world.call("trunk-x", "+33199000100", caller="+33199000177", name="Ann")
        event = await it.sees("StasisStart")
        assert event["args"] == ["trunk", "trunk-x", "+33199000100"]
        channel = event["channel"]
        assert (channel["state"], channel["caller"]) == ("Ring", {"name": "Ann", "number": "+33199000177"})
        assert channel["dialplan"]["context"] == "from-trunk"
        assert event["application"] == APP
        party.hang_up()
        await party.over()


@virtual
async def test_a_caller_who_hangs_up_is_last_heard_of_at_stasis_end() -> None:
    """Nothing tells of his channel's destruction: the application hears only of what goes on inside it."""
    async with console() as it:
        party = it.world.call("acme-101", "102")
        channel = await it.arrival(party)
        await it.channels.answer(channel)
        party.hang_up()
        await party.over()
        await asyncio.sleep(1)
        assert it.kinds(channel) == ["StasisStart", "ChannelStateChange", "ChannelHangupRequest", "StasisEnd"]
        assert "cause" not in it.told[-2] and it.world.idle


@virtual
async def test_a_caller_who_was_named_as_originator_is_heard_of_to_the_end() -> None:
    async with console() as it:
        it.world.handset("acme-102")
        party = it.world.call("acme-101", "102")
        channel = await it.arrival(party)
        await it.leg("acme-102", originator=channel)
        party.hang_up()
        ended = await it.sees("ChannelDestroyed", channel)
        assert (ended["cause"], ended["tech_cause"]) == (127, 487)
        assert party.status == 487


@pytest.mark.parametrize("cause, status", [(17, 486), (21, 403), (1, 404), (20, 480), (18, 408), (34, 503), (16, 603)])
def test_a_caller_who_was_not_answered_gets_the_sip_answer_of_the_cause(cause: int, status: int) -> None:
    async def story() -> int:
        async with console() as it:
            party = it.world.call("trunk-x", "+33199000100")
            await it.channels.hangup(await it.arrival(party), reason_code=str(cause))
            await party.over()
            return party.status

    assert run(story()) == status


@virtual
async def test_our_own_hang_up_carries_32_at_first_and_the_true_cause_only_at_the_end() -> None:
    async with console() as it:
        it.world.handset("acme-101", rings())
        leg = await it.leg("acme-101")
        await it.channels.dial(leg)
        await it.channels.hangup(leg, reason="answered_elsewhere")
        assert (await it.sees("ChannelHangupRequest", leg))["cause"] == 32
        assert (await it.sees("ChannelDestroyed", leg))["cause"] == 26


@virtual
async def test_answering_twice_says_nothing_the_second_time() -> None:
    async with console() as it:
        party = it.world.call("trunk-x", "+33199000100")
        channel = await it.arrival(party)
        await it.channels.answer(channel)
        await it.channels.answer(channel)
        await asyncio.sleep(1)
        assert it.kinds(channel).count("ChannelStateChange") == 1
        party.hang_up()
        await party.over()


@virtual
async def test_commands_for_a_channel_that_is_gone_find_nothing() -> None:
    async with console() as it:
        party = it.world.call("trunk-x", "+33199000100")
        channel = await it.arrival(party)
        party.hang_up()
        await party.over()
        await it.bridges.create_with_id("b", type="mixing")
        for command in (
            it.channels.answer(channel), it.channels.play_with_id(channel, "p", media=["sound:x"]),
            it.channels.hangup(channel), it.channels.get(channel), it.bridges.add_channel("b", channel=[channel]),
        ):
            with pytest.raises(Gone):
                await command
        await it.bridges.destroy("b")


def test_an_answer_that_a_hang_up_overtakes_is_gone() -> None:
    async def story(seed: int) -> None:
        async with console(seed) as it:
            party = it.world.call("trunk-x", "+33199000100")
            channel = await it.arrival(party)
            await it.channels.play_with_id(channel, "p", media=["sound:x"])
            await it.sees("PlaybackStarted")
            party.hang_up(after=0.3)
            with pytest.raises(Gone, match="Failed to answer channel"):
                await it.channels.answer(channel)

    in_every_order(story)


# -- playing --------------------------------------------------------------------------------------


@virtual
async def test_sounds_play_one_after_another_for_their_true_length() -> None:
    async with console(length_of=lambda uri, language: {"sound:a": 1.5, "sound:b": 2.5}[uri]) as it:
        party = it.world.call("trunk-x", "+33199000100")
        channel = await it.arrival(party)
        await it.channels.play_with_id(channel, "p", media=["sound:a", "sound:b"], lang="fr")
        await it.sees("PlaybackFinished")
        assert it.kinds("p") == ["PlaybackStarted", "PlaybackContinuing", "PlaybackStarted", "PlaybackFinished"]
        assert [(heard.what, heard.complete) for heard in party.heard] == [("sound:a", True), ("sound:b", True)]
        assert party.heard[1].until == pytest.approx(party.heard[0].at + 4.0)
        with pytest.raises(Gone):
            await it.playbacks.stop("p")
        party.hang_up()
        await party.over()


@virtual
async def test_a_stopped_playback_is_done_and_was_not_heard_to_its_end() -> None:
    async with console() as it:
        party = it.world.call("trunk-x", "+33199000100")
        channel = await it.arrival(party)
        await it.channels.play_with_id(channel, "p", media=["sound:a", "sound:b"])
        await it.sees("PlaybackStarted")
        await it.playbacks.stop("p")
        assert (await it.sees("PlaybackFinished"))["playback"]["state"] == "done"
        assert [(heard.what, heard.complete) for heard in party.heard] == [("sound:a", False)]
        party.hang_up()
        await party.over()


@virtual
async def test_a_hang_up_under_a_playback_fails_it_and_those_that_wait_before_stasis_end() -> None:
    async with console() as it:
        party = it.world.call("trunk-x", "+33199000100")
        channel = await it.arrival(party)
        await it.channels.play_with_id(channel, "p1", media=["sound:a"])
        await it.channels.play_with_id(channel, "p2", media=["sound:b"])
        await it.sees("PlaybackStarted", "p1")
        party.hang_up()
        await it.sees("StasisEnd")
        states = [(e["type"], e["playback"]["state"]) for e in it.told if "playback" in e]
        failed = ("PlaybackFinished", "failed")
        assert states == [("PlaybackStarted", "playing"), failed, ("PlaybackStarted", "playing"), failed]
        assert it.told[-1]["type"] == "StasisEnd"


@virtual
async def test_a_missing_sound_fails_and_a_missing_recording_ends_without_a_word() -> None:
    async with console(length_of=lambda uri, language: None) as it:
        party = it.world.call("trunk-x", "+33199000100")
        channel = await it.arrival(party)
        await it.channels.play_with_id(channel, "p1", media=["sound:nowhere"])
        assert (await it.sees("PlaybackFinished", "p1"))["playback"]["state"] == "failed"
        await it.channels.play_with_id(channel, "p2", media=["recording:nowhere"])
        await it.sees("PlaybackStarted", "p2")
        await asyncio.sleep(60)
        assert it.kinds("p2") == ["PlaybackStarted"]
        with pytest.raises(Gone):
            await it.playbacks.get("p2")
        party.hang_up()
        await party.over()


@virtual
async def test_a_playback_stopped_before_its_turn_ends_without_having_begun() -> None:
    async with console() as it:
        party = it.world.call("trunk-x", "+33199000100")
        channel = await it.arrival(party)
        await it.channels.play_with_id(channel, "p1", media=["sound:a"])
        await it.channels.play_with_id(channel, "p2", media=["sound:b"])
        await it.playbacks.stop("p2")
        await it.sees("PlaybackFinished", "p2")
        assert it.kinds("p1") == ["PlaybackStarted", "PlaybackFinished"] and it.kinds("p2") == ["PlaybackFinished"]
        party.hang_up()
        await party.over()


@virtual
async def test_digits_and_numbers_cannot_be_stopped() -> None:
    async with console() as it:
        party = it.world.call("trunk-x", "+33199000100")
        channel = await it.arrival(party)
        await it.channels.play_with_id(channel, "p", media=["digits:123"])
        with pytest.raises(AriError) as error:
            await it.playbacks.stop("p")
        assert status_of(error) == 500
        party.hang_up()
        await party.over()


@virtual
async def test_answer_variable_and_bridge_wait_for_the_end_of_a_playback() -> None:
    async with console(length_of=lambda uri, language: 2.0) as it:
        party = it.world.call("trunk-x", "+33199000100")
        channel = await it.arrival(party)
        await it.bridges.create_with_id("b", type="mixing")
        for n, command in enumerate((
            it.channels.answer(channel), it.channels.set_channel_var(channel, variable="x", value="y"),
            it.bridges.add_channel("b", channel=[channel]), it.bridges.remove_channel("b", channel=[channel]),
        )):
            await it.channels.play_with_id(channel, f"p{n}", media=["sound:x"])
            await command
            assert "PlaybackFinished" in it.kinds(f"p{n}") or not it.world.playbacks
        party.hang_up()
        await party.over()
        await it.bridges.destroy("b")


@virtual
async def test_a_request_that_waits_too_long_gets_no_answer_but_is_carried_out() -> None:
    async with console(length_of=lambda uri, language: 60.0) as it:
        party = it.world.call("trunk-x", "+33199000100")
        channel = await it.arrival(party)
        await it.channels.play_with_id(channel, "p", media=["sound:x"])
        with pytest.raises(Unreachable, match="no answer within 3 s"):
            await it.channels.answer(channel)
        await party.answered()
        party.hang_up()
        await party.over()


@virtual
async def test_digits_are_told_while_a_sound_plays() -> None:
    async with console(length_of=lambda uri, language: 60.0) as it:
        party = it.world.call("trunk-x", "+33199000100")
        channel = await it.arrival(party)
        await it.channels.play_with_id(channel, "p", media=["sound:x"])
        party.press("12", after=1)
        await asyncio.sleep(2)
        assert [e["digit"] for e in it.told if e["type"] == "ChannelDtmfReceived"] == ["1", "2"]
        party.hang_up()
        await party.over()


# -- recording ------------------------------------------------------------------------------------


@virtual
async def test_a_recording_lasts_until_the_key_and_counts_whole_seconds(tmp_path: Path) -> None:
    async with console(recordings=tmp_path) as it:
        party = it.world.call("trunk-x", "+33199000100")
        channel = await it.arrival(party)
        await it.channels.record(channel, name="r", format="wav", beep=True, terminate_on="#", max_duration_seconds=60)
        await party.hears("beep")
        party.press("#", after=4.0)
        assert (await it.sees("RecordingFinished"))["recording"]["duration"] == 3
        assert it.kinds(channel).count("ChannelDtmfReceived") == 1
        assert SoundFiles(tmp_path)("sound:r", "en") == pytest.approx(3.75, abs=0.1)
        await it.recordings.delete_stored("r")
        assert list(tmp_path.iterdir()) == []
        party.hang_up()
        await party.over()


@virtual
async def test_a_recording_ends_after_silence_and_at_its_longest() -> None:
    async with console() as it:
        party = it.world.call("trunk-x", "+33199000100")
        party.speaks_s = 4.0
        channel = await it.arrival(party)
        await it.channels.record(channel, name="r1", format="wav", max_silence_seconds=3, max_duration_seconds=60)
        assert (await it.sees("RecordingFinished", "r1"))["recording"]["duration"] == 7
        await it.channels.record(channel, name="r2", format="wav", max_silence_seconds=3, max_duration_seconds=5)
        assert (await it.sees("RecordingFinished", "r2"))["recording"]["duration"] == 5
        party.hang_up()
        await party.over()


@virtual
async def test_a_hang_up_closes_the_recording_before_stasis_end() -> None:
    async with console() as it:
        party = it.world.call("trunk-x", "+33199000100")
        await it.channels.record(await it.arrival(party), name="r", format="wav")
        await it.sees("RecordingStarted")
        party.hang_up(after=5)
        await it.sees("StasisEnd")
        assert it.told[-2]["type"] == "RecordingFinished" and it.told[-2]["recording"]["state"] == "done"


@virtual
async def test_recording_answers_the_call_and_keeps_the_channel_out_of_bridges() -> None:
    async with console() as it:
        party = it.world.call("trunk-x", "+33199000100")
        channel = await it.arrival(party)
        await it.channels.record(channel, name="r", format="wav")
        await it.sees("ChannelStateChange", channel, "Up")
        await it.bridges.create_with_id("b", type="mixing")
        with pytest.raises(AriError) as error:
            await it.bridges.add_channel("b", channel=[channel])
        assert status_of(error) == 409
        with pytest.raises(AriError) as error:
            await it.channels.record(channel, name="r", format="wav")
        assert status_of(error) == 409
        with pytest.raises(AriError) as error:
            await it.channels.record(channel, name="r2", format="mp3")
        assert status_of(error) == 422
        await it.recordings.stop("r")
        await it.sees("RecordingFinished")
        party.hang_up()
        await party.over()
        await it.bridges.destroy("b")


# -- other legs -----------------------------------------------------------------------------------


@virtual
async def test_a_handset_that_is_not_registered_cannot_be_called_at_all() -> None:
    async with console() as it:
        it.world.handset("acme-101", registered=False)
        for endpoint in ("PJSIP/acme-101", "PJSIP/nobody", "SIP/acme-101"):
            with pytest.raises(AriError) as error:
                await it.channels.create(endpoint=endpoint, app=APP, channel_id="leg")
            assert status_of(error) == 500
        await asyncio.sleep(1)
        assert it.told == []


def test_a_dial_before_the_legs_stasis_start_is_refused() -> None:
    refused = []

    async def story(seed: int) -> None:
        async with console(seed) as it:
            it.world.handset("acme-101", rings())
            await it.channels.create(endpoint="PJSIP/acme-101", app=APP, channel_id="leg")
            try:
                await it.channels.dial("leg", timeout_seconds=5)
            except Gone as gone:
                refused.append(gone.status)
                await it.channels.hangup("leg")
            await it.sees("ChannelDestroyed", "leg")

    in_every_order(story)
    assert 0 < len(refused) < len(SEEDS) and set(refused) == {409}


@pytest.mark.parametrize("behaviour, cause, tech_cause", [
    (busy(), 17, 486), (refuses(603), 21, 603), (refuses(480), 19, 480), (refuses(404), 1, 404),
    (refuses(503), 34, 503), (announces(then=486), 17, 486), (rings(), 19, 480), (silent(), 19, 480),
])
def test_a_leg_that_is_not_answered_ends_with_the_cause_of_its_sip_answer(
    behaviour: Any, cause: int, tech_cause: int
) -> None:
    async def story(seed: int) -> None:
        async with console(seed) as it:
            it.world.handset("acme-101", behaviour)
            leg = await it.leg("acme-101")
            await it.channels.dial(leg, timeout_seconds=20)
            ended = await it.sees("ChannelDestroyed", leg)
            assert (ended["cause"], ended["tech_cause"]) == (cause, tech_cause)
            assert {e["dialstatus"] for e in it.told if e["type"] == "Dial"} <= {"", "RINGING", "PROGRESS"}

    in_every_order(story)


def test_dial_and_state_are_told_in_either_order() -> None:
    orders = set()

    async def story(seed: int) -> None:
        async with console(seed) as it:
            handset = it.world.handset("acme-101", answers(after=1.0))
            leg = await it.leg("acme-101")
            await it.channels.dial(leg)
            party = await handset.rung()
            await party.answered()
            party.hang_up(after=1)
            await it.sees("ChannelDestroyed", leg)
            said = [event for event in it.told if event["type"] in ("Dial", "ChannelStateChange")]
            heard = [event.get("dialstatus", _state(event)) for event in said]
            heard.remove("")
            assert sorted(heard) == ["ANSWER", "RINGING", "Ringing", "Up"]
            orders.add(tuple(heard))

    in_every_order(story)
    assert len(orders) == 4


@virtual
async def test_an_unanswered_leg_takes_no_command_that_needs_a_listener() -> None:
    async with console() as it:
        it.world.handset("acme-101", rings())
        leg = await it.leg("acme-101")
        for command in (
            it.channels.answer(leg), it.channels.play_with_id(leg, "p", media=["sound:x"]), it.channels.ring(leg),
            it.channels.start_moh(leg),
        ):
            with pytest.raises(AriError) as error:
                await command
            assert status_of(error) == 412
        await it.channels.set_channel_var(leg, variable="x", value="y")
        with pytest.raises(AriError) as error:
            await it.channels.create(endpoint="PJSIP/acme-101", app=APP, channel_id=leg)
        assert status_of(error) == 409
        await it.channels.hangup(leg)
        await it.sees("ChannelDestroyed", leg)


@virtual
async def test_a_second_dial_is_accepted_and_ends_the_leg() -> None:
    async with console() as it:
        it.world.handset("acme-101", rings(after=1.0))
        leg = await it.leg("acme-101")
        await it.channels.dial(leg)
        await it.channels.dial(leg)
        assert (await it.sees("ChannelDestroyed", leg))["cause"] == 16


@virtual
async def test_caller_id_for_the_callee_is_the_connected_line() -> None:
    async with console() as it:
        it.world.handset("trunk-x", rings())
        leg = await it.leg("+33199000199@trunk-x", variables={
            "CONNECTEDLINE(num,i)": "+33199000100", "ENG": {"value": "c1", "report_events": True},
        })
        channel = await it.channels.get(leg)
        assert channel["connected"]["number"] == "+33199000100"
        assert channel["channelvars"] == {"ENG": "c1"}
        assert it.world.handsets["trunk-x"].calls[0].address == "+33199000199@trunk-x"
        await it.channels.hangup(leg)
        await it.sees("ChannelDestroyed", leg)


def test_an_answer_may_cross_our_hang_up() -> None:
    late = []

    async def story(seed: int) -> None:
        async with console(seed) as it:
            handset = it.world.handset("acme-101", rings())
            leg = await it.leg("acme-101")
            await it.channels.dial(leg)
            party = await handset.rung()
            await party.until(lambda: party.state == "ringing")
            asyncio.get_running_loop().call_later(0.002, party.answer)
            await it.channels.hangup(leg, reason_code="26")
            assert (await it.sees("ChannelDestroyed", leg))["cause"] == 26
            late.append(party.answered_at is not None)

    in_every_order(story)
    assert set(late) == {True, False}


# -- bridges --------------------------------------------------------------------------------------


async def _two_in_a_bridge(it: Console) -> tuple[Party, Party]:
    handset = it.world.handset("acme-102", answers(after=0.5))
    caller = it.world.call("acme-101", "102")
    channel = await it.arrival(caller)
    await it.leg("acme-102")
    await it.channels.dial("leg")
    callee = await handset.rung()
    await callee.answered()
    await it.channels.answer(channel)
    await it.bridges.create_with_id("b", type="mixing")
    await it.bridges.add_channel("b", channel=[channel, "leg"])
    await it.sees("ChannelEnteredBridge", "leg")
    return caller, callee


@virtual
async def test_two_in_a_bridge_hear_each_other_unless_one_is_being_played_something() -> None:
    async with console() as it:
        caller, callee = await _two_in_a_bridge(it)
        assert caller.company() == [callee] and callee.company() == [caller]
        await it.channels.play_with_id("leg", "p", media=["sound:x"])
        await callee.hears("sound:x")
        assert caller.company() == [] and "sound:x" not in caller.sounds
        await it.sees("PlaybackFinished")
        assert caller.company() == [callee]
        await it.bridges.play_with_id("b", "p2", media=["sound:y"])
        await it.sees("PlaybackFinished", "p2")
        assert "sound:y" in caller.sounds and "sound:y" in callee.sounds
        caller.hang_up()
        callee.hang_up()
        await asyncio.gather(caller.over(), callee.over())
        await it.bridges.destroy("b")
        assert it.world.idle


@virtual
async def test_a_bridge_says_that_it_ended_only_when_somebody_hung_up_in_it() -> None:
    async with console() as it:
        caller, callee = await _two_in_a_bridge(it)
        callee.hang_up()
        await callee.over()
        await it.bridges.destroy("b")
        await it.sees("ChannelLeftBridge", caller.channel.id)
        await it.sees("BridgeDestroyed")
        await it.bridges.create_with_id("b2", type="mixing")
        await it.bridges.add_channel("b2", channel=[caller.channel.id])
        await it.bridges.destroy("b2")
        await asyncio.sleep(1)
        assert it.kinds().count("BridgeDestroyed") == 1 and it.kinds(caller.channel.id).count("ChannelLeftBridge") == 2
        caller.hang_up()
        await caller.over()


@virtual
async def test_a_channel_added_to_another_bridge_leaves_the_first() -> None:
    async with console() as it:
        caller, callee = await _two_in_a_bridge(it)
        await it.bridges.create_with_id("b2", type="mixing")
        await it.bridges.add_channel("b2", channel=["leg"])
        assert it.world.bridges["b"].members == [caller.channel] and caller.company() == []
        application = await asyncio.wait_for(it.applications.get(APP), 5)
        assert application["bridge_ids"] == ["b", "b2"]
        with pytest.raises(Gone):
            await it.bridges.remove_channel("b", channel=["leg"])
        caller.hang_up()
        callee.hang_up()
        await asyncio.gather(caller.over(), callee.over())


def test_add_channel_promises_nothing_for_a_channel_that_is_leaving() -> None:
    entered = []

    async def story(seed: int) -> None:
        async with console(seed) as it:
            caller = it.world.call("acme-101", "102")
            channel = await it.arrival(caller)
            await it.bridges.create_with_id("b", type="mixing")
            await it.channels.play_with_id(channel, "p", media=["sound:x"])
            await it.sees("PlaybackStarted")
            caller.hang_up(after=0.2)
            await it.bridges.add_channel("b", channel=[channel])
            await it.sees("StasisEnd")
            assert it.world.bridges["b"].members == []
            entered.append("ChannelEnteredBridge" in it.kinds())

    in_every_order(story)
    assert set(entered) == {True, False}


@virtual
async def test_a_bridge_id_is_taken_once() -> None:
    async with console() as it:
        await it.bridges.create_with_id("b", type="mixing")
        with pytest.raises(AriError) as error:
            await it.bridges.create_with_id("b", type="mixing")
        assert status_of(error) == 409
        await it.bridges.destroy("b")
        with pytest.raises(Gone):
            await it.bridges.destroy("b")


# -- the stream -----------------------------------------------------------------------------------


def test_answers_and_events_overtake_each_other() -> None:
    orders = set()

    async def story(seed: int) -> None:
        async with console(seed) as it:
            party = it.world.call("trunk-x", "+33199000100")
            channel = await it.arrival(party)
            await it.channels.answer(channel)
            orders.add("ChannelStateChange" in it.kinds())
            party.hang_up()
            await party.over()

    in_every_order(story)
    assert orders == {True, False}


@virtual
async def test_while_the_stream_is_cut_calls_live_on_unheard_and_new_ones_fall_back() -> None:
    async with console() as it:
        party = it.world.call("trunk-x", "+33199000100")
        channel = await it.arrival(party)
        await it.channels.answer(channel)
        it.world.cut("a cable")
        assert await it.world.lost() == "a cable"
        seen = len(it.told)
        party.press("1")
        await asyncio.sleep(1)
        other = it.world.call("trunk-x", "+33199000100")
        await other.over()
        assert other.fell_back and party.state == "up" and len(it.told) == seen
        await it.world.connect(APP, it.receive)
        assert (await it.applications.get(APP))["channel_ids"] == [channel]
        party.hang_up()
        assert (await it.sees("StasisEnd"))["channel"]["id"] == channel


@virtual
async def test_a_second_connection_takes_the_application_over() -> None:
    async with console() as it:
        heir: list[Any] = []
        wire = it.world.wire()
        await wire.connect(APP, heir.append)
        await it.sees("ApplicationReplaced")
        party = it.world.call("trunk-x", "+33199000100")
        party.hang_up(after=1)
        await party.over()
        await asyncio.sleep(1)
        assert it.kinds() == ["ApplicationReplaced"] and "StasisStart" in [event["type"] for event in heir]
        await wire.close()


@virtual
async def test_unwanted_events_are_not_sent() -> None:
    async with console() as it:
        await it.applications.filter(APP, filter={"disallowed": [{"type": VARSET}]})
        party = it.world.call("trunk-x", "+33199000100")
        await it.arrival(party)
        party.hang_up()
        await party.over()
        assert VARSET not in {event["type"] for event in it.told}


@virtual
async def test_what_the_simulator_does_not_model_is_said_aloud(caplog: pytest.LogCaptureFixture) -> None:
    async with console() as it:
        with pytest.raises(AriError, match="does not model POST /channels/x/snoop") as error:
            await it.channels.snoop_channel("x", app=APP)
        assert not isinstance(error.value, Gone)
        assert "channels.snoop_channel" in caplog.text


def test_the_same_seed_tells_the_same_story() -> None:
    async def story(seed: int) -> list[tuple[str, str]]:
        async with console(seed) as it:
            caller, callee = await _two_in_a_bridge(it)
            callee.hang_up(after=3)
            caller.hang_up(after=3)
            await asyncio.gather(caller.over(), callee.over())
            await asyncio.sleep(1)
            return [(event["type"], event["timestamp"]) for event in it.told]

    assert run(story(7)) == run(story(7))
    assert run(story(7)) != run(story(8))


def test_sound_files_are_as_long_as_they_are(prefix: Any) -> None:
    sounds = SoundFiles(prefix.data / "sounds")
    assert sounds("sound:beep", "en_US_f_Allison") == pytest.approx(0.4, abs=0.1)
    assert sounds("sound:nowhere", "en_US_f_Allison") is None
