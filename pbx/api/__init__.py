"""The HTTP API: what the PBX is doing and what it remembers, as JSON; one file per resource. docs/api.md shows it."""

from __future__ import annotations

from aiohttp import web

from pbx.api import calls
from pbx.api import health
from pbx.api import lines
from pbx.api import metrics
from pbx.api import records
from pbx.api.auth import only_with_token
from pbx.api.http import errors_as_json
from pbx.api.services import SERVICES
from pbx.api.services import Registration
from pbx.api.services import Services

__all__ = ["Registration", "Services", "application"]


def application(services: Services) -> web.Application:
    """The API over `services`, to be served on a loopback address: it has a password, but no encryption."""
    api = web.Application(middlewares=[errors_as_json, only_with_token])
    api[SERVICES] = services
    for resource in (calls, health, lines, metrics, records):
        api.add_routes(resource.routes)
    return api
