"""The Asterisk that carries the calls: one of our own, started, watched and stopped here, or one that is elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import re
import subprocess
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import aiohttp

from pbx import metrics
from pbx.access import Access
from pbx.access import listens
from pbx.access import sip_answers
from pbx.config import Config
from pbx.instance import RELOADABLE
from pbx.instance import Instance
from pbx.instance import Office
from pbx.ports import Kind
from pbx.ports import PortTaken
from pbx.ports import check as check_port
from pbx.prefix import Prefix
from pbx.prefix import ProgramMissing
from pbx.process import Process

log = logging.getLogger(__name__)

MINIMUM_VERSION = 22

_START_S = 60.0  # half a second for a few lines, ten for ten thousand
_RELOAD_S = 60.0
_VERSION_S = 10.0
_ANSWER_S = 3.0
_LOOK_AGAIN_S = 0.02
_STOP_S = 5.0  # then it is killed
_FIRST_PAUSE_S = 0.5
_LAST_PAUSE_S = 30.0
_HEALTHY_S = 60.0  # one that ran for so long is started again without a pause when it dies
_PROBE_S = 5.0
_LAST_WORDS = 8  # lines
_LOG_TAIL = 65_536  # bytes
# Reloaded in this order: a trunk's registration refers to its endpoint.
_RELOADED_MODULES = ("res_pjsip.so", "res_pjsip_outbound_registration.so", "pbx_config.so")


class AsteriskError(Exception):
    """Asterisk cannot be used; the message says why and what to do."""


class _ChosenPortTaken(AsteriskError):
    pass


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
        self._process: Process | None = None
        self._lock = -1
        self._log_read = 0  # bytes of the log that are of former starts
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
        if running and await self._taken_over(running, changed):
            return
        self._settle_ports()
        await self._launch()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE_S
        while True:
            process = self._process
            if process:
                began = loop.time()
                how = await process.ended()
                if self._process is not process:  # it was stopped
                    return
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
        process, self._process = self._process, None
        if process:
            await process.end(_STOP_S)
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
            async with asyncio.timeout(_VERSION_S):
                answer, _ = await process.communicate()
        except OSError as error:
            raise AsteriskError(f"{command[0]} cannot be run: {error.strerror}") from None
        except TimeoutError:
            process.kill()
            await process.wait()
            raise AsteriskError(f'"{" ".join(command)}" does not end') from None
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
        for key, address, port, needed in sorted(listeners, reverse=True):  # those that have a key first
            try:
                check_port(address, port, needed)
            except PortTaken as taken:
                if key:
                    remedy = f'stop that, or set "{key}" in config/pbx.yml to another port, or to auto'
                    raise AsteriskError(f"{taken}: {remedy}") from None
                raise _ChosenPortTaken(str(taken)) from None

    def _still_running(self) -> Process | None:
        """The Asterisk that a killed engine left in this folder."""
        try:
            pid = int(self._instance.pid_file.read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            # The process id may belong to somebody else by now.
            return Process(pid) if str(self._instance.main_file).encode() in words else None
        except (OSError, ValueError):
            return None

    async def _taken_over(self, running: Process, changed: set[str]) -> bool:
        """Whether an Asterisk that runs already serves us as it is; if not, it is ended."""
        trouble = "its settings have changed"
        if changed <= RELOADABLE:
            self._process = running
            try:
                await self._ready()
                await self._reload_modules()
                log.warning("took over the Asterisk of a former engine (process %d)", running.pid)
                return True
            except AsteriskError as error:
                trouble = str(error)
        log.warning("ending the Asterisk of a former engine (process %d): %s", running.pid, trouble)
        self._process = None
        await running.end(_STOP_S)
        return False

    # -- from start to death --------------------------------------------------------------------

    async def _launch(self) -> None:
        self._check_ports()
        console = self._instance.folder / "log" / "console"
        self._log_read = self.log_file.stat().st_size if self.log_file.exists() else 0
        command = self._command("-f", "-C", str(self._instance.main_file))
        # In a session of its own, so that Ctrl-C reaches the engine alone, which then stops it in good order. Its
        # output goes to a file: the pipe to an engine that is killed would stop it at its next word.
        with console.open("wb") as output:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self._instance.folder,
                start_new_session=True,
            )
        self._process = Process(child.pid, child)
        metrics.asterisk_starts.inc()
        try:
            await self._ready()
        except BaseException:  # cancelled, too
            process, self._process = self._process, None
            await process.end(_STOP_S)
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
        await _until(self.access.ari_answers)
        await _until(self.access.ami_answers)
        sip, ports = self._instance.sip, self._instance.ports
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(sip.bind, str(sip.bind))
        if sip.udp:
            await _until(lambda: sip_answers(host, ports.sip))
        if sip.tcp:
            await _until(lambda: listens(host, ports.sip))
        if sip.tls:
            await _until(lambda: listens(host, ports.tls))

    async def _reload_modules(self) -> None:
        async with self.access.session() as session:
            for module in _RELOADED_MODULES:
                try:
                    async with (
                        asyncio.timeout(_RELOAD_S), session.put(f"ari/asterisk/modules/{module}") as response,
                    ):
                        if response.status >= 300:
                            raise AsteriskError(f"Asterisk did not reload {module}: HTTP {response.status}")
                except (aiohttp.ClientError, TimeoutError) as error:
                    raise AsteriskError(f"Asterisk did not reload {module}: {error or 'no answer'}") from None

    def _last_words(self) -> str:
        """What it complained of before it ended, for the end of a message."""
        lines: list[str] = []
        for path, begin in ((self.log_file.with_name("console"), 0), (self.log_file, self._log_read)):
            with contextlib.suppress(OSError), path.open("rb") as file:
                file.seek(max(begin, path.stat().st_size - _LOG_TAIL))
                lines += file.read().decode(errors="replace").splitlines()
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
            async with (
                asyncio.timeout(_ANSWER_S),
                self.access.session() as session, session.get("ari/asterisk/info?only=system") as response,
            ):
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
        if not await self.access.ami_answers():
            raise AsteriskError(f"no manager interface answers at {self.access.ami_host}:{self.access.ami_port}")
        metrics.asterisk_up.set(1)

    async def run(self) -> None:
        while True:
            metrics.asterisk_up.set(await self.access.ari_answers())
            await asyncio.sleep(_PROBE_S)

    async def reload(self, offices: Sequence[Office]) -> None:
        log.info("lines have changed: see to it that the Asterisk at %s knows them too", self.access.url)

    async def stop(self) -> None:
        metrics.asterisk_up.set(0)


async def _until(ask: Callable[[], Awaitable[bool]]) -> None:
    while not await ask():
        await asyncio.sleep(_LOOK_AGAIN_S)
