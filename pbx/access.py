"""How an Asterisk is reached, and whether it answers there."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
from dataclasses import dataclass

import aiohttp

_ANSWER_S = 3.0
_SIP_ANSWER_S = 0.5


@dataclass(frozen=True, slots=True)
class Access:
    """How the engine reaches an Asterisk. `url` is the root of its HTTP server, without /ari."""

    url: str
    user: str
    password: str
    ami_host: str
    ami_port: int
    ami_user: str
    ami_password: str

    def __repr__(self) -> str:
        return f"Access({self.url})"

    def session(self) -> aiohttp.ClientSession:
        """For HTTP requests to paths such as "ari/asterisk/ping", without a time limit.

        Limits are the callers': aiohttp's own swallow a cancellation that comes at the same moment.
        """
        token = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return aiohttp.ClientSession(
            base_url=self.url.rstrip("/") + "/", headers={"Authorization": f"Basic {token}"},
            timeout=aiohttp.ClientTimeout(total=None),
        )

    async def ari_answers(self) -> bool:
        try:
            async with (
                asyncio.timeout(_ANSWER_S), self.session() as session, session.get("ari/asterisk/ping") as response,
            ):
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def ami_answers(self) -> bool:
        return (await _first_line(self.ami_host, self.ami_port)).startswith(b"Asterisk Call Manager")


async def listens(host: str, port: int) -> bool:
    """Whether a TCP connection is taken."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_ANSWER_S):
            _, writer = await asyncio.open_connection(host, port)
        writer.close()
        return True
    return False


async def sip_answers(host: str, port: int) -> bool:
    """Whether any answer comes to an OPTIONS request over UDP; "who are you?" is one."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Answer(answer), remote_addr=(host, port))
    try:
        ours = transport.get_extra_info("sockname")
        place = f"[{host}]" if ":" in host else host
        call = secrets.token_hex(8)
        transport.sendto((
            f"OPTIONS sip:{place}:{port} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {place}:{ours[1]};branch=z9hG4bK{call};rport\r\n"
            f"From: <sip:pbx@{place}>;tag={call}\r\nTo: <sip:{place}:{port}>\r\n"
            f"Call-ID: {call}\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 1\r\nContent-Length: 0\r\n\r\n"
        ).encode())
        async with asyncio.timeout(_SIP_ANSWER_S):
            return (await answer).startswith(b"SIP/2.0 ")
    except (OSError, TimeoutError):
        return False
    finally:
        transport.close()


class _Answer(asyncio.DatagramProtocol):
    """The first datagram that comes back, or the error that does."""

    def __init__(self, answer: asyncio.Future[bytes]) -> None:
        self._answer = answer

    def datagram_received(self, data: bytes, address: object) -> None:
        if not self._answer.done():
            self._answer.set_result(data)

    def error_received(self, error: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(error)


async def _first_line(host: str, port: int) -> bytes:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                return await reader.readline()
            finally:
                writer.close()
    return b""
