"""An ARI server of the tests' own, over real HTTP and a real WebSocket: it says what a test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from collections.abc import Awaitable
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from dataclasses import field
from typing import Any

from aiohttp import web
from prometheus_client import REGISTRY

from pbx.ari import Ari
from pbx.ari import Event
from pbx.ari_http import HttpWire

USER, PASSWORD = "pbx", "Zx9-secret"
APP = "pbx-w1"
Reply = tuple[int, Any]


@dataclass(frozen=True)
class Asked:
    """One request as it reached the server: the path as sent, below /ari."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    body: Any = None


class AriServer:
    """What is alive in it is what `channels`, `bridges`, `playbacks` and so on hold; all is answered accordingly.

    `replies` says otherwise for single requests ("POST /channels/x/answer"): a status with its JSON, or a coroutine
    function that gives them when it likes.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.replies: dict[str, Reply | Callable[[], Awaitable[Reply]]] = {}
        self.channels: list[dict[str, Any]] = []
        self.in_application: set[str] | None = None  # ids; None: all the channels
        self.bridges: list[dict[str, Any]] = []
        self.playbacks: set[str] = set()
        self.live_recordings: set[str] = set()
        self.stored_recordings: set[str] = set()
        self.streams: list[web.WebSocketResponse] = []
        self.connections = 0
        self.hangs_up_after_each_answer = False
        self.started = "2026-03-02T08:00:00.000+0000"
        self.silent = False  # it sends no events, though its streams stand
        self.port = 0
        self._connected = asyncio.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def send(self, event: dict[str, Any] | str) -> None:
        """Sends an event, or any text, on the newest stream."""
        stream = self.streams[-1]
        if isinstance(event, str):
            await stream.send_str(event)
        else:
            await stream.send_json({"application": APP, "timestamp": "2026-03-02T09:00:00.000+0000"} | event)

    async def cut(self) -> None:
        """Ends the newest stream as a dying connection does, without a word."""
        transport = self.streams[-1]._req.transport  # type: ignore[union-attr]
        assert transport is not None
        transport.abort()

    async def streams_opened(self, count: int) -> None:
        async with self._connected:
            await self._connected.wait_for(lambda: len(self.streams) >= count)

    def requests(self, method: str, path: str) -> list[Asked]:
        return [asked for asked in self.asked if (asked.method, asked.path) == (method, path)]

    # -- handling -----------------------------------------------------------------------------

    async def handle(self, request: web.Request) -> web.StreamResponse:
        expected = "Basic cGJ4Olp4OS1zZWNyZXQ="  # USER:PASSWORD
        if request.headers.get("Authorization") != expected:
            return web.json_response({"message": "Authentication required"}, status=401)
        path = request.raw_path.partition("?")[0].removeprefix("/ari")
        if path == "/events":
            return await self._stream(request)
        body = await request.json() if request.can_read_body else None
        self.asked.append(Asked(request.method, path, dict(request.query), body))
        status, content = await self._reply(request.method, path)
        if isinstance(content, bytes):
            response = web.Response(status=status, body=content, content_type="audio/wav")
        elif content is None:
            response = web.Response(status=status)
        else:
            response = web.json_response(content, status=status)
        if self.hangs_up_after_each_answer:
            assert request.transport is not None
            asyncio.get_running_loop().call_later(0.01, request.transport.close)
        return response

    async def _reply(self, method: str, path: str) -> Reply:
        special = self.replies.get(f"{method} {path}")
        if special is not None:
            return await special() if callable(special) else special
        if method == "GET":
            return self._state(path)
        if path.startswith("/events/user/") and not self.silent:
            await self.send({"type": "ChannelUserevent", "eventname": path.rpartition("/")[2], "userevent": {}})
        if path.endswith("/eventFilter"):
            return 200, {}
        return 204, None

    def _state(self, path: str) -> Reply:
        _, resource, *rest = path.split("/")
        if resource == "asterisk":
            return 200, {"status": {"startup_time": self.started}}
        if resource == "applications":
            ids = self.in_application
            return 200, {"name": APP, "channel_ids": [c["id"] for c in self.channels] if ids is None else list(ids)}
        if not rest:
            return 200, {"channels": self.channels, "bridges": self.bridges}[resource]
        alive = {"playbacks": self.playbacks, "live": self.live_recordings, "stored": self.stored_recordings}
        kind, name = (resource, rest[-1]) if resource == "playbacks" else (rest[0], rest[-1])
        if name in alive.get(kind, ()):
            return 200, {"name": name, "format": "wav"}
        return 404, {"message": "not found"}

    async def _stream(self, request: web.Request) -> web.WebSocketResponse:
        stream = web.WebSocketResponse()
        await stream.prepare(request)
        async with self._connected:
            self.streams.append(stream)
            self._connected.notify_all()
        async for _ in stream:
            pass  # the engine says nothing on it
        return stream


@asynccontextmanager
async def ari_server() -> AsyncIterator[AriServer]:
    server = AriServer()
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()


def channel(channel_id: str, state: str = "Up") -> dict[str, Any]:
    """A channel as Asterisk describes it."""
    nobody = {"name": "", "number": ""}
    dialplan = {"context": "", "exten": "", "priority": 1, "app_name": "Stasis", "app_data": APP}
    return {
        "id": channel_id, "name": f"PJSIP/{channel_id}", "protocol_id": "", "state": state, "caller": nobody,
        "connected": nobody, "accountcode": "", "dialplan": dialplan, "language": "en",
        "creationtime": "2026-03-02T09:00:00.000+0000",
    }


def bridge(bridge_id: str, creator: str = "Stasis") -> dict[str, Any]:
    return {"id": bridge_id, "creator": creator, "channels": []}


@asynccontextmanager
async def connected(server: AriServer, **options: Any) -> AsyncIterator[Ari]:
    ari = Ari(HttpWire(server.url, USER, PASSWORD), APP, random=lambda: 0.0, **options)
    running = asyncio.create_task(ari.run())
    await soon(ari.connected.wait())
    yield ari
    running.cancel()
    await asyncio.wait((running,))


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def soon(wait: Any) -> Any:
    """What must happen, however slow the machine."""
    return await asyncio.wait_for(wait, 10)


class Ear:
    """Listens, and lets a test wait for what it heard."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[Any] = asyncio.Queue()

    def __call__(self, event: Event) -> None:
        self.heard.put_nowait(event)

    async def next(self) -> Any:
        return await soon(self.heard.get())

    async def types(self, count: int) -> list[str]:
        return [(await self.next())["type"] for _ in range(count)]
