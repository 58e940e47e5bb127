"""/healthz: the engine runs. /readyz: it can take calls; if not, what is missing."""

from __future__ import annotations

from aiohttp import web

from pbx.api.http import reply
from pbx.api.services import SERVICES
from pbx.store import StoreError

routes = web.RouteTableDef()


@routes.get("/healthz")
async def healthz(request: web.Request) -> web.Response:
    return reply({"alive": True})


@routes.get("/readyz")
async def readyz(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    problems = {name: check() for name, check in services.checks.items()}
    try:
        await services.store.calls(limit=1)
    except StoreError as error:
        problems["store"] = str(error)
    missing = {name: problem for name, problem in problems.items() if problem}
    return reply({"ready": not missing, "missing": missing}, status=503 if missing else 200)
