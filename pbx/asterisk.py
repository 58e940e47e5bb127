"""The Asterisk that carries the calls: one of our own, started, watched and stopped here, or one that is elsewhere."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import logging
import os
import re
import secrets
import signal
import subprocess
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import aiohttp

from pbx import metrics
from pbx.config import Config
from pbx.instance import RELOADABLE
from pbx.instance import Instance
from pbx.instance import Office
from pbx.ports import Kind
from pbx.ports import PortTaken
from pbx.ports import check as check_port
from pbx.prefix import Prefix
from pbx.prefix import ProgramMissing

log = logging.getLogger(__name__)

MINIMUM_VERSION = 22

_START_S = 30.0  # it takes half a second; a busy machine may need more
_ANSWER_S = 3.0
_SIP_ANSWER_S = 0.5
_LOOK_AGAIN_S = 0.02
_STOP_S = 5.0  # then it is killed
_FIRST_PAUSE_S = 0.5
_LAST_PAUSE_S = 30.0
_HEALTHY_S = 60.0  # one that ran for so long is started again without a pause when it dies
_PROBE_S = 5.0
_LAST_WORDS = 8
# Reloaded in this order: a trunk's registration refers to its endpoint.
_RELOADED_MODULES = ("res_pjsip.so", "res_pjsip_outbound_registration.so", "pbx_config.so")


class AsteriskError(Exception):
    """Asterisk cannot be used; the message says why and what to do."""


class _ChosenPortTaken(AsteriskError):
    pass


@dataclass(frozen=True, slots=True)
class Access:
    """How the engine reaches an Asterisk. `url` is the root of its HTTP server, without /ari."""

    url: str
    user: str
    password: str
    ami_host: str
    ami_port: int
    ami_user: str
    ami_password: str

    def __repr__(self) -> str:
        return f"Access({self.url})"


class Asterisk(Protocol):
    """What the engine asks of an Asterisk, wherever it runs. All but `access` is to be called on one loop."""

    @property
    def access(self) -> Access: ...

    async def start(self, offices: Sequence[Office]) -> None:
        """Returns once ARI, AMI and SIP answer. Raises AsteriskError."""

    async def run(self) -> None:
        """Keeps it running until cancelled."""

    async def reload(self, offices: Sequence[Office]) -> None:
        """Makes lines and their way on without an engine known; calls go on. Raises AsteriskError."""

    async def stop(self) -> None:
        """Ends it, and the calls it carries, without leaving a process. May be called at any time, also twice."""


def asterisk_of(config: Config, *, app: str) -> Asterisk:
    """The Asterisk that the configuration names; `app` is the ARI application that takes its calls."""
    if config.asterisk.elsewhere:
        there = config.asterisk.elsewhere
        return ElsewhereAsterisk(Access(
            there.url, there.user, there.password,
            there.ami.host, there.ami.port, there.ami.user, there.ami.password,
        ))
    return PrivateAsterisk(config, app=app)


class PrivateAsterisk:
    """An Asterisk in a folder of its own, `var`/asterisk-`node`; it outlives an engine that is killed.

    The next engine finds it there and takes it over. Making one creates the folder. Raises AsteriskError.
    """

    def __init__(self, config: Config, *, app: str) -> None:
        private = config.asterisk.private
        prefix = private.prefix if private else Path("var/asterisk")
        self._prefix = Prefix(prefix if prefix.is_dir() else None)
        self._offices: Sequence[Office] = ()
        self._process: _Process | None = None
        self._lock = -1
        folder = config.var / f"asterisk-{config.node}"
        trunks = {str(name): trunk for name, trunk in config.trunks.items() if trunk.enabled}
        try:
            self._instance = Instance(
                folder, self._prefix, config.sip, config.rtp, trunks, node=config.node, app=app
            )
        except (OSError, PortTaken) as error:
            raise AsteriskError(f"the folder {folder} of Asterisk cannot be made: {error}") from None

    @property
    def access(self) -> Access:
        password = self._instance.secrets.password
        return Access(
            f"http://127.0.0.1:{self._instance.ports.http}", "pbx", password("asterisk", "ari"),
            "127.0.0.1", self._instance.ports.ami, "pbx", password("asterisk", "ami"),
        )

    @property
    def sip_port(self) -> int:
        """For UDP and TCP."""
        return self._instance.ports.sip

    @property
    def tls_port(self) -> int:
        """0 without TLS."""
        return self._instance.ports.tls

    @property
    def secrets_file(self) -> Path:
        """Where the passwords of handsets are, in its section [lines]."""
        return self._instance.secrets.path

    @property
    def log_file(self) -> Path:
        return self._instance.folder / "log" / "messages"

    @property
    def recordings(self) -> Path:
        """Where ARI's recordings are stored, as NAME.FORMAT."""
        return self._instance.folder / "spool" / "recording"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def password(self, identity: str) -> str:
        """The SIP password of a handset ("acme-101")."""
        return self._instance.secrets.password("lines", identity)

    async def start(self, offices: Sequence[Office]) -> None:
        self._take_lock()
        self._offices = offices
        await self._check_version()
        changed = await asyncio.to_thread(self._write)
        self._check_modules()
        running = self._still_running()
        if running and not changed <= RELOADABLE:
            log.warning("stopping the Asterisk of a former engine (process %d): its settings have changed", running.pid)
            await running.end()
            running = None
        if running is None:
            self._settle_ports()
            await self._launch()
            return
        log.warning("taking over the Asterisk of a former engine (process %d)", running.pid)
        self._process = running
        await self._ready()
        await self._reload_modules()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE_S
        while True:
            if self._process:
                began = loop.time()
                how = await self._process.ended()
                log.error("Asterisk died (%s)%s", how, self._last_words())
                self._process = None
                metrics.asterisk_up.set(0)
                if loop.time() - began > _HEALTHY_S:
                    pause = _FIRST_PAUSE_S
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LAST_PAUSE_S)
            try:
                await self._launch()
            except AsteriskError as error:
                log.error("Asterisk does not start again, next try in %g s: %s", pause, error)

    async def reload(self, offices: Sequence[Office]) -> None:
        self._offices = offices
        if await asyncio.to_thread(self._write, RELOADABLE) and self._process:
            await self._reload_modules()

    async def stop(self) -> None:
        if self._process:
            await self._process.end()
            self._process = None
        metrics.asterisk_up.set(0)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # -- before it starts -----------------------------------------------------------------------

    def _take_lock(self) -> None:
        """One engine per folder. The lock goes with the process, however that ends."""
        if self._lock >= 0:
            return
        path = self._instance.folder / "engine.lock"
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            other = os.read(lock, 20).decode()
            os.close(lock)
            raise AsteriskError(
                f"another PBX (process {other}) has the folder {self._instance.folder}: stop it, "
                'or give this one another "node" or "var" in config/pbx.yml'
            ) from None
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
        self._lock = lock

    async def _check_version(self) -> None:
        command = self._command("-V")
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )
            answer, _ = await process.communicate()
        except OSError as error:
            raise AsteriskError(f"{command[0]} cannot be run: {error.strerror}") from None
        text = answer.decode(errors="replace").strip()
        version = re.search(r"Asterisk (?:certified[/-])?(\d+)\.", text)
        if version is None:
            raise AsteriskError(f'"{" ".join(command)}" does not tell its version but: {text[:200]}')
        if int(version[1]) < MINIMUM_VERSION:
            raise AsteriskError(
                f"{command[-2]} is {text}, but {MINIMUM_VERSION} or newer is needed: run asterisk/install var/asterisk"
            )

    def _command(self, *arguments: str) -> list[str]:
        try:
            return [*self._prefix.command("asterisk"), *arguments]
        except ProgramMissing as error:
            raise AsteriskError(str(error)) from None

    def _write(self, only: frozenset[str] | None = None) -> set[str]:
        try:
            return self._instance.write(self._offices, only)
        except ProgramMissing as error:
            raise AsteriskError(str(error)) from None
        except OSError as error:
            raise AsteriskError(f"the configuration of Asterisk cannot be written: {error}") from None

    def _check_modules(self) -> None:
        folder = self._prefix.modules
        missing = [name for name in self._instance.required_modules() if not (folder / name).is_file()]
        if missing:
            raise AsteriskError(
                f"the Asterisk of {folder} lacks {', '.join(missing)}: run asterisk/install var/asterisk, "
                "or build Asterisk with them (docs/install.md)"
            )

    def _settle_ports(self) -> None:
        """Moves to other ports where the configuration leaves the choice and the remembered ones are taken by now."""
        try:
            self._check_ports()
        except _ChosenPortTaken as taken:
            self._instance.choose_ports()
            log.warning("%s; SIP is on port %d now", taken, self._instance.ports.sip)
            self._write()

    def _check_ports(self) -> None:
        """Raises AsteriskError; _ChosenPortTaken if it is none that the configuration names."""
        ports, sip = self._instance.ports, self._instance.sip
        over: dict[Kind, bool] = {"udp": sip.udp, "tcp": sip.tcp}
        kinds = tuple(kind for kind, used in over.items() if used)
        listeners: list[tuple[str, str, int, tuple[Kind, ...]]] = [
            ("sip: {port: ...}" if sip.port != "auto" else "", sip.bind, ports.sip, kinds),
            ("", "127.0.0.1", ports.http, ("tcp",)),
            ("", "127.0.0.1", ports.ami, ("tcp",)),
        ]
        if sip.tls:
            key = "sip: {tls: {port: ...}}" if sip.tls.port != "auto" else ""
            listeners.append((key, sip.bind, ports.tls, ("tcp",)))
        for key, address, port, needed in sorted(listeners, reverse=True):
            try:
                check_port(address, port, needed)
            except PortTaken as taken:
                if key:
                    remedy = f'stop that, or set "{key}" in config/pbx.yml to another port, or to auto'
                    raise AsteriskError(f"{taken}: {remedy}") from None
                raise _ChosenPortTaken(str(taken)) from None

    def _still_running(self) -> _Process | None:
        """The Asterisk that a killed engine left in this folder."""
        try:
            process = _Process(int(self._instance.pid_file.read_text()))
            words = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        # The process id may belong to somebody else by now.
        return process if str(self._instance.main_file).encode() in words else None

    # -- from start to death --------------------------------------------------------------------

    async def _launch(self) -> None:
        self._check_ports()
        console = self._instance.folder / "log" / "console"
        command = self._command("-f", "-C", str(self._instance.main_file))
        # In a session of its own, so that Ctrl-C reaches the engine alone, which then stops it in good order. Its
        # output goes to a file: the pipe to an engine that is killed would stop it at its next word.
        with console.open("wb") as output:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self._instance.folder,
                start_new_session=True,
            )
        self._process = _Process(child.pid, child)
        metrics.asterisk_starts.inc()
        try:
            await self._ready()
        except BaseException:  # cancelled, too
            await self._process.end()
            self._process = None
            raise
        log.info("Asterisk runs (process %d), SIP on port %d", child.pid, self._instance.ports.sip)

    async def _ready(self) -> None:
        """Returns once it answers. Raises AsteriskError when it dies before, or never does."""
        assert self._process
        answers = asyncio.ensure_future(self._answers())
        ended = asyncio.ensure_future(self._process.ended())
        try:
            done, _ = await asyncio.wait({answers, ended}, timeout=_START_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            answers.cancel()
            ended.cancel()
            await asyncio.gather(answers, ended, return_exceptions=True)
        if ended in done:
            raise AsteriskError(f"Asterisk ended at its start ({ended.result()}){self._last_words()}")
        if answers not in done:
            raise AsteriskError(f"Asterisk does not answer after {_START_S:g} s{self._last_words()}")
        answers.result()  # a defect of ours in asking is not an answer
        metrics.asterisk_up.set(1)

    async def _answers(self) -> None:
        await _until(lambda: _ari_answers(self.access))
        await _until(lambda: _ami_answers(self.access))
        sip, ports = self._instance.sip, self._instance.ports
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(sip.bind, str(sip.bind))
        if sip.udp:
            await _until(lambda: _sip_answers(host, ports.sip))
        if sip.tcp:
            await _until(lambda: _listens(host, ports.sip))
        if sip.tls:
            await _until(lambda: _listens(host, ports.tls))

    async def _reload_modules(self) -> None:
        async with _session(self.access) as session:
            for module in _RELOADED_MODULES:
                try:
                    async with session.put(f"ari/asterisk/modules/{module}") as response:
                        if response.status >= 300:
                            raise AsteriskError(f"Asterisk did not reload {module}: HTTP {response.status}")
                except (aiohttp.ClientError, TimeoutError) as error:
                    raise AsteriskError(f"Asterisk did not reload {module}: {error or 'no answer'}") from None

    def _last_words(self) -> str:
        """What it complained of before it ended, for the end of a message."""
        lines: list[str] = []
        for name in ("console", "messages"):
            with contextlib.suppress(OSError):
                lines += (self._instance.folder / "log" / name).read_text(errors="replace").splitlines()
        complaints = [line for line in lines if re.search(r"ERROR|\*\*\*|failed|EXITING", line)]
        said = (complaints or lines)[-_LAST_WORDS:]
        return "".join(["; its last words:", *(f"\n    {line}" for line in said)]) if said else ""


class ElsewhereAsterisk:
    """An Asterisk that somebody else starts, stops and configures (docs/install.md)."""

    def __init__(self, access: Access) -> None:
        self.access = access

    async def start(self, offices: Sequence[Office]) -> None:
        url = self.access.url
        try:
            async with _session(self.access) as session, session.get("ari/asterisk/info?only=system") as response:
                if response.status == 401:
                    raise AsteriskError(f'the ARI of {url} refuses the user "{self.access.user}" and its password')
                if response.status != 200:
                    raise AsteriskError(f"there is no ARI at {url}: HTTP {response.status} (is res_ari loaded?)")
                version = str((await response.json())["system"]["version"])
        except (aiohttp.ClientError, TimeoutError) as error:
            raise AsteriskError(f"Asterisk does not answer at {url}: {error or 'no answer'}") from None
        except (KeyError, ValueError):
            raise AsteriskError(f"what answers at {url} is not Asterisk's ARI") from None
        if int(re.match(r"\d*", version)[0] or MINIMUM_VERSION) < MINIMUM_VERSION:  # type: ignore[index]
            raise AsteriskError(f"{url} is Asterisk {version}, but {MINIMUM_VERSION} or newer is needed")
        if not await _ami_answers(self.access):
            raise AsteriskError(f"no manager interface answers at {self.access.ami_host}:{self.access.ami_port}")
        metrics.asterisk_up.set(1)

    async def run(self) -> None:
        while True:
            metrics.asterisk_up.set(await _ari_answers(self.access))
            await asyncio.sleep(_PROBE_S)

    async def reload(self, offices: Sequence[Office]) -> None:
        log.info("lines have changed: see to it that the Asterisk at %s knows them too", self.access.url)

    async def stop(self) -> None:
        metrics.asterisk_up.set(0)


# -- does it answer? --------------------------------------------------------------------------------


async def _until(ask: Callable[[], Awaitable[bool]]) -> None:
    while not await ask():
        await asyncio.sleep(_LOOK_AGAIN_S)


def _session(access: Access) -> aiohttp.ClientSession:
    token = base64.b64encode(f"{access.user}:{access.password}".encode()).decode()
    return aiohttp.ClientSession(
        base_url=access.url.rstrip("/") + "/", headers={"Authorization": f"Basic {token}"},
        timeout=aiohttp.ClientTimeout(total=_ANSWER_S),
    )


async def _ari_answers(access: Access) -> bool:
    try:
        async with _session(access) as session, session.get("ari/asterisk/ping") as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


async def _ami_answers(access: Access) -> bool:
    return (await _first_line(access.ami_host, access.ami_port)).startswith(b"Asterisk Call Manager")


async def _listens(host: str, port: int) -> bool:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_ANSWER_S):
            _, writer = await asyncio.open_connection(host, port)
        writer.close()
        return True
    return False


async def _first_line(host: str, port: int) -> bytes:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                return await reader.readline()
            finally:
                writer.close()
    return b""


async def _sip_answers(host: str, port: int) -> bool:
    """Whether any answer comes to an OPTIONS request over UDP; "who are you?" is one."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Answer(answer), remote_addr=(host, port))
    try:
        ours = transport.get_extra_info("sockname")
        place = f"[{host}]" if ":" in host else host
        call = secrets.token_hex(8)
        transport.sendto((
            f"OPTIONS sip:{place}:{port} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {place}:{ours[1]};branch=z9hG4bK{call};rport\r\n"
            f"From: <sip:pbx@{place}>;tag={call}\r\nTo: <sip:{place}:{port}>\r\n"
            f"Call-ID: {call}\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 1\r\nContent-Length: 0\r\n\r\n"
        ).encode())
        async with asyncio.timeout(_SIP_ANSWER_S):
            return (await answer).startswith(b"SIP/2.0 ")
    except (OSError, TimeoutError):
        return False
    finally:
        transport.close()


class _Answer(asyncio.DatagramProtocol):
    """The first datagram that comes back, or the error that does."""

    def __init__(self, answer: asyncio.Future[bytes]) -> None:
        self._answer = answer

    def datagram_received(self, data: bytes, address: object) -> None:
        if not self._answer.done():
            self._answer.set_result(data)

    def error_received(self, error: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(error)


class _Process:
    """A process, child or not. Held by a pidfd, it is never mistaken for another that got its number later."""

    def __init__(self, pid: int, child: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self._child = child
        self._pidfd = os.pidfd_open(pid)
        self._gone = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_end)

    async def ended(self) -> str:
        """Waits for its end, and says how that came."""
        await self._gone.wait()
        status = self._child.returncode if self._child else None
        if status is None:
            return "it was not ours to know how"
        return f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"

    async def end(self) -> None:
        """Asks it to end, then makes it. Returns when it is gone, even when cancelled meanwhile."""
        try:
            self._send(signal.SIGTERM)
            async with asyncio.timeout(_STOP_S):
                await self._gone.wait()
        except TimeoutError:
            log.warning("Asterisk (process %d) does not end by itself: it is killed", self.pid)
        finally:
            self._send(signal.SIGKILL)
            await asyncio.shield(self._gone.wait())

    def _send(self, number: signal.Signals) -> None:
        if not self._gone.is_set():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def _on_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        if self._child:
            self._child.wait()
        self._gone.set()
