"""What all resources share: JSON answers, checked parameters, and errors in one form."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from pbx.store import StoreError

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_JSON = orjson.OPT_UTC_Z | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


class ApiError(Exception):
    """A request that cannot be served. Programs go by `id`, which never changes; people read `message`."""

    def __init__(self, status: int, id: str, message: str, /, **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.id = id
        self.message = message
        self.details = details


def reply(data: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """`data` as JSON: dataclasses are objects, times ISO 8601 in UTC."""
    body = orjson.dumps(data, default=str, option=_JSON)
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


def parameters(request: web.Request, *known: str) -> dict[str, str]:
    """The query's parameters by name. Raises ApiError for one that is not `known`, or given twice."""
    for name in request.query:
        if name not in known:
            listed = ", ".join(known) or "none"
            raise ApiError(400, "unknown-parameter", f'no parameter "{name}" (parameters: {listed})', parameter=name)
        if len(request.query.getall(name)) > 1:
            raise ApiError(400, "bad-parameter", f'"{name}" is given twice', parameter=name)
    return dict(request.query)


def whole_number(given: Mapping[str, str], name: str, *, default: int, least: int, most: int) -> int:
    """The parameter `name`, a number from `least` to `most`. Raises ApiError."""
    text = given.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        message = f'"{name}" is a number from {least} to {most}, not "{text}"'
        raise ApiError(400, "bad-parameter", message, parameter=name)
    return int(text)


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers every failure with {"error": id, "message": text, "details": {}}."""
    try:
        return await handler(request)
    except ApiError as error:
        return _error(error)
    except web.HTTPException as error:  # aiohttp's own: no such path, not this method
        id = error.reason.lower().replace(" ", "-")
        return _error(ApiError(error.status, id, f"{request.method} {request.path}: {error.reason}"))
    except StoreError as error:
        return _error(ApiError(503, "store-unavailable", str(error)))
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return _error(ApiError(500, "internal-error", "the PBX could not answer; its log says why"))


def _error(error: ApiError) -> web.Response:
    data = {"error": error.id, "message": error.message, "details": error.details}
    return reply(data, status=error.status, headers={"WWW-Authenticate": "Bearer"} if error.status == 401 else None)
