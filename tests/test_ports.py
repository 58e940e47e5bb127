"""Ports: free ones are free, and a taken one is named with its holder."""

from __future__ import annotations

import os
import socket

import pytest

from pbx.ports import PortTaken
from pbx.ports import check
from pbx.ports import free_port
from pbx.ports import holder


def test_a_free_port_can_be_listened_on_for_udp_and_tcp() -> None:
    port = free_port("127.0.0.1", ("udp", "tcp"))
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", port))
        udp.bind(("127.0.0.1", port))


def test_ports_in_a_row_pass_over_those_that_somebody_wants() -> None:
    free = free_port("127.0.0.1", ("tcp",), in_a_row=4)
    wanted = set(range(10_000, 33_000)) - {free, free + 2, free + 3}
    assert free_port("127.0.0.1", ("tcp",), wanted, in_a_row=2) == free + 2
    with pytest.raises(PortTaken):
        free_port("127.0.0.1", ("tcp",), wanted, in_a_row=3)


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_port_in_use_is_taken_on_all_addresses_and_its_holder_is_named(address: str) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"TCP port {port} on {address} is taken by .* \(process {os.getpid()}\)"):
            check(address, port, ("tcp",))
        check(address, port, ("udp",))


def test_a_port_that_nobody_holds_has_no_holder() -> None:
    assert holder(free_port("127.0.0.1", ("tcp",)), "tcp") is None
