"""The API's password: a bearer token in a file that only the PBX's own user can read."""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path

from aiohttp import web

from pbx.api.http import ApiError
from pbx.api.http import Handler
from pbx.api.services import SERVICES

# For supervisors and Prometheus; no number and no record is in them.
PUBLIC = frozenset({"/healthz", "/readyz", "/metrics"})


def token(path: Path) -> str:
    """The token kept in `path`; made, with mode 0600, if there is none. Raises OSError; ValueError if it is empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
    except FileExistsError:
        path.chmod(0o600)
    kept = path.read_text().strip()
    if not kept:
        raise ValueError(f"{path} is empty: remove it, and a new token is made")
    return kept


@web.middleware
async def only_with_token(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.path not in PUBLIC:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        expected = request.app[SERVICES].token
        # A header may hold any bytes; aiohttp keeps those that are not UTF-8 as surrogates.
        sent = given.strip().encode(errors="surrogateescape")
        if scheme.lower() != "bearer" or not hmac.compare_digest(sent, expected.encode()):
            raise ApiError(401, "unauthorized", "send the header: Authorization: Bearer TOKEN")
    return await handler(request)
