"""A SIP endpoint that does exactly what it is told and nothing else: refuses with 404, answers and leaves at once.

People's telephones are in phone.py. This one lives to show the simulator's parties (`pbx.simulator.Behaviour`) to a
real Asterisk, so it speaks no more SIP than that takes: UDP on the loopback, one codec, no registration.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import struct
from collections.abc import Callable
from typing import Self

from pbx.simulator import Behaviour
from pbx.simulator.people import BYE

_FRAME_S = 0.02
_KEYS = "0123456789*#"
_ALAW, _EVENT = 8, 101  # RTP payload types
_MURMUR = bytes(0xD5 ^ (n * 7 & 0x1F) for n in range(160))  # a frame that is no silence


class Endpoint(asyncio.DatagramProtocol):
    """Sits at `host` and talks to the `server`; a context manager. `behaviour` is what it does when it is called."""

    def __init__(self, host: str, server: tuple[str, int], behaviour: Behaviour = ()) -> None:
        self.host = host
        self.server = server
        self.port = 0
        self.behaviour = behaviour
        self.calls: list[Dialog] = []
        self._transport: asyncio.DatagramTransport | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(self.host, self.port))
        self.port = self._transport.get_extra_info("sockname")[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        for call in self.calls:
            call.forget()
        if self._transport:
            self._transport.abort()

    async def dial(self, number: str) -> Dialog:
        """Calls a number of the server."""
        dialog = await self._dialog(f"{random.getrandbits(64):x}@{self.host}")
        dialog.invite(number)
        return dialog

    def send(self, start: str, headers: list[str], body: str = "") -> None:
        if self._transport:
            kind = ["Content-Type: application/sdp"] if body else []
            lines = [start, *headers, *kind, f"Content-Length: {len(body)}", "", body]
            self._transport.sendto("\r\n".join(lines).encode(), self.server)

    def datagram_received(self, data: bytes, address: object) -> None:
        message = Message(data.decode())
        dialog = next((call for call in self.calls if call.id == message["Call-ID"]), None)
        if dialog is not None:
            dialog.receive(message)
        elif message.method == "INVITE":
            asyncio.get_running_loop().create_task(self._called(message), name="a call comes in")
        elif message.method in ("OPTIONS", "NOTIFY"):
            self.send("SIP/2.0 200 OK", message.reply_headers(""))

    async def _called(self, invite: Message) -> None:
        dialog = await self._dialog(invite["Call-ID"])
        dialog.receive(invite)
        dialog.behave(self.behaviour)

    async def _dialog(self, call_id: str) -> Dialog:
        dialog = Dialog(self, call_id)
        self.calls.append(dialog)
        await dialog.media.open(self.host)
        return dialog


class Message:
    """A SIP request or response, as far as it matters here."""

    def __init__(self, text: str) -> None:
        head, _, self.body = text.partition("\r\n\r\n")
        self.start, *self._lines = head.split("\r\n")
        self.status = int(self.start.split()[1]) if self.start.startswith("SIP/2.0") else 0
        self.method = self["CSeq"].split()[1] if self.status else self.start.split()[0]

    def __getitem__(self, name: str) -> str:
        return next(iter(self.all(name)), "")

    def all(self, name: str) -> list[str]:
        return [line.partition(":")[2].strip() for line in self._lines if line.lower().startswith(name.lower() + ":")]

    def reply_headers(self, tag: str) -> list[str]:
        to = self["To"] if ";tag=" in self["To"] or not tag else f"{self['To']};tag={tag}"
        return [
            *(f"Via: {via}" for via in self.all("Via")), f"From: {self['From']}", f"To: {to}",
            f"Call-ID: {self['Call-ID']}", f"CSeq: {self['CSeq']}",
        ]


class Dialog:
    """One call of an endpoint. `status` is the last SIP status that was given or received for it."""

    def __init__(self, endpoint: Endpoint, call_id: str) -> None:
        self.id = call_id
        self.status = 0
        self.up = False
        self._cancelled = False
        self.media = Media()
        self._endpoint = endpoint
        self._tag = f"{random.getrandbits(32):x}"
        self._numbers = itertools.count(1)
        self._invite: Message | None = None
        self._ours = self._theirs = self._target = self._branch = ""
        self._timers: list[asyncio.TimerHandle] = []
        self._ended = asyncio.Event()
        self._answered = asyncio.Event()

    # -- what it does -----------------------------------------------------------------------------

    def invite(self, number: str) -> None:
        host, port = self._endpoint.server
        self._target = f"sip:{number}@{host}:{port}"
        self._ours, self._theirs = f"<sip:caller@{self._endpoint.host}>;tag={self._tag}", f"<{self._target}>"
        self._branch = self._new_branch()
        self._request("INVITE", self._branch, next(self._numbers), self.media.offer())

    def press(self, keys: str, *, after: float = 0.0, gap: float = 0.2) -> None:
        """Types keys (RFC 4733), the first of them `after` seconds from now."""
        for n, key in enumerate(keys):
            self._later(after + n * gap, self.media.press, key)

    def hang_up(self, *, after: float = 0.0) -> None:
        self._later(after, self._hang_up)

    def behave(self, behaviour: Behaviour) -> None:
        at = 0.0
        for delay, status in behaviour:
            at += delay
            self._later(at, self._react, status)

    async def over(self, timeout: float = 30.0) -> None:
        await asyncio.wait_for(self._ended.wait(), timeout)

    async def answered(self, timeout: float = 30.0) -> None:
        await asyncio.wait_for(self._answered.wait(), timeout)

    def forget(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self.media.close()

    # -- what it hears ----------------------------------------------------------------------------

    def receive(self, message: Message) -> None:
        if message.status:
            if message.method == "INVITE" and message.status >= 180:
                self._invite_answered(message)
        elif message.method == "INVITE":
            self._invited(message)
        elif message.method == "CANCEL":
            self._reply(message, 200)
            if self._invite is not None and not self.up:
                self._reply(self._invite, 487)
                self._end(487)
        elif message.method == "BYE":
            self._reply(message, 200)
            self._end(0)
        elif message.method != "ACK":
            self._reply(message, 200)

    def _invite_answered(self, response: Message) -> None:
        self.status = response.status
        if response.status < 200:
            return
        self._theirs = response["To"]
        accepted = response.status < 300
        if accepted:
            self._target = _address(response["Contact"])
        number = int(response["CSeq"].split()[0])
        self._request("ACK", self._new_branch() if accepted else self._branch, number)
        if not accepted:
            self._end(response.status)
        elif not self.up:
            self._connect(response.body)
            if self._cancelled:  # the answer came all the same
                self._hang_up()

    def _invited(self, invite: Message) -> None:
        if self._invite is not None:  # once more, or with another offer
            if ";tag=" in invite["To"]:
                self._reply(invite, 200, self.media.offer())
            return
        self._invite = invite
        self._ours, self._theirs = f"{invite['To']};tag={self._tag}", invite["From"]
        self._target = _address(invite["Contact"])

    def _react(self, status: int) -> None:
        assert self._invite is not None
        if self._ended.is_set():
            return
        if status == BYE:
            self._hang_up()
        else:
            self.status = status
            self._reply(self._invite, status, self.media.offer() if status in (183, 200) else "")
            if status == 200:
                self._connect(self._invite.body)
            elif status >= 300:
                self._end(status)

    def _connect(self, body: str) -> None:
        self.up = True
        self._answered.set()
        self.media.talk(body)

    def _hang_up(self) -> None:
        if self._ended.is_set():
            return
        if self.up:
            self._request("BYE", self._new_branch(), next(self._numbers))
            self._end(0)
        else:
            self._cancelled = True
            self._request("CANCEL", self._branch, 1)

    def _end(self, status: int) -> None:
        self.status = status
        self.up = False
        self.forget()
        self._ended.set()

    def _later(self, delay: float, act: Callable[..., None], *args: object) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(delay, act, *args))

    def _reply(self, request: Message, status: int, body: str = "") -> None:
        contact = f"Contact: <sip:here@{self._endpoint.host}:{self._endpoint.port}>"
        self._endpoint.send(f"SIP/2.0 {status} So", [*request.reply_headers(self._tag), contact], body)

    def _request(self, method: str, branch: str, number: int, body: str = "") -> None:
        host, port = self._endpoint.host, self._endpoint.port
        self._endpoint.send(f"{method} {self._target} SIP/2.0", [
            f"Via: SIP/2.0/UDP {host}:{port};branch={branch}", f"From: {self._ours}", f"To: {self._theirs}",
            f"Call-ID: {self.id}", f"CSeq: {number} {method}", "Max-Forwards: 70", f"Contact: <sip:here@{host}:{port}>",
        ], body)

    def _new_branch(self) -> str:
        return f"z9hG4bK{random.getrandbits(64):x}"


class Media(asyncio.DatagramProtocol):
    """Sends a murmur, and keys."""

    def __init__(self) -> None:
        self._transport: asyncio.DatagramTransport | None = None
        self._host = ""
        self._talking: asyncio.Task[None] | None = None
        self._to: tuple[str, int] | None = None
        self._sequence = itertools.count()
        self._time = itertools.count(step=160)

    async def open(self, host: str) -> None:
        self._host = host
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(host, 0))

    def close(self) -> None:
        if self._talking:
            self._talking.cancel()
        if self._transport:
            self._transport.abort()

    def offer(self) -> str:
        assert self._transport is not None
        port = self._transport.get_extra_info("sockname")[1]
        return "\r\n".join([
            "v=0", f"o=- 1 1 IN IP4 {self._host}", "s=-", f"c=IN IP4 {self._host}", "t=0 0",
            f"m=audio {port} RTP/AVP {_ALAW} {_EVENT}", f"a=rtpmap:{_ALAW} PCMA/8000",
            f"a=rtpmap:{_EVENT} telephone-event/8000", f"a=fmtp:{_EVENT} 0-15", "",
        ])

    def talk(self, description: str) -> None:
        found = re.search(r"c=IN IP4 (\S+)[\s\S]*m=audio (\d+)", description)
        assert found is not None, description
        self._to = found[1], int(found[2])
        self._talking = asyncio.get_running_loop().create_task(self._murmur(), name="murmur")

    def press(self, key: str) -> None:
        if self._to is None:
            return
        began = next(self._time)
        for n, last in enumerate((False, False, False, True, True, True)):
            event = struct.pack("!BBH", _KEYS.index(key), 10 | (0x80 if last else 0), 160 * min(n + 1, 4))
            self._packet(_EVENT, began, event, mark=n == 0)
        for _ in range(4):
            next(self._time)

    async def _murmur(self) -> None:
        while True:
            self._packet(_ALAW, next(self._time), _MURMUR)
            await asyncio.sleep(_FRAME_S)

    def _packet(self, kind: int, time: int, payload: bytes, *, mark: bool = False) -> None:
        if self._transport is not None and self._to is not None:
            head = struct.pack("!BBHII", 0x80, kind | (0x80 if mark else 0), next(self._sequence) & 0xFFFF, time, 7)
            self._transport.sendto(head + payload, self._to)


def _address(header: str) -> str:
    found = re.search(r"<([^>]*)>", header)
    return found[1] if found else header
