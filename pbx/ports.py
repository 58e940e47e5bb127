"""Network ports of this machine: whether one is free, who holds it if not, and a free one if any will do."""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Collection
from itertools import chain
from pathlib import Path
from typing import Literal

Kind = Literal["tcp", "udp"]

# Below the range out of which Linux hands out ports by itself (net.ipv4.ip_local_port_range).
FIRST_FREE = 10_000
LAST_FREE = 32_767

_LISTENING = "0A"


class PortTaken(Exception):
    """A port cannot be listened on; the message says which, and why."""


def check(address: str, port: int, kinds: tuple[Kind, ...]) -> None:
    """Raises PortTaken unless `port` can be listened on, for all of `kinds`."""
    for kind in kinds:
        try:
            _bind(address, port, kind).close()
        except OSError as error:
            raise PortTaken(_reason(address, port, kind, error.errno)) from None


def free_port(address: str, kinds: tuple[Kind, ...], taken: Collection[int] = (), *, in_a_row: int = 1) -> int:
    """A port that is free right now for all of `kinds`, as are the next ones, so many `in_a_row`; none of `taken`.

    Raises PortTaken if there is none.
    """
    problem = PortTaken(f"no port of {FIRST_FREE} to {LAST_FREE} is free")
    start = random.randint(FIRST_FREE, LAST_FREE)
    for port in chain(range(start, LAST_FREE + 1), range(FIRST_FREE, start)):
        row = range(port, port + in_a_row)
        if any(one in taken for one in row):
            continue
        try:
            for one in row:
                check(address, one, kinds)
        except PortTaken as error:
            problem = error
        else:
            return port
    raise problem


def holder(port: int, kind: Kind) -> str | None:
    """The program that has the port, as "asterisk (process 4711)"; None if this user may not know."""
    sockets = _sockets(port, kind)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(fd) in sockets for fd in (process / "fd").iterdir()):
                return f"{_program(process)} (process {process.name})"
        except OSError:  # another user's process, or one that has just ended
            continue
    return None


def _program(process: Path) -> str:
    name = (process / "comm").read_text().strip()
    if not name.startswith("ld-linux"):
        return name
    # A program of `asterisk/install` bears the name of the loader that started it (see prefix.py).
    words = (process / "cmdline").read_text().split("\0")
    return next((Path(word).name for word in words if "bin/" in word), name)


def _bind(address: str, port: int, kind: Kind) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    try:
        if kind == "tcp":  # as servers do: connections that are just being closed are no obstacle
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        return listener
    except OSError:
        listener.close()
        raise


def _reason(address: str, port: int, kind: Kind, code: int | None) -> str:
    place = f"{kind.upper()} port {port}"
    if code == errno.EADDRINUSE:
        return f"{place} on {address} is taken by {holder(port, kind) or 'another program'}"
    if code == errno.EADDRNOTAVAIL:
        return f"{address} is not an address of this machine"
    if code == errno.EACCES:
        return f"{place} is reserved for root; ordinary users have the ports from 1024"
    return f"{place} on {address} cannot be opened: {os.strerror(code or 0)}"


def _sockets(port: int, kind: Kind) -> set[str]:
    """Links in /proc/PID/fd that lead to the sockets bound to a port."""
    found: set[str] = set()
    for table in (Path(f"/proc/net/{kind}"), Path(f"/proc/net/{kind}6")):
        try:
            rows = [row.split() for row in table.read_text().splitlines()[1:]]
        except OSError:  # no IPv6 here
            continue
        found.update(
            f"socket:[{row[9]}]" for row in rows
            if int(row[1].rpartition(":")[2], 16) == port and (kind == "udp" or row[3] == _LISTENING)
        )
    return found
