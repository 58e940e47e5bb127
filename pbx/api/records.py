"""/records: the calls that have ended, newest first; /records/ID: one of them with its legs and timeline."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from aiohttp import web

from pbx.api.http import ApiError
from pbx.api.http import parameters
from pbx.api.http import whole_number
from pbx.api.http import reply
from pbx.api.services import SERVICES
from pbx.store import CallRecord

routes = web.RouteTableDef()

_LONG = {"legs", "timeline"}
_SHORT = [field.name for field in fields(CallRecord) if field.name not in _LONG]


@routes.get("/records")
async def records(request: web.Request) -> web.Response:
    given = parameters(request, "tenant", "limit", "before")
    limit = whole_number(given, "limit", default=50, least=1, most=500)
    before = given.get("before")
    store = request.app[SERVICES].store
    if before is not None and await store.call(before) is None:
        raise _no_such_record(before)
    found = await store.calls(tenant=given.get("tenant"), before=before, limit=limit + 1)
    page = found[:limit]
    return reply({"records": [summary(record) for record in page], "next": page[-1].id if len(found) > limit else None})


@routes.get("/records/{id}")
async def record(request: web.Request) -> web.Response:
    parameters(request)
    id = request.match_info["id"]
    found = await request.app[SERVICES].store.call(id)
    if found is None:
        raise _no_such_record(id)
    return reply({**summary(found), "legs": found.legs, "timeline": found.timeline})


def summary(record: CallRecord) -> dict[str, Any]:
    """A record without its legs and timeline."""
    short = {name: getattr(record, name) for name in _SHORT}
    return {**short, "duration_ms": record.duration_ms, "talk_ms": record.talk_ms}


def _no_such_record(id: str) -> ApiError:
    return ApiError(404, "no-such-record", f'no record "{id}": it is written when the call ends', id=id)
