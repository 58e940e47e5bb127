"""The manager connection on a small Asterisk of our own: it comes back, and no lamp is forgotten."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from collections.abc import Awaitable
from collections.abc import Callable
from contextlib import asynccontextmanager
from contextlib import suppress

import pytest

from pbx.ami import Ami
from pbx.ami import AmiError
from pbx.ami import Refused

Fields = dict[str, str]


class Manager:
    """The far end of AMI. `lamps` are the MinivmMWI data that it was asked to run, in order."""

    def __init__(self) -> None:
        self.actions: list[Fields] = []
        self.secret = "swordfish"
        self.silent: set[str] = set()  # actions that get no answer
        self.refused: set[str] = set()
        self.announced = asyncio.Condition()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def lamps(self) -> list[str]:
        return [action["Data"] for action in self.actions if action["Action"] == "Originate"]

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._converse, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server:
            self._server.close()
        for writer in list(self._writers):
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def until(self, ready: Callable[[], bool]) -> None:
        """Waits until the actions that have arrived satisfy `ready`."""
        async with asyncio.timeout(10), self.announced:
            await self.announced.wait_for(ready)

    async def say(self, **fields: str) -> None:
        for writer in self._writers:
            await self._send(writer, fields)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        writer.write(b"Asterisk Call Manager/11.0.0\r\n")
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                action = dict(line.split(": ", 1) for line in lines if line)
                self.actions.append(action)
                async with self.announced:
                    self.announced.notify_all()
                for message in self._answers(action):
                    await self._send(writer, message)
        self._writers.discard(writer)
        writer.close()

    def _answers(self, action: Fields) -> list[Fields]:
        name = action["Action"]
        same = {"ActionID": action["ActionID"]}
        if name in self.silent:
            return []
        if name in self.refused:
            return [{"Response": "Error", **same, "Message": "Permission denied"}]
        match name:
            case "Login" if action["Secret"] != self.secret:
                return [{"Response": "Error", **same, "Message": "Authentication failed"}]
            case "Login":
                return [
                    {"Response": "Success", **same, "Message": "Authentication accepted"},
                    {"Event": "FullyBooted", "Status": "Fully Booted"},
                ]
            case "Originate":
                outcome = "Failure" if action["Data"].startswith("nobody@") else "Success"
                return [
                    {"Response": "Success", **same, "Message": "Originate successfully queued"},
                    {"Event": "OriginateResponse", **same, "Response": outcome, "Reason": "4"},
                ]
        return [{"Response": "Success", **same, "Ping": "Pong"}]

    @staticmethod
    async def _send(writer: asyncio.StreamWriter, message: Fields) -> None:
        data = "".join(f"{key}: {value}\r\n" for key, value in message.items()).encode() + b"\r\n"
        # In two pieces, cut where it hurts: a network cuts where it likes.
        for piece in (data[:-3], data[-3:]):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)


@asynccontextmanager
async def running(ami: Ami) -> AsyncIterator[Ami]:
    task = asyncio.create_task(ami.run())
    try:
        yield ami
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def manager() -> AsyncIterator[Manager]:
    manager = Manager()
    await manager.start()
    yield manager
    await manager.stop()


def ami_of(manager: Manager, *, timeout: float = 3.0) -> Ami:
    return Ami("127.0.0.1", manager.port, "pbx", "swordfish", timeout=timeout)


async def within(patience: float, awaitable: Awaitable[object]) -> None:
    async with asyncio.timeout(patience):
        await awaitable


async def test_a_lamp_is_lit_and_put_out(manager: Manager) -> None:
    async with running(ami_of(manager)) as ami:
        await ami.lamp("acme-101", 3, 1)
        await manager.until(lambda: manager.lamps == ["acme-101@default,0,3,1"])
        await ami.lamp("acme-101", 0, 4)
        await manager.until(lambda: manager.lamps[1:] == ["acme-101@default,0,0,4"])
    originate = manager.actions[-1]
    assert (originate["Channel"], originate["Application"]) == ("Local/s@pbx-lamp", "MinivmMWI")
    assert originate["Async"] == "true"


async def test_while_asterisk_is_away_the_last_numbers_wait_for_it(manager: Manager) -> None:
    ami = ami_of(manager)
    await manager.stop()
    async with running(ami):
        for new in range(5):
            await ami.lamp("acme-101", new, 0)
            await ami.lamp("acme-102", 0, new)
        await manager.start()
        await manager.until(lambda: len(manager.lamps) == 2)
        await ami.action("Ping")
    assert manager.lamps == ["acme-101@default,0,4,0", "acme-102@default,0,0,4"]


async def test_after_a_restart_of_asterisk_the_lit_lamps_are_published_again(manager: Manager) -> None:
    async with running(ami_of(manager)) as ami:
        await ami.lamp("acme-101", 2, 0)
        await ami.lamp("acme-102", 1, 0)
        await ami.lamp("acme-102", 0, 0)
        await manager.until(lambda: "acme-102@default,0,0,0" in manager.lamps)
        await ami.action("Ping")
        manager.actions.clear()
        await manager.stop()
        await manager.start()
        await manager.until(lambda: manager.lamps == ["acme-101@default,0,2,0"])
        await ami.lamp("acme-103", 1, 0)
        await manager.until(lambda: len(manager.lamps) == 2)
    assert manager.lamps == ["acme-101@default,0,2,0", "acme-103@default,0,1,0"], "102 was out before"


async def test_asterisk_announcing_its_end_is_a_lost_connection(manager: Manager) -> None:
    async with running(ami_of(manager)) as ami:
        await within(10, ami.connected.wait())
        logins = len(manager.actions)
        await manager.say(Event="Shutdown", Shutdown="Cleanly", Restart="False")
        await manager.until(lambda: "Login" in [action["Action"] for action in manager.actions[logins:]])


async def test_an_action_that_asterisk_refuses_says_why(manager: Manager) -> None:
    manager.refused.add("Reload")
    async with running(ami_of(manager)) as ami:
        await within(10, ami.connected.wait())
        with pytest.raises(Refused, match="Reload: Permission denied"):
            await ami.action("Reload", Module="res_pjsip.so")


async def test_an_action_gives_its_response_and_the_events_that_belong_to_it(manager: Manager) -> None:
    async with running(ami_of(manager)) as ami:
        await within(10, ami.connected.wait())
        response, event = await ami.action("Originate", Channel="Local/s@x", Data="somebody@x", Async="true")
        assert (response["Message"], event["Event"]) == ("Originate successfully queued", "OriginateResponse")
        assert [dict(message)["Ping"] for message in await ami.action("Ping")] == ["Pong"]


async def test_an_action_without_an_answer_ends_at_the_deadline_and_harms_no_other(manager: Manager) -> None:
    manager.silent.add("Reload")
    async with running(ami_of(manager, timeout=0.3)) as ami:
        await within(10, ami.connected.wait())
        with pytest.raises(AmiError, match="Reload: no answer from Asterisk within 0.3 s"):
            await ami.action("Reload")
        assert await ami.action("Ping")


async def test_an_action_fails_at_once_when_the_connection_is_lost_or_was_never_there(manager: Manager) -> None:
    manager.silent.add("Reload")
    ami = ami_of(manager, timeout=60)
    with pytest.raises(AmiError, match="Ping: Asterisk's manager interface is not connected"):
        await ami.action("Ping")
    async with running(ami):
        await within(10, ami.connected.wait())
        waiting = asyncio.create_task(ami.action("Reload"))
        await manager.until(lambda: manager.actions[-1]["Action"] == "Reload")
        await manager.stop()
        with pytest.raises(AmiError, match="Reload: the connection to Asterisk's manager interface is lost"):
            await within(10, waiting)


async def test_only_the_events_that_are_read_are_asked_for(manager: Manager) -> None:
    async with running(ami_of(manager)) as ami:
        await within(10, ami.connected.wait())
    asked = {action["MatchCriteria"] for action in manager.actions if action["Action"] == "Filter"}
    assert asked == {f"action(include),name({name})" for name in ("FullyBooted", "OriginateResponse", "Shutdown")}


async def test_no_field_smuggles_in_another(manager: Manager) -> None:
    async with running(ami_of(manager)) as ami:
        await within(10, ami.connected.wait())
        with pytest.raises(AmiError, match="line break"):
            await ami.action("Originate", Channel="Local/s@x\r\nApplication: System")
        with pytest.raises(AmiError, match="no mailbox name"):
            await ami.lamp("acme-101,0,9", 1, 0)


async def test_a_lamp_that_asterisk_cannot_light_is_logged_and_stops_no_other(
    manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(ami_of(manager)) as ami:
        await ami.lamp("nobody", 1, 0)
        await ami.lamp("acme-101", 1, 0)
        await manager.until(lambda: manager.lamps == ["nobody@default,0,1,0", "acme-101@default,0,1,0"])
    assert "the message lamp of nobody cannot be set: Originate: Asterisk could not do it" in caplog.messages


async def test_a_wrong_password_is_told_once_and_never_shown(
    manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    manager.secret = "another"
    async with running(ami_of(manager)):
        await manager.until(lambda: len(manager.actions) == 3)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == ["Login: Authentication failed"]
    assert "swordfish" not in caplog.text


async def test_a_port_where_nobody_answers_is_named(caplog: pytest.LogCaptureFixture, manager: Manager) -> None:
    await manager.stop()
    async with running(ami_of(manager)):
        while not caplog.messages:
            await asyncio.sleep(0.01)
    assert caplog.messages[0].startswith(f"no manager interface of Asterisk at 127.0.0.1:{manager.port}: ")
