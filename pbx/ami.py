"""Asterisk's manager interface, for what ARI cannot do: lighting the message lamps of handsets."""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Mapping
from typing import Any

from panoramisk.actions import Action
from panoramisk.ami_protocol import AMIProtocol
from panoramisk.message import Message

log = logging.getLogger(__name__)
logging.getLogger("panoramisk").setLevel(logging.WARNING)  # it would tell every message, some with passwords

# The voicemail context of every mailbox. A line's endpoint carries `mailboxes = acme-101@default` for handsets that do
# not subscribe to their lamp, its AOR the same for those that do, and the endpoint `mwi_subscribe_replaces_unsolicited
# = yes`: without that, subscriptions are refused with 500.
MAILBOX_CONTEXT = "default"
# A dialplan extension that answers and waits, because an application needs an answered channel to run on.
LAMP_CHANNEL = "Local/s@pbx-lamp"

# All that is read here. Without a filter each call sends some twenty events, a millisecond of our time for nothing.
_EVENTS = ("FullyBooted", "OriginateResponse", "Shutdown")

_PING_S = 10.0
_FIRST_RETRY_S = 0.2
_LAST_RETRY_S = 10.0
_LOST = "the connection to Asterisk's manager interface is lost"
_MAILBOX = re.compile(r"[\w.+-]+")


class AmiError(Exception):
    """An action was not done: Asterisk is not connected, or did not answer in time."""


class Refused(AmiError):
    """Asterisk answered that it cannot do the action."""


class Ami:
    """A connection that comes back by itself, and the lamps as they should be, whether Asterisk is there or not."""

    def __init__(self, host: str, port: int, username: str, secret: str, *, timeout: float = 3.0) -> None:
        self._address = (host, port)
        self._login = {"Username": username, "Secret": secret}
        self._timeout = timeout
        self._wire: _Wire | None = None
        self._lamps: dict[str, tuple[int, int]] = {}  # those that are lit, and those that are not put out yet
        self._due: dict[str, None] = {}  # the mailboxes to publish, in order
        self._lamp_changed = asyncio.Event()
        self.connected = asyncio.Event()

    async def run(self) -> None:
        """Connects, publishes the lamps, and connects again whenever Asterisk was away; until cancelled."""
        retry = _FIRST_RETRY_S
        trouble = ""
        while True:
            try:
                wire = await self._connect()
                retry = _FIRST_RETRY_S
                await self._serve(wire)
            except AmiError as problem:
                # An Asterisk that stays away is one line in the log, not one every ten seconds.
                log.log(logging.DEBUG if str(problem) == trouble else logging.WARNING, "%s", problem)
                trouble = str(problem)
            await asyncio.sleep(retry * random.uniform(0.5, 1.0))
            retry = min(retry * 2, _LAST_RETRY_S)

    async def action(self, name: str, /, **fields: str) -> list[Mapping[str, Any]]:
        """Sends an action and gives Asterisk's response, then the events that it announced as part of it.

        The names of `fields` are AMI's own ("Channel", "Async"). Raises AmiError, Refused.
        """
        if self._wire is None:
            raise AmiError(f"{name}: Asterisk's manager interface is not connected")
        return await self._ask(self._wire, name, fields)

    async def lamp(self, mailbox: str, new: int, old: int) -> None:
        """Lights the message lamp of `mailbox` ("acme-101") when it has new messages, and puts it out when not.

        Returns at once, also while Asterisk is away: the last numbers are published as soon as it is there.
        """
        if not _MAILBOX.fullmatch(mailbox):
            raise AmiError(f"{mailbox!r} is no mailbox name")
        self._lamps[mailbox] = (new, old)
        self._due[mailbox] = None
        self._lamp_changed.set()

    async def _connect(self) -> _Wire:
        host, port = self._address
        try:
            async with asyncio.timeout(self._timeout):
                _, wire = await asyncio.get_running_loop().create_connection(_Wire, host, port)
        except (OSError, TimeoutError) as problem:
            reason = str(problem) or "no answer"
            raise AmiError(f"no manager interface of Asterisk at {host}:{port}: {reason}") from None
        try:
            await self._enter(wire)
        except BaseException:
            wire.close()
            raise
        return wire

    async def _enter(self, wire: _Wire) -> None:
        await self._ask(wire, "Login", self._login)
        for event in _EVENTS:
            # The criteria say it all; the expression, which could look into the event, is empty.
            criteria = f"action(include),name({event})"
            await self._ask(wire, "Filter", {"Operation": "Add", "MatchCriteria": criteria, "Filter": ""})
        try:
            async with asyncio.timeout(self._timeout):
                await wire.booted.wait()
        except TimeoutError:
            # Its dialplan may still be loading.
            raise AmiError("Asterisk is still starting, or its manager user may not read system events") from None

    async def _serve(self, wire: _Wire) -> None:
        """Uses the connection until it is lost, which is an AmiError."""
        self._wire = wire
        self.connected.set()
        log.info("connected to Asterisk's manager interface, version %s", wire.version)
        # Lamps live in Asterisk's memory alone, and this may be a new Asterisk.
        self._due |= dict.fromkeys(self._lamps)
        self._lamp_changed.set()
        lamps = asyncio.create_task(self._keep_lamps(wire))
        try:
            while True:
                await asyncio.wait([wire.lost, lamps], timeout=_PING_S, return_when=asyncio.FIRST_COMPLETED)
                if lamps.done():
                    lamps.result()  # it only ends with a defect
                if wire.lost.done():
                    raise AmiError(_LOST)
                await self._ask(wire, "Ping", {})
                self._lamp_changed.set()  # once more, for a lamp that Asterisk gave no answer about
        finally:
            self._wire = None
            self.connected.clear()
            wire.close()
            lamps.cancel()
            await asyncio.gather(lamps, return_exceptions=True)

    async def _keep_lamps(self, wire: _Wire) -> None:
        while True:
            await self._lamp_changed.wait()
            self._lamp_changed.clear()
            for mailbox in list(self._due):
                await self._publish(wire, mailbox)

    async def _publish(self, wire: _Wire, mailbox: str) -> None:
        numbers = new, old = self._lamps[mailbox]
        originate = {
            "Channel": LAMP_CHANNEL,
            "Application": "MinivmMWI",
            "Data": f"{mailbox}@{MAILBOX_CONTEXT},0,{new},{old}",
            "Async": "true",  # or else Asterisk reads no other action until this one is done
            "Timeout": str(int(self._timeout * 500)),  # ms: Asterisk gives up before we do
        }
        try:
            await self._ask(wire, "Originate", originate)
        except Refused as problem:
            log.error("the message lamp of %s cannot be set: %s", mailbox, problem)
        except AmiError:
            return  # still due
        if self._lamps[mailbox] == numbers:
            del self._due[mailbox]
            if new == old == 0:
                del self._lamps[mailbox]
        else:
            self._lamp_changed.set()

    async def _ask(self, wire: _Wire, name: str, fields: Mapping[str, str]) -> list[Mapping[str, Any]]:
        if any("\r" in value or "\n" in value for value in fields.values()):
            raise AmiError(f"{name}: a field holds a line break")
        try:
            async with asyncio.timeout(self._timeout):
                messages = await wire.ask(Action({"Action": name, **fields}))
        except TimeoutError:
            raise AmiError(f"{name}: no answer from Asterisk within {self._timeout:g} s") from None
        for message in messages:
            if message.get("Response") in ("Error", "Failure"):
                raise Refused(f"{name}: {message.get('Message', 'Asterisk could not do it')}")
        return messages


class _Wire(AMIProtocol):  # type: ignore[misc]
    """One connection: panoramisk's protocol, without its manager.

    The manager connects again at a fixed pace, also after it was closed, and keeps the actions of a lost connection
    unanswered to send them on the next. Here they fail at once, and a connection once lost stays lost.
    """

    def __init__(self) -> None:
        self.booted = asyncio.Event()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.encoding = "utf8"
        self.factory = self  # the protocol hands its events to dispatch() of its factory

    def connection_lost(self, exc: Exception | Message | None) -> None:
        """Also called by the protocol itself, when Asterisk announces that it shuts down."""
        actions = list(self.responses.values())
        self.responses.clear()
        for action in actions:
            if not action.future.done():
                action.future.set_exception(AmiError(f"{action['Action']}: {_LOST}"))
        if not self.lost.done():
            self.lost.set_result(None)
            self.transport.abort()

    def dispatch(self, event: Message) -> None:
        if event["Event"] == "FullyBooted":
            self.booted.set()

    async def ask(self, action: Action) -> list[Mapping[str, Any]]:
        if self.lost.done():
            raise AmiError(f"{action['Action']}: {_LOST}")
        try:
            answer = await self.send(action, as_list=None)  # None: the response tells whether events follow
        finally:
            self.responses.pop(action.id, None)
        return answer if isinstance(answer, list) else [answer]

    def close(self) -> None:
        self.connection_lost(None)
