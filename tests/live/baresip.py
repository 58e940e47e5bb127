"""One baresip process and its control socket: JSON in netstrings, answers matched to commands, events handed on."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pbx.ports import free_port
from pbx.prefix import Prefix

_ANSWER_WITHIN = 5.0  # seconds; it takes a few milliseconds
_FAREWELL = 1.0  # seconds to sign off in; it takes a few milliseconds
_LIFETIME = 900  # seconds after which a process ends by itself, whatever became of the test that started it

# Two things of baresip 1.1 shape this. Its file player crashes when it is stopped as soon as it is started, which
# putting a call on hold does: so calls play to nowhere, and what is heard is written by the sndfile filter, packet by
# packet as it comes in. And a call ends when its source file does, so sounds are followed by minutes of silence.
_CONFIG = """\
poll_method epoll
sip_listen 127.0.0.1:{sip_port}
net_interface 127.0.0.1
rtp_ports 20000-29999
audio_player aubridge,nowhere
audio_source aufile,{playing}
snd_path {heard}
call_max_calls 8
ringback_disabled yes
statmode_default off
ctrl_tcp_listen 127.0.0.1:{control_port}
module_path {modules}
module g711.so
module g722.so
module aubridge.so
module aufile.so
module sndfile.so
module srtp.so
module_tmp uuid.so
module_tmp account.so
module_app ctrl_tcp.so
module_app menu.so
module_app mwi.so
"""


class Refused(Exception):
    """baresip did not carry out a command; the message is its own."""


class Baresip:
    """A running baresip; `on_event` is called with each of its events, `heard` is where its recordings grow."""

    def __init__(self, folder: Path, prefix: Prefix, on_event: Callable[[dict[str, Any]], None]) -> None:
        self.heard = folder / "heard"
        self.log = folder / "log"
        self._folder = folder
        self._prefix = prefix
        self._on_event = on_event
        self._answers: dict[str, asyncio.Future[str]] = {}
        self._tokens = itertools.count()

    async def start(self, playing: Path, sip_port: int) -> None:
        self.heard.mkdir(parents=True)
        control_port = free_port("127.0.0.1", ("tcp",), {sip_port})
        modules = (self._prefix.path or Path("/")) / "usr/lib/baresip/modules"
        config = _CONFIG.format(
            sip_port=sip_port, control_port=control_port, playing=playing, heard=self.heard, modules=modules
        )
        (self._folder / "config").write_text(config)
        for needed in ("accounts", "contacts"):
            (self._folder / needed).touch()
        program = [*self._prefix.command("baresip"), "-f", str(self._folder), "-t", str(_LIFETIME), "-v", "-s"]
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *program, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder
            )
        reader, self._writer = await self._connect(control_port)
        self._listening = asyncio.create_task(self._listen(reader))

    async def command(self, name: str, parameters: str = "") -> str:
        """What baresip answers. Raises Refused, also when it is no longer there."""
        token = str(next(self._tokens))
        message = json.dumps({"command": name, "params": parameters, "token": token}).encode()
        answer = self._answers[token] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(b"%d:%s," % (len(message), message))
            return await asyncio.wait_for(answer, _ANSWER_WITHIN)
        except TimeoutError:
            raise Refused(f"no answer to {name} {parameters}; {self.last_words()}") from None
        finally:
            del self._answers[token]

    async def stop(self) -> None:
        """Hangs up, signs off and ends the process."""
        with contextlib.suppress(Refused):
            await self.command("quit")
        try:
            await asyncio.wait_for(self._process.wait(), _FAREWELL)
        except TimeoutError:  # its server does not answer any more
            self._process.kill()
            await self._process.wait()
        await self._listening
        self._writer.close()

    def last_words(self) -> str:
        state = "" if self._process.returncode is None else f" (ended with {self._process.returncode})"
        lines = self.log.read_text(errors="replace").splitlines()
        return f"the end of {self.log}{state}:\n" + "\n".join(lines[-15:])

    async def _connect(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        deadline = asyncio.get_running_loop().time() + _ANSWER_WITHIN
        while True:
            try:
                return await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:
                # It says nowhere that it is ready.
                if self._process.returncode is not None or asyncio.get_running_loop().time() > deadline:
                    raise Refused(f"baresip does not start; {self.last_words()}") from None
                await asyncio.sleep(0.01)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                length = int((await reader.readuntil(b":"))[:-1])
                message = json.loads((await reader.readexactly(length + 1))[:-1])
                if message.get("response"):
                    self._answered(message)
                else:
                    self._on_event(message)
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(Refused(f"baresip is gone; {self.last_words()}"))

    def _answered(self, message: dict[str, Any]) -> None:
        answer = self._answers.get(message["token"])
        if answer is None or answer.done():
            return
        if message["ok"]:
            answer.set_result(message["data"])
        else:
            answer.set_exception(Refused(message["data"]))
