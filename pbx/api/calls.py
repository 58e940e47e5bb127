"""/calls: the calls in progress, with their legs so far."""

from __future__ import annotations

from aiohttp import web

from pbx.api.http import parameters
from pbx.api.records import summary
from pbx.api.http import reply
from pbx.api.services import SERVICES

routes = web.RouteTableDef()


@routes.get("/calls")
async def calls(request: web.Request) -> web.Response:
    tenant = parameters(request, "tenant").get("tenant")
    live = [record for record in request.app[SERVICES].calls() if tenant in (None, record.tenant)]
    return reply({"calls": [{**summary(record), "legs": record.legs} for record in live]})
