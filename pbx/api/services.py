"""What the API shows, given to it by whoever builds it."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from pbx.store import AnyStore
from pbx.store import CallRecord


@dataclass(frozen=True, slots=True)
class Registration:
    """How a handset registers as a line. `password_file` names the file that holds the password, never the password."""

    tenant: str
    line: str  # "101"
    name: str
    server: str  # "192.0.2.10:5060"
    user: str  # "acme-101"
    password_file: str


@dataclass(frozen=True, slots=True)
class Services:
    """`checks` tell by name what is not ready, "" when all is well; `calls` gives the records of the live calls."""

    store: AnyStore
    token: str
    checks: Mapping[str, Callable[[], str]]
    calls: Callable[[], Iterable[CallRecord]]
    lines: Callable[[], Iterable[Registration]]


SERVICES = web.AppKey("services", Services)
