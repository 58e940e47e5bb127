"""The real wire: ARI over HTTP and one WebSocket."""

from __future__ import annotations

import asyncio
import base64
import logging
import socket
import time
from collections import deque
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote
from urllib.parse import urlencode

import aiohttp
import orjson
from yarl import URL

from pbx import metrics
from pbx.ari import AriError
from pbx.ari import Unreachable
from pbx.ari import refusal
from pbx.ari_api import OBJECTS
from pbx.ari_api import Event

log = logging.getLogger(__name__)

_CONNECT = 5.0  # seconds for the connection of the event stream
_OPEN = 60.0  # seconds for the stream to open on it
_QUIET = 2.0  # seconds without an event before one is asked for
_ECHO = 3.0  # seconds for that one to come
_HEARTBEAT = 5.0  # seconds; Asterisk itself never pings
_IDLE = 10.0  # seconds; below the 15 after which an Asterisk of default settings closes a silent connection
_RECEIVE_BUFFER = 4 << 20  # bytes in the kernel, for the moments in which nobody reads
_BATCH = 100  # events handled before the reader gets its turn
_JSON = {"Content-Type": "application/json"}
_OPENING, _ASKING = "events.event_websocket", "events.user_event"


class HttpWire:
    """ARI with commands through a pool of kept connections and events through one WebSocket.

    Not all through the WebSocket: Asterisk works on its requests one after another, and some wait for a prompt to end.
    `url` is the root of Asterisk's HTTP server, without /ari. To be made on the loop it is to work on, and closed.
    """

    def __init__(self, url: str, user: str, password: str, *, connections: int = 32) -> None:
        if URL(url).user or URL(url).password:
            raise ValueError("user and password do not belong into the URL of ARI: give them on their own")
        self._base = url.rstrip("/") + "/ari"
        # A header, not `?api_key=`: addresses end up in logs.
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        headers = {"Authorization": f"Basic {token}"}
        self._commands = _session(headers, aiohttp.TCPConnector(limit=connections, keepalive_timeout=_IDLE))
        self._events = _session(headers, aiohttp.TCPConnector(socket_factory=_roomy_socket), sock_connect=_CONNECT)
        self._stream: _EventStream | None = None

    async def connect(self, app: str, deliver: Callable[[Event], None]) -> None:
        if self._stream:
            await self._stream.close()
        url = f"{self._base}/events?{urlencode({'app': app, 'subscribeAll': 'false'})}"
        try:
            # An Asterisk that stands still opens it when it goes on. It would do so also for attempts given up
            # before, and each would take the application from the one that is in use.
            async with asyncio.timeout(_OPEN):
                websocket = await self._events.ws_connect(
                    url, heartbeat=_HEARTBEAT, timeout=aiohttp.ClientWSTimeout(ws_close=1.0), max_msg_size=0,
                    decode_text=False,
                )
        except aiohttp.WSServerHandshakeError as error:
            raise _refusal(_OPENING, error.status, b"") from None
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise _no_answer(_OPENING, error, _OPEN) from None
        metrics.ari_connections.inc()
        self._stream = _EventStream(websocket, deliver, lambda: self._ask_for_event(app))

    async def lost(self) -> str:
        return await self._stream.lost() if self._stream else "never connected"

    async def request(
        self, operation: str, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None,
        timeout: float,
    ) -> Any:
        url = self._base + path + ("?" + urlencode(query, quote_via=quote) if query else "")
        data, headers = (None, None) if body is None else (orjson.dumps(body), _JSON)
        if self._commands.closed:
            raise Unreachable(operation, 0, "the connection to Asterisk has been closed")
        began = time.perf_counter()
        status = 0
        try:
            async with (
                asyncio.timeout(timeout),
                self._commands.request(
                    method, URL(url, encoded=True), data=data, headers=headers, allow_redirects=False
                ) as response,
            ):
                content = await response.read()
                status = response.status
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise _no_answer(operation, error, timeout) from None
        finally:
            metrics.ari_requests.labels(operation, status).inc()
            metrics.ari_seconds.labels(operation).observe(time.perf_counter() - began)
        if status >= 300:
            raise _refusal(operation, status, content)
        if response.content_type != "application/json":
            return content or None  # a recording
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError:
            raise AriError(operation, status, "the answer is not JSON") from None

    async def _ask_for_event(self, app: str) -> None:
        await self.request(_ASKING, "POST", "/events/user/echo", {"application": app}, None, _ECHO)

    async def close(self) -> None:
        if self._stream:
            await self._stream.close()
        await self._events.close()
        await self._commands.close()


def _session(
    headers: Mapping[str, str], connector: aiohttp.TCPConnector, *, sock_connect: float | None = None
) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        headers=headers,
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=sock_connect),  # each request has a deadline of its own
    )


class _EventStream:
    """One WebSocket. A task only reads, for Asterisk refuses SIP when nobody takes its events; another handles them."""

    def __init__(
        self, websocket: aiohttp.ClientWebSocketResponse[Any], deliver: Callable[[Event], None],
        ask_for_event: Callable[[], Awaitable[None]],
    ) -> None:
        self._websocket = websocket
        self._deliver = deliver
        self._ask_for_event = ask_for_event
        self._unread: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._reader = asyncio.create_task(self._read())
        self._handler = asyncio.create_task(self._handle())
        self._heard = asyncio.Event()
        self._watcher = asyncio.create_task(self._watch())

    async def lost(self) -> str:
        await asyncio.wait((self._handler, self._watcher), return_when=asyncio.FIRST_COMPLETED)
        if self._watcher.done() and not self._watcher.cancelled():
            return self._watcher.result()
        if self._handler.cancelled() or self._reader.cancelled():
            return "closed by us"
        self._handler.result()  # a mistake of `deliver` is not kept quiet
        return self._reader.result()

    async def close(self) -> None:
        tasks = self._reader, self._handler, self._watcher
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await self._websocket.close()

    async def _read(self) -> str:
        try:
            while True:
                message = await self._websocket.receive()
                if message.type is aiohttp.WSMsgType.TEXT:
                    self._unread.append(message.data)
                    self._arrived.set()
                    self._heard.set()
                elif message.type is aiohttp.WSMsgType.ERROR:
                    return f"{message.data}"
                elif message.type is not aiohttp.WSMsgType.BINARY:
                    return f"closed with {self._websocket.close_code}"
        finally:
            self._arrived.set()

    async def _watch(self) -> str:
        """Finds out that a stream which stands has fallen silent.

        An Asterisk that stood still for a while finds our former stream closed when it goes on, and may take the
        application from the present one as it clears that away. It says nothing, and no call would end any more.
        """
        while True:
            self._heard.clear()
            await asyncio.sleep(_QUIET)
            if self._heard.is_set():
                continue
            try:
                await self._ask_for_event()
                async with asyncio.timeout(_ECHO):
                    await self._heard.wait()
            except Unreachable:
                pass  # it has no time for us, which says nothing about the stream
            except (AriError, TimeoutError) as error:
                return str(error) or "open, but silent"

    async def _handle(self) -> None:
        while self._unread or not self._reader.done():
            for _ in range(min(len(self._unread), _BATCH)):
                self._hand_over(self._unread.popleft())
            if self._unread:
                await asyncio.sleep(0)
            else:
                self._arrived.clear()
                await self._arrived.wait()

    def _hand_over(self, text: bytes) -> None:
        try:
            event = orjson.loads(text)
            known = event["type"] in OBJECTS
        except (orjson.JSONDecodeError, KeyError, TypeError):
            log.warning("not an event: %.300r", text)
            metrics.ari_events.labels("invalid").inc()
            return
        metrics.ari_events.labels(event["type"] if known else "unknown").inc()
        _measure_lag(event.get("timestamp"))
        self._deliver(event)


def _measure_lag(timestamp: Any) -> None:
    try:
        sent = datetime.fromisoformat(timestamp).timestamp()
    except (TypeError, ValueError):
        return
    metrics.ari_event_lag_seconds.observe(max(0.0, time.time() - sent))


def _roomy_socket(address: tuple[Any, ...]) -> socket.socket:
    # Before the connection is made: later, the window of the connection would not grow with the buffer.
    made = socket.socket(*address[:3])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    made.setblocking(False)
    return made


def _refusal(operation: str, status: int, content: bytes) -> AriError:
    try:
        said = orjson.loads(content)
        message = said.get("message") or said["error"]
    except (orjson.JSONDecodeError, AttributeError, KeyError):
        message = "user or password refused" if status == 401 else "refused"
    return refusal(operation, status, message)


def _no_answer(operation: str, error: BaseException, timeout: float) -> Unreachable:
    # aiohttp's own timeouts are ClientErrors as well; ours is the plain one.
    message = f"no answer within {timeout:g} s" if type(error) is TimeoutError else str(error) or type(error).__name__
    return Unreachable(operation, 0, message)
