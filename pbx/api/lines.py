"""/lines: how a handset registers as each line; never the password itself."""

from __future__ import annotations

from aiohttp import web

from pbx.api.http import parameters
from pbx.api.http import reply
from pbx.api.services import SERVICES

routes = web.RouteTableDef()


@routes.get("/lines")
async def lines(request: web.Request) -> web.Response:
    tenant = parameters(request, "tenant").get("tenant")
    return reply({"lines": [line for line in request.app[SERVICES].lines() if tenant in (None, line.tenant)]})
