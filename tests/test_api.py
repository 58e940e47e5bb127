"""The API as a program meets it: a token, JSON, errors in one form; records from a real store."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from collections.abc import Awaitable
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from aiohttp.test_utils import TestServer

from pbx.api import Registration
from pbx.api import Services
from pbx.api import application
from pbx.api.auth import token
from pbx.clock import SystemClock
from pbx.store import CallRecord
from pbx.store import LegRecord
from pbx.store import MemoryStore
from pbx.store import Moment
from pbx.store import StoreError

Client = TestClient[web.Request, web.Application]
Connect = Callable[[Services], Awaitable[Client]]

MANUAL = Path(__file__).parent.parent / "docs" / "api.md"
NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
TOKEN = "a-token-for-tests"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
ALICE = Registration("acme", "101", "Alice Martin", "192.0.2.10:5060", "acme-101", "var/secrets.ini")
RENE = Registration("boreal", "201", "René Côté", "192.0.2.10:5060", "boreal-201", "var/secrets.ini")


def record_of(n: int, tenant: str = "acme", **fields: Any) -> CallRecord:
    started = NOON + timedelta(minutes=n)
    leg = LegRecord(id=f"a1.w1.1.{n}.l1", number=1, target="101", endpoint="PJSIP/acme-101", outcome="answered")
    record = CallRecord(
        id=f"a1.w1.1.{n}", node="a1", worker="w1", epoch=1, tenant=tenant, direction="inbound",
        caller_number="+33199000199", caller_name="", dialled="+33199000100", plan_version="4f1c",
        started_at=started, answered_at=started + timedelta(seconds=2), ended_at=started + timedelta(seconds=12),
        outcome="answered", cause=16, ended_by="caller", legs=[leg],
        timeline=[Moment(started, 0, "arrived", {"trunk": "trunk-carrier"})],
    )
    return replace(record, **fields)


@pytest.fixture
def services() -> Services:
    return Services(
        store=MemoryStore(clock=SystemClock()), token=TOKEN, checks={}, calls=lambda: [], lines=lambda: [ALICE, RENE]
    )


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Serves an API on a free port of 127.0.0.1 for the length of the test."""
    async with AsyncExitStack() as stack:
        async def client(services: Services) -> Client:
            return await stack.enter_async_context(TestClient(TestServer(application(services))))

        yield client


async def get(client: Client, path: str, status: int = 200) -> Any:
    """What a program that has the token is answered."""
    async with client.get(path, headers=BEARER) as answer:
        assert answer.content_type == "application/json"
        data = await answer.json()
        assert answer.status == status, data
        return data


async def error_of(client: Client, path: str, status: int) -> str:
    error = await get(client, path, status)
    assert set(error) == {"error", "message", "details"}
    return f"{error['error']}: {error['message']}"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_health_and_metrics_need_no_token(connect: Connect, services: Services, path: str) -> None:
    client = await connect(services)
    async with client.get(path) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("path", ["/calls", "/records", "/records/a1", "/lines", "/nothing", "/healthz/../lines"])
@pytest.mark.parametrize(
    "given", ["", TOKEN, f"Basic {TOKEN}", "Bearer", "Bearer wrong", f"Bearer {TOKEN}x", "Bearer é"]
)
async def test_everything_else_needs_the_token(connect: Connect, services: Services, path: str, given: str) -> None:
    client = await connect(services)
    async with client.get(path, headers={"Authorization": given} if given else {}) as answer:
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert await answer.json() == {
            "error": "unauthorized", "message": "send the header: Authorization: Bearer TOKEN", "details": {}
        }


async def test_a_token_of_any_bytes_is_only_wrong(connect: Connect, services: Services) -> None:
    client = await connect(services)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(b"GET /calls HTTP/1.1\r\nHost: pbx\r\nAuthorization: Bearer \xff\xfe\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 401 ")
    writer.close()
    await writer.wait_closed()


def test_the_token_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "secrets" / "api-token"
    made = token(file)
    assert len(made) >= 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    assert token(file) == made
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_an_empty_token_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "api-token"
    file.write_text("\n")
    with pytest.raises(ValueError, match=f"{file} is empty: remove it, and a new token is made"):
        token(file)


async def test_ready_means_that_nothing_is_missing(connect: Connect, services: Services) -> None:
    trouble = {"ari": "", "asterisk": ""}
    checks = {name: lambda name=name: trouble[name] for name in trouble}
    client = await connect(replace(services, checks=checks))
    assert await get(client, "/readyz") == {"ready": True, "missing": {}}
    trouble["ari"] = "the event stream is cut"
    assert await get(client, "/readyz", 503) == {"ready": False, "missing": {"ari": "the event stream is cut"}}


async def test_a_store_that_is_away_is_missing_and_said_so_by_its_resources(
    connect: Connect, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(**_: object) -> list[CallRecord]:
        raise StoreError("the database does not answer")

    monkeypatch.setattr(services.store, "calls", away)
    client = await connect(services)
    assert (await get(client, "/readyz", 503))["missing"] == {"store": "the database does not answer"}
    assert await error_of(client, "/records", 503) == "store-unavailable: the database does not answer"
    assert await get(client, "/healthz") == {"alive": True}


async def test_metrics_are_in_the_text_format_of_prometheus(connect: Connect, services: Services) -> None:
    client = await connect(services)
    async with client.get("/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        assert "# TYPE pbx_calls_now gauge" in (await answer.text()).splitlines()


async def test_records_come_newest_first_page_by_page(connect: Connect, services: Services) -> None:
    for n in range(5):
        services.store.save(record_of(n))
    client = await connect(services)
    seen: list[str] = []
    path = "/records?limit=2"
    while True:
        page = await get(client, path)
        seen.append(" ".join(record["id"] for record in page["records"]))
        if page["next"] is None:
            break
        path = f"/records?limit=2&before={page['next']}"
    assert seen == ["a1.w1.1.4 a1.w1.1.3", "a1.w1.1.2 a1.w1.1.1", "a1.w1.1.0"]


async def test_records_of_one_tenant_leave_the_others_out(connect: Connect, services: Services) -> None:
    services.store.save(record_of(1))
    services.store.save(record_of(2, tenant="boreal"))
    client = await connect(services)
    found = await get(client, "/records?tenant=boreal")
    assert [record["id"] for record in found["records"]] == ["a1.w1.1.2"]
    assert await get(client, "/records?tenant=nobody") == {"records": [], "next": None}


async def test_a_record_is_short_in_the_list_and_whole_by_its_id(connect: Connect, services: Services) -> None:
    services.store.save(record_of(1))
    client = await connect(services)
    [short] = (await get(client, "/records"))["records"]
    whole = await get(client, "/records/a1.w1.1.1")
    assert {name: value for name, value in whole.items() if name not in ("legs", "timeline")} == short
    assert (short["started_at"], short["duration_ms"], short["talk_ms"]) == ("2026-03-02T12:01:00Z", 12_000, 10_000)
    assert [leg["outcome"] for leg in whole["legs"]] == ["answered"]
    assert whole["timeline"] == [
        {"at": "2026-03-02T12:01:00Z", "offset_ms": 0, "kind": "arrived", "detail": {"trunk": "trunk-carrier"}}
    ]


async def test_calls_in_progress_are_shown_with_their_legs_so_far(connect: Connect, services: Services) -> None:
    live = [record_of(7, ended_at=None, outcome=""), record_of(8, tenant="boreal", ended_at=None, legs=[])]
    client = await connect(replace(services, calls=lambda: live))
    [acme] = (await get(client, "/calls?tenant=acme"))["calls"]
    assert (acme["id"], acme["ended_at"], acme["duration_ms"]) == ("a1.w1.1.7", None, 0)
    assert [leg["target"] for leg in acme["legs"]] == ["101"]
    assert len((await get(client, "/calls"))["calls"]) == 2


async def test_lines_say_how_to_register_and_where_the_password_is(connect: Connect, services: Services) -> None:
    client = await connect(services)
    assert (await get(client, "/lines?tenant=acme"))["lines"] == [
        {
            "tenant": "acme", "line": "101", "name": "Alice Martin", "server": "192.0.2.10:5060",
            "user": "acme-101", "password_file": "var/secrets.ini",
        }
    ]
    assert [line["name"] for line in (await get(client, "/lines"))["lines"]] == ["Alice Martin", "René Côté"]


@pytest.mark.parametrize(
    "path, status, message",
    [
        ("/records/a1.w1.1.99", 404, 'no-such-record: no record "a1.w1.1.99": it is written when the call ends'),
        ("/records?before=x", 404, 'no-such-record: no record "x": it is written when the call ends'),
        ("/records?limit=0", 400, 'bad-parameter: "limit" is a number from 1 to 500, not "0"'),
        ("/records?limit=501", 400, 'bad-parameter: "limit" is a number from 1 to 500, not "501"'),
        ("/records?limit=-1", 400, 'bad-parameter: "limit" is a number from 1 to 500, not "-1"'),
        ("/records?limit=", 400, 'bad-parameter: "limit" is a number from 1 to 500, not ""'),
        ("/records?limit=²", 400, 'bad-parameter: "limit" is a number from 1 to 500, not "²"'),
        ("/records?limit=1&limit=2", 400, 'bad-parameter: "limit" is given twice'),
        ("/records?limti=5", 400, 'unknown-parameter: no parameter "limti" (parameters: tenant, limit, before)'),
        ("/records/x?tenant=acme", 400, 'unknown-parameter: no parameter "tenant" (parameters: none)'),
        ("/nothing", 404, "not-found: GET /nothing: Not Found"),
    ],
)
async def test_a_request_that_cannot_be_served_is_told_why(
    connect: Connect, services: Services, path: str, status: int, message: str
) -> None:
    assert await error_of(await connect(services), path, status) == message


async def test_a_method_that_a_path_does_not_have_is_an_error_too(connect: Connect, services: Services) -> None:
    client = await connect(services)
    async with client.delete("/records", headers=BEARER) as answer:
        assert (answer.status, (await answer.json())["error"]) == (405, "method-not-allowed")


async def test_a_defect_is_logged_and_shows_nothing_of_the_inside(
    connect: Connect, services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> list[CallRecord]:
        raise RuntimeError("a secret of the inside")

    client = await connect(replace(services, calls=broken))
    assert await error_of(client, "/calls", 500) == "internal-error: the PBX could not answer; its log says why"
    assert "a secret of the inside" in caplog.text
    assert await asyncio.wait_for(get(client, "/healthz"), 10) == {"alive": True}


def test_every_path_has_its_chapter_in_the_manual(services: Services) -> None:
    manual = MANUAL.read_text()
    chapters = {line for line in manual.splitlines() if line.startswith("## GET")}
    routes = application(services).router.routes()
    assert chapters == {f"## GET {route.resource.canonical}" for route in routes if route.resource}


async def test_the_manual_shows_every_field(connect: Connect, services: Services) -> None:
    services.store.save(record_of(1))
    client = await connect(replace(services, calls=lambda: [record_of(2)]))
    manual = MANUAL.read_text()
    for path in ("/calls", "/records", "/records/a1.w1.1.1", "/lines"):
        for name in names_in(await get(client, path)) - {"trunk"}:
            assert f'"{name}"' in manual


def names_in(data: Any) -> set[str]:
    if isinstance(data, dict):
        return set(data).union(*map(names_in, data.values()))
    return set().union(*map(names_in, data)) if isinstance(data, list) else set()
