"""A whole PBX as its owner runs it: its own process, folder and ports, watched from outside."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterable
from contextlib import AsyncExitStack
from contextlib import asynccontextmanager
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any
from typing import TypeVar

import aiohttp
from live.carrier import Carrier
from live.phone import PATIENCE
from live.phone import Phone
from live.sound import Sound
from live.sound import tone

from pbx.asterisk import PrivateAsterisk
from pbx.clock import SystemClock
from pbx.config import load_config
from pbx.ports import Kind
from pbx.ports import PortTaken
from pbx.ports import check as check_port
from pbx.ports import free_port
from pbx.prefix import Prefix
from pbx.speech import Speech
from pbx.store import CallRecord
from pbx.store import Message
from pbx.store import Store

ROOT = Path(__file__).parent.parent.parent
_READY = "The PBX is running"
_READY_WITHIN = 60.0  # seconds; it takes about two
_STOPPED_WITHIN = 20.0
_LOOK_AGAIN = 0.05

_COMPLAINT = re.compile(r"\b(ERROR|CRITICAL|WARNING)\b|^Traceback|Error:")
# Asterisk calls these errors or warnings, but they are everyday life: a line rings whose telephone is not there, and
# a caller hangs up as he is answered, as he is hung up on, or at the very beginning of a prompt.
_ORDINARY = re.compile(
    r"Could not create dialog to invalid URI|Failed to create outgoing session to endpoint|Playback failed for sound:"
    r"|Failed to answer channel|Session already DISCONNECTED"
)

T = TypeVar("T")


class Pbx:
    """A PBX on free ports with everything it writes in `folder`, and a `carrier` at the other end of its one trunk."""

    def __init__(self, folder: Path, prefix: Prefix) -> None:
        self.folder = folder
        self.var = folder / "var"
        self.output: list[str] = []
        self._prefix = prefix
        self._people = AsyncExitStack()
        self._speech = Speech(self.var / "speech", prefix)
        self._prompts: dict[str, Sound] = {}
        self._phones = 0
        self._ready = asyncio.Event()

    # From start to stop

    async def start(self, *plans: Path, rings_for: str = "") -> None:
        """Starts it and returns when it takes calls.

        It gets copies of the plans, in which groups and lines ring for `rings_for` ("3s") instead of what they say.
        """
        self.folder.mkdir(parents=True)
        trunk_port = free_port("127.0.0.1", ("udp", "tcp"), in_a_row=2)
        self._api_port = free_port("127.0.0.1", ("tcp",), {trunk_port})
        self._config_file = self._write_config(self._copies(plans, rings_for), trunk_port)
        await self.starts_again()
        self.config = load_config(self._config_file, {})
        # Not started, only asked: the PBX's own process has it.
        self.asterisk = PrivateAsterisk(self.config, app=f"pbx-{self.config.worker}")
        self.store = Store(self.config.database_url, clock=SystemClock(), spool=None)
        await self.store.open()
        self.server = f"127.0.0.1:{self.asterisk.sip_port}"
        self.carrier = Carrier(
            self.folder / "carrier", self._prefix, self._people, server=self.server, port=trunk_port,
            noticed=self.trunk_is_up,
        )
        self.forget_the_past()

    async def starts_again(self) -> None:
        """Starts it in its folder and returns when it takes calls."""
        self._ready.clear()
        with self.log_file.open("ab") as log:
            self._process = await self._run_program(stdout=asyncio.subprocess.PIPE, stderr=log)
        self._reading = asyncio.create_task(self._read_output())
        await self._is_ready()

    async def starts_twice(self) -> tuple[int, str]:
        """Starts another one in the same folder; gives its exit status and what it complained of."""
        process = await self._run_program(stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE)
        try:
            _, complaint = await asyncio.wait_for(process.communicate(), _READY_WITHIN)
        except TimeoutError:
            process.terminate()
            raise
        return await process.wait(), complaint.decode()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends all telephones, then the PBX. Gives its exit status; -9 when it had to be killed."""
        await self.everybody_leaves()
        if self._process.returncode is None:
            self.signal(number)
        status = await self.ended()
        await self.store.close()
        return status

    async def everybody_leaves(self) -> None:
        """Ends all telephones."""
        await self._people.aclose()

    def forget_the_past(self) -> None:
        """From now on says nothing of the records, messages and problems there have been so far."""
        self._since = datetime.now(UTC)
        self._read_from = {log: log.stat().st_size if log.exists() else 0 for log in self._logs()}

    async def ended(self) -> int:
        """Waits for the end of the PBX alone."""
        try:
            status = await asyncio.wait_for(self._process.wait(), _STOPPED_WITHIN)
        except TimeoutError:
            self._process.kill()
            status = await self._process.wait()
        await self._reading
        return status

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def takes_calls(self, *, within: float = _READY_WITHIN) -> None:
        """Waits until it is connected to its Asterisk."""

        async def connected() -> bool:
            async with self._session() as session:
                async with session.get(f"http://127.0.0.1:{self._api_port}/readyz") as response:
                    return response.status == 200

        await _until(connected, "the PBX takes calls", within)

    # People and what they hear

    async def handset(
        self, line: str, *, tenant: str = "acme", playing: Sound | None = None, wideband: bool = False
    ) -> Phone:
        """The registered telephone of a line; it says `playing`, a tone of 440 Hz unless given."""
        self._phones += 1
        identity = f"{tenant}-{line}"
        folder = self.folder / "phones" / f"{identity}-{self._phones}"
        phone = Phone(identity, folder, self._prefix, wideband=wideband)
        await phone.start(playing or tone(440, 60))
        self._people.push_async_callback(phone.stop)
        await phone.registers(f"{identity}@{self.server}", self.asterisk.password(identity))
        return phone

    async def spoken(self, text: str, language: str = "fr") -> Sound:
        """How the PBX says a text."""
        media = await self._speech.sound(text, language)
        return Sound.read(Path(media.removeprefix("sound:")).with_suffix(".wav16"))

    async def prompt(self, name: str, language: str = "fr") -> Sound:
        """One of Asterisk's recorded prompts ("vm-goodbye")."""
        key = f"{language}/{name}"
        if key not in self._prompts:
            source = self.var / f"asterisk-{self.config.node}" / "share" / "sounds" / f"{key}.g722"
            target = self.folder / "prompts" / f"{key.replace('/', '-')}.sln16"
            target.parent.mkdir(exist_ok=True)
            # Asterisk alone can read G.722 here. The product has no use for its converter, so it is not loaded yet.
            if not self._prompts:
                await self.asterisk_cli("module load res_convert.so")
            answer = await self.asterisk_cli(f"file convert {source} {target}")
            assert target.exists(), f"there is no prompt {key}: {answer}"
            self._prompts[key] = Sound.read(target)
        return self._prompts[key]

    # What is known of calls

    async def record(self, caller: str, *, within: float = PATIENCE) -> CallRecord:
        """The newest record of a call from `caller`, once it is written."""

        async def written() -> CallRecord | None:
            records = await self.store.calls(since=self._since)
            return next((record for record in records if record.caller_number == caller), None)

        return await _until(written, f"a record of a call from {caller}", within)

    async def records(self, count: int, *, within: float = PATIENCE) -> list[CallRecord]:
        """All records, newest first, once there are at least `count`."""

        async def written() -> list[CallRecord] | None:
            found = await self.store.calls(since=self._since, limit=count + 100)
            return found if len(found) >= count else None

        return await _until(written, f"{count} records", within)

    async def messages(self, box: str, *, tenant: str = "acme") -> list[Message]:
        messages = await self.store.messages(tenant, box)
        return [message for message in messages if message.recorded_at >= self._since]

    def recording(self, message: Message) -> Sound:
        """The sound of a voicemail message."""
        files = list(self.asterisk.recordings.glob(f"{message.file}.*"))
        assert len(files) == 1, f"{message.file} is stored as {files or 'nothing'}"
        return Sound.read(files[0])

    async def api(self, path: str) -> Any:
        async with self._session() as session:
            async with session.get(f"http://127.0.0.1:{self._api_port}{path}") as response:
                assert response.status == 200, await response.text()
                return await response.json()

    async def metrics(self) -> dict[str, float]:
        """Every sample of /metrics by its name and labels, as printed."""
        async with self._session() as session:
            async with session.get(f"http://127.0.0.1:{self._api_port}/metrics") as response:
                lines = (await response.text()).splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    # What must not be there

    async def is_idle(self, *, within: float = PATIENCE) -> None:
        """Waits until no call, channel or bridge is left."""
        left: list[str] = []

        async def nothing() -> bool:
            left[:] = await self.leftovers()
            return not left

        await _until(nothing, "the PBX is idle", within, lambda: f"left over: {', '.join(left)}")

    async def leftovers(self) -> list[str]:
        found = [f"call {call['id']}" for call in (await self.api("/calls"))["calls"]]
        for kind in ("channels", "bridges"):
            found += [f"{kind[:-1]} {item['id']}" for item in await self._ari(kind)]
        return found

    def problems(self) -> list[str]:
        """Lines of the engine's and of Asterisk's log that tell of something that should not be."""
        new = [log.read_bytes()[begin:] for log, begin in self._read_from.items() if log.exists()]
        lines = [line for text in new for line in text.decode(errors="replace").splitlines()]
        return [line for line in lines if _COMPLAINT.search(line) and not _ORDINARY.search(line)]

    def remains(self) -> list[str]:
        """Processes and ports that are still there after a stop."""
        found = [f"process {words}" for words in _processes_naming(str(self.folder))]
        listened: list[tuple[int, tuple[Kind, ...]]] = [
            (self.asterisk.sip_port, ("udp", "tcp")), (self._api_port, ("tcp",)),
        ]
        for port, kinds in listened:
            try:
                check_port("127.0.0.1", port, kinds)
            except PortTaken as error:
                found.append(str(error))
        return found

    # Inside

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def asterisk_pid(self) -> int:
        return int((self.var / f"asterisk-{self.config.node}" / "run" / "asterisk.pid").read_text())

    @property
    def log_file(self) -> Path:
        return self.folder / "log"

    async def _ari(self, path: str) -> Any:
        access = self.asterisk.access
        header = {"Authorization": aiohttp.encode_basic_auth(access.user, access.password)}
        async with aiohttp.ClientSession(headers=header) as session:
            async with session.get(f"{access.url}/ari/{path}") as response:
                return await response.json()

    async def trunk_is_up(self) -> None:
        # Asterisk looks for its trunks once a minute, and has looked in vain so far.
        await self.asterisk_cli("pjsip qualify trunk-carrier")

        async def online() -> bool:
            return bool((await self._ari("endpoints/PJSIP/trunk-carrier"))["state"] == "online")

        await _until(online, "the trunk is up", PATIENCE)

    def _logs(self) -> tuple[Path, Path]:
        return self.log_file, self.asterisk.log_file

    async def asterisk_cli(self, command: str) -> str:
        config = self.var / f"asterisk-{self.config.node}" / "etc" / "asterisk.conf"
        process = await asyncio.create_subprocess_exec(
            *self._prefix.command("asterisk"), "-C", str(config), "-rx", command, stdout=asyncio.subprocess.PIPE
        )
        answer, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
        return answer.decode()

    def _copies(self, plans: Iterable[Path], rings_for: str) -> Path:
        folder = self.folder / "plans"
        folder.mkdir()
        for plan in plans:
            text = plan.read_text("utf-8")
            (folder / plan.name).write_text(re.sub(r"\bfor: \d+s", f"for: {rings_for}", text) if rings_for else text)
        return folder

    def _write_config(self, plans: Path, trunk_port: int) -> Path:
        path = self.folder / "pbx.yml"
        path.write_text(
            f"var: {self.var}\n"
            f"plans: {plans}\n"
            "sip: {bind: 127.0.0.1, port: auto}\n"
            "rtp: auto\n"
            f"api: {{port: {self._api_port}}}\n"
            f"asterisk: {{private: {{prefix: {self._prefix.path or 'none'}}}}}\n"
            f"trunks: {{carrier: {{host: 127.0.0.1, port: {trunk_port}, codecs: [alaw]}}}}\n"
        )
        return path

    def _session(self) -> aiohttp.ClientSession:
        token = (self.var / "api-token").read_text().strip()
        return aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"})

    async def _run_program(self, **streams: Any) -> asyncio.subprocess.Process:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PBX_")}
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pbx", "--config", str(self._config_file), stdin=asyncio.subprocess.DEVNULL,
            cwd=ROOT, env=environment, **streams,
        )

    async def _read_output(self) -> None:
        assert self._process.stdout
        async for line in self._process.stdout:
            self.output.append(line.decode().rstrip())
            if _READY in self.output[-1]:
                self._ready.set()

    async def _is_ready(self) -> None:
        ready, ended = asyncio.create_task(self._ready.wait()), asyncio.create_task(self._process.wait())
        await asyncio.wait({ready, ended}, timeout=_READY_WITHIN, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        ended.cancel()
        if not self._ready.is_set():
            if self._process.returncode is None:
                self.signal(signal.SIGTERM)
            status = await self.ended()
            raise AssertionError(f"the PBX does not start (exit status {status}):\n{self.log_file.read_text()}")


@asynccontextmanager
async def running(folder: Path, prefix: Prefix, *plans: Path, rings_for: str = "") -> AsyncIterator[Pbx]:
    """A PBX that is stopped at the end, and proves then that nothing of it is left."""
    pbx = Pbx(folder, prefix)
    await pbx.start(*plans, rings_for=rings_for)
    try:
        yield pbx
    finally:
        status = await pbx.stop()
    assert status == 0, f"exit status {status}:\n{pbx.log_file.read_text()}"
    assert pbx.remains() == []


async def _until(
    happened: Callable[[], Awaitable[T | None]], what: str, within: float, excuse: Callable[[], str] = str
) -> T:
    """Asks until the answer is something. Fails the test when the time is over."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while not (result := await happened()):
        assert loop.time() < deadline, f"{what}: not within {within:g} s. {excuse()}"
        await asyncio.sleep(_LOOK_AGAIN)
    return result


def _processes_naming(text: str) -> list[str]:
    """Command lines of this machine's processes in which `text` occurs."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended
            continue
        if text in words:
            found.append(words)
    return found
