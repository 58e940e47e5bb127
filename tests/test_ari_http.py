"""The real wire on a server of our own: what is sent, what an answer means, and what happens when there is none."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from ari_server import APP
from ari_server import PASSWORD
from ari_server import USER
from ari_server import AriServer
from ari_server import Asked
from ari_server import Reply
from ari_server import ari_server
from ari_server import channel
from ari_server import connected
from ari_server import metric
from ari_server import soon

from pbx.ari import Ari
from pbx.ari import AriError
from pbx.ari import Gone
from pbx.ari import Unreachable
from pbx.ari_http import HttpWire
from pbx.prefix import Prefix

ROOT = Path(__file__).parent.parent


@pytest.fixture
async def server() -> AsyncIterator[AriServer]:
    async with ari_server() as running:
        yield running


@pytest.fixture
async def ari(server: AriServer) -> AsyncIterator[Ari]:
    """Connected to `server`; back after a cut without delay."""
    async with connected(server) as one:
        yield one


def test_the_committed_operations_are_those_of_asterisk(prefix: Prefix, tmp_path: Path) -> None:
    made = tmp_path / "ari_api.py"
    generator = [sys.executable, str(ROOT / "asterisk/generate-ari")]
    subprocess.run([*generator, "--from", prefix.data / "rest-api", "--to", made], check=True)
    assert made.read_text() == (ROOT / "pbx/ari_api.py").read_text(), "run asterisk/generate-ari and commit the result"


def test_the_generator_says_where_the_description_is_to_be_had(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, ROOT / "asterisk/generate-ari", "--from", tmp_path], capture_output=True, text=True
    )
    assert answer.returncode == 2
    assert "run asterisk/install var/asterisk" in answer.stderr


async def test_an_operation_is_sent_as_asterisk_reads_it(server: AriServer, ari: Ari) -> None:
    await ari.channels.create(
        endpoint="PJSIP/acme-101", app=APP, channel_id="a1.w1.7.1.l1", formats="alaw,ulaw",
        variables={"CALLERID(name)": "Zoé", "CALL": {"value": "a1.w1.7.1", "report_events": True}},
    )
    await ari.channels.play_with_id("a b/c", "p?1", media=["sound:one", "digits:2+3 é"], lang="fr", skipms=0)
    await ari.bridges.add_channel("b1", channel=["x", "y"], absorb_dtmf=True, mute=False)
    await ari.channels.dial("x", caller="y", timeout_seconds=20)
    await ari.endpoints.send_message(to="pjsip:acme-101", from_="pbx", body="hello")
    await ari.applications.filter(APP, filter={"disallowed": []})
    assert server.asked[-6:] == [
        Asked(
            "POST", "/channels/create",
            {"endpoint": "PJSIP/acme-101", "app": APP, "channelId": "a1.w1.7.1.l1", "formats": "alaw,ulaw"},
            {"variables": {"CALLERID(name)": "Zoé", "CALL": {"value": "a1.w1.7.1", "report_events": True}}},
        ),
        Asked(
            "POST", "/channels/a%20b%2Fc/play/p%3F1",
            {"media": "sound:one,digits:2+3 é", "lang": "fr", "skipms": "0"},
        ),
        Asked("POST", "/bridges/b1/addChannel", {"channel": "x,y", "absorbDTMF": "true", "mute": "false"}),
        Asked("POST", "/channels/x/dial", {"caller": "y", "timeout": "20"}),
        Asked("PUT", "/endpoints/sendMessage", {"to": "pjsip:acme-101", "from": "pbx", "body": "hello"}),
        Asked("PUT", f"/applications/{APP}/eventFilter", {}, {"disallowed": []}),
    ]


async def test_an_answer_is_parsed_json_or_nothing_or_a_file(server: AriServer, ari: Ari) -> None:
    server.replies["GET /channels/x"] = 200, channel("x") | {"news": "of Asterisk 30"}
    server.replies["GET /recordings/stored/r/file"] = 200, b"RIFF"
    assert (await ari.channels.get("x"))["state"] == "Up"
    assert await ari.recordings.get_stored_file("r") == b"RIFF"
    await ari.channels.answer("x")


@pytest.mark.parametrize(
    "status, message, error",
    [
        (404, "Channel not found", Gone),
        (409, "Channel not in Stasis application", Gone),
        (400, "Channel not found", Gone),
        (422, "Channel not in this bridge", Gone),
        (412, "Channel in invalid state", AriError),
        (409, "Channel with given unique ID already exists", AriError),
        (500, "Allocation failed", AriError),
    ],
)
async def test_a_refusal_says_whether_the_object_is_gone(
    server: AriServer, ari: Ari, status: int, message: str, error: type[AriError]
) -> None:
    before = metric("pbx_ari_requests_total", operation="channels.answer", status=str(status))
    server.replies["POST /channels/x/answer"] = status, {"message": message}
    with pytest.raises(AriError) as refused:
        await ari.channels.answer("x")
    assert type(refused.value) is error
    assert str(refused.value) == f"channels.answer: {message} ({status})"
    assert metric("pbx_ari_requests_total", operation="channels.answer", status=str(status)) == before + 1


async def test_a_refusal_need_not_be_json(server: AriServer, ari: Ari) -> None:
    server.replies["POST /channels/x/answer"] = 503, b"<html>down</html>"
    with pytest.raises(AriError, match=r"channels.answer: refused \(503\)"):
        await ari.channels.answer("x")
    server.replies["POST /channels/x/answer"] = 500, {"error": "Allocation failed"}
    with pytest.raises(AriError, match=r"Allocation failed"):
        await ari.channels.answer("x")


async def test_a_request_has_a_deadline_and_the_others_go_on(server: AriServer, ari: Ari) -> None:
    server.replies["POST /channels/busy/answer"] = never
    with pytest.raises(Unreachable, match="channels.answer: no answer within 0.05 s"):
        await ari.channels.answer("busy", timeout=0.05)
    await ari.channels.answer("free")


async def test_a_cancelled_request_spoils_no_connection(server: AriServer) -> None:
    """Its answer comes late, and must not be taken for that of the next request on the same connection."""
    release = asyncio.Event()

    async def late() -> Reply:
        await release.wait()
        return 200, channel("late")

    server.replies["GET /channels/late"] = late
    wire = HttpWire(server.url, USER, PASSWORD, connections=1)
    ari = Ari(wire, APP)
    server.replies["GET /channels/next"] = 200, channel("next")
    for _ in range(3):
        asking = asyncio.create_task(ari.channels.get("late"))
        while not server.requests("GET", "/channels/late"):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait((asking,))
        release.set()
        assert (await ari.channels.get("next"))["id"] == "next"
        release.clear()
        server.asked.clear()
    await wire.close()


async def test_a_server_that_closes_kept_connections_costs_no_request(server: AriServer, ari: Ari) -> None:
    server.hangs_up_after_each_answer = True
    for number in range(5):
        await ari.channels.answer(f"c{number}")
        await asyncio.sleep(0.03)  # the connection is closed meanwhile
    assert len([asked for asked in server.asked if asked.path.endswith("/answer")]) == 5


async def test_nothing_is_sent_over_a_closed_wire(server: AriServer) -> None:
    wire = HttpWire(server.url, USER, PASSWORD)
    await wire.close()
    with pytest.raises(Unreachable, match="has been closed"):
        await wire.request("asterisk.ping", "GET", "/asterisk/ping", {}, None, 1.0)


async def test_a_refused_password_is_reported_and_not_told(
    server: AriServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wire = HttpWire(server.url, USER, "not-" + PASSWORD)
    with pytest.raises(AriError) as opening:
        await wire.connect(APP, print)
    with pytest.raises(AriError) as asking:
        await wire.request("asterisk.ping", "GET", "/asterisk/ping", {}, None, 1.0)
    await wire.close()
    assert "user or password refused" in str(opening.value)
    assert asking.value.status == 401
    assert PASSWORD not in caplog.text + repr(opening.value) + repr(asking.value) + repr(vars(opening.value))


async def test_a_stream_that_stands_but_is_silent_is_opened_anew(
    server: AriServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an Asterisk stood still for a while, a stream may be open and bring no event any more."""
    monkeypatch.setattr("pbx.ari_http._QUIET", 0.02)
    monkeypatch.setattr("pbx.ari_http._ECHO", 0.5)
    async with connected(server):
        while len(server.requests("POST", "/events/user/echo")) < 3:
            await asyncio.sleep(0.01)
        assert len(server.streams) == 1  # each was heard
        server.silent = True
        await soon(server.streams_opened(2))
        server.silent = False
        server.replies["POST /events/user/echo"] = 404, {"message": "Application not found"}
        await soon(server.streams_opened(3))


async def test_a_password_does_not_belong_into_the_address() -> None:
    with pytest.raises(ValueError, match="give them on their own") as refused:
        HttpWire(f"http://{USER}:{PASSWORD}@127.0.0.1:8088", USER, PASSWORD)
    assert PASSWORD not in str(refused.value)


async def test_asterisk_is_alive_when_it_finds_no_channel_of_that_name(server: AriServer, ari: Ari) -> None:
    assert await ari.alive()
    server.replies["GET /channels/nobody/variable"] = 500, {"message": "Allocation failed"}
    assert not await ari.alive()


async def never() -> Reply:
    await asyncio.Event().wait()
    raise AssertionError
