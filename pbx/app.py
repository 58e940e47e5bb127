"""Builds the whole PBX from its configuration, starts it in order, and stops it in the opposite order."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator
from collections.abc import Callable
from collections.abc import Coroutine
from collections.abc import Iterable
from contextlib import AsyncExitStack
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from pbx.ami import Ami
from pbx.api import Registration
from pbx.api import Services as Shown
from pbx.api import application
from pbx.api.auth import token
from pbx.ari import Ari
from pbx.ari_http import HttpWire
from pbx.asterisk import Asterisk
from pbx.asterisk import PrivateAsterisk
from pbx.asterisk import asterisk_of
from pbx.clock import Clock
from pbx.clock import SystemClock
from pbx.config import Config
from pbx.config import Trunk
from pbx.contract import Contracts
from pbx.contract import NoContract
from pbx.contract import load_contracts
from pbx.dialplan import Plans
from pbx.dialplan import load_plans
from pbx.emergency import Centres
from pbx.emergency import Tables
from pbx.emergency import load_tables
from pbx.emergency_call import EmergencyCalls
from pbx.emergency_call import Way
from pbx.engine import Engine
from pbx.engine import Identity
from pbx.instance import office
from pbx.links import Installation
from pbx.policy import Gate
from pbx.policy import Tenant
from pbx.policy import build_policies
from pbx.ports import PortTaken
from pbx.ports import check as check_port
from pbx.ports import free_port
from pbx.prefix import Prefix
from pbx.speech import EspeakVoice
from pbx.speech import Speech
from pbx.speech import SpeechError
from pbx.step import Services
from pbx.store import AnyStore
from pbx.store import Store
from pbx.yamlfile import Problem
from pbx.yamlfile import Problems
from pbx.yamlfile import load

log = logging.getLogger(__name__)

CONTRACTS = Path("config/contracts")
CONNECT_S = 10.0  # Asterisk answers already; the event stream opens at once or something is wrong


class AppError(Exception):
    """The PBX cannot start, or cannot go on; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Pbx:
    """A running PBX, as it tells its operator."""

    config: Config
    plans: Plans
    asterisk: Asterisk
    api_port: int

    def welcome(self) -> str:
        """How to register a handset on each line, which numbers to dial, and where API and metrics are."""
        lines = [f"  {line.user:<16} {line.name:<24} server {line.server}" for line in self.registrations()]
        numbers = [
            f"  {number:<16} {answers.flow or answers.group or answers.line} ({plan.tenant})"
            for plan in self.plans for number, answers in plan.answers.items()
        ]
        api = f"http://{self.config.api.bind}:{self.api_port}"
        return "\n".join((
            "", "Handsets (SIP user, who, server):", *lines,
            f"  their passwords are in {self._secrets()}, below [lines]",
            "", "Numbers to dial (from a handset, or from outside through a trunk):", *numbers,
            "  a line's own number, *98 for voicemail",
            "", f"API      {api}  (token in {self.config.var / 'api-token'})",
            f"Metrics  {api}/metrics",
            "", "The PBX is running. Ctrl-C stops it.",
        ))

    def registrations(self) -> Iterable[Registration]:
        host = self.config.sip.bind if self.config.sip.bind not in ("0.0.0.0", "::") else _own_address()
        port = self.asterisk.sip_port if isinstance(self.asterisk, PrivateAsterisk) else 5060
        for plan in self.plans:
            for line in plan.lines.values():
                yield Registration(
                    tenant=plan.tenant, line=line.id, name=line.name, server=f"{host}:{port}",
                    user=plan.identity(line), password_file=self._secrets(),
                )

    def _secrets(self) -> str:
        if isinstance(self.asterisk, PrivateAsterisk):
            return str(self.asterisk.secrets_file)
        return "the configuration of your own Asterisk"


async def serve(config: Config, *, tell: Callable[[str], None]) -> None:
    """Runs the PBX until SIGINT or SIGTERM. `tell` gets what an operator should read.

    Raises AppError, and what its parts raise when they cannot start: Problems, StoreError, AsteriskError.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with running(config, on_failure=stop.set) as (pbx, failures):
        tell(pbx.welcome())
        await stop.wait()
        tell("Stopping: calls are released, records written.")
    if failures:
        raise AppError(f"stopped because a part of the PBX failed: {failures[0]}")


@asynccontextmanager
async def running(
    config: Config, *, on_failure: Callable[[], None]
) -> AsyncIterator[tuple[Pbx, list[BaseException]]]:
    """Starts every part, and stops them again in the opposite order, whatever happens.

    `on_failure` is called when a part that should run for ever ends; its error is then in the list given.
    """
    clock = SystemClock()
    app = f"pbx-{config.worker}"
    trunks = {str(name): country_of(trunk, config) for name, trunk in config.trunks.items() if trunk.enabled}
    plans = load_plans(config.plans, installation(config))
    emergencies = emergency_calls(config)
    failures: list[BaseException] = []
    _make_folder(config.var)
    async with AsyncExitStack() as stack:

        async def background(work: Coroutine[Any, Any, None], name: str) -> None:
            task = asyncio.create_task(work, name=name)
            stack.push_async_callback(_cancel, task)
            task.add_done_callback(lambda done: _note_failure(done, failures, on_failure))

        store = Store(config.database_url, clock=clock, spool=config.var / f"spool-{config.node}-{config.worker}")
        gate = gate_of(plans, load_contracts(CONTRACTS), store, clock)
        stack.push_async_callback(store.close)
        await store.open()
        stack.push_async_callback(gate.close)
        await gate.open()
        identity = Identity(config.node, config.worker, await store.next_epoch(config.node, config.worker))

        _api_port(config)  # a port that is taken is better told now than when everything else runs
        asterisk = asterisk_of(config, app=app)
        stack.push_async_callback(asterisk.stop)
        await asterisk.start([office(plan) for plan in plans])
        await background(asterisk.run(), "asterisk")

        speech = _speech(config)
        stack.push_async_callback(speech.close)
        await background(_warm(speech, plans, gate), "speech")

        access = asterisk.access
        ami = Ami(access.ami_host, access.ami_port, access.ami_user, access.ami_password)
        await background(ami.run(), "ami")
        await _light_lamps(ami, store, plans)

        ari = Ari(HttpWire(access.url, access.user, access.password), app, clock=clock)
        services = Services(store, ami.lamp)
        engine = Engine(
            ari, plans, services, app=app, identity=identity, clock=clock, speaker=speech, trunks=trunks,
            emergencies=emergencies, gate=gate,
        )
        await background(ari.run(), "ari")
        stack.push_async_callback(engine.stop)
        await _connected(ari)

        port = await _serve_api(stack, config, ari, store, engine, pbx := _Later())
        pbx.value = Pbx(config, plans, asterisk, port)
        log.info("engine %s.%s.%d is ready, %d lines", identity.node, identity.worker, identity.epoch, _lines(plans))
        yield pbx.value, failures


class _Later:
    """What the API shows of the PBX, which is complete only when the API runs."""

    value: Pbx


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AppError(
            f'the folder {folder} cannot be made: {error.strerror}. Set another "var" in config/pbx.yml'
        ) from None


def installation(config: Config) -> Installation:
    """What the plans of this PBX may refer to. Raises Problems when a contract profile is wrong."""
    trunks = {str(name): trunk for name, trunk in config.trunks.items() if trunk.enabled}
    contracts = list(load_contracts(CONTRACTS).versions)
    national = {name: country_of(trunk, config) for name, trunk in trunks.items() if trunk.numbers == "national"}
    sounds = sounds_of(prefix_of(config))
    emergency = emergency_tables(config)
    return Installation(
        trunks=list(trunks), contracts=contracts or None, sounds=sounds or None, national=national, emergency=emergency
    )


def emergency_calls(config: Config) -> EmergencyCalls:
    """What emergency calls have to go out by. Raises Problems: tables and lists that are wrong."""
    settings = config.emergency
    ways = [
        Way(str(name), trunk.translation, country_of(trunk, config) if trunk.numbers == "national" else None)
        for name, trunk in config.trunks.items() if trunk.enabled
    ]
    return EmergencyCalls(
        ways, emergency_tables(config), country=str(config.country), domain=str(settings.domain or "") or None,
        centres=load(settings.centres, Centres) if settings.centres else None,
    )


def emergency_tables(config: Config) -> Tables:
    """The tables that come with the PBX, or stand in the folder `emergency` beside its configuration."""
    return load_tables(Path(config.where.file).parent / "emergency")


def sounds_of(prefix: Prefix) -> set[str]:
    """Asterisk's own sounds, as plans name them ("vm-goodbye", "digits/1"); it falls back to English ones."""
    folders = [*(prefix.data / "sounds").glob("en*")]
    return {
        str(file.relative_to(folder).with_suffix("")) for folder in folders for file in folder.rglob("*.*")
    }


def gate_of(plans: Plans, contracts: Contracts, store: AnyStore, clock: Clock) -> Gate:
    """The gate with the policies of every tenant's contract. Raises Problems: all that is wrong with any of them."""
    policies = {}
    problems: list[Problem] = []
    for plan in plans:
        if plan.contract is None or not contracts.versions:
            log.info("tenant %s is held to no contract", plan.tenant)
            continue
        try:
            profile = contracts.valid(plan.contract, clock.now().astimezone(plan.zone).date())
            tenant = Tenant(plan.tenant, plan.zone, list(plan.lines))
            policies[plan.tenant] = build_policies(tenant, profile, store=store, clock=clock)
        except NoContract as error:
            problems.append(Problem(plan.where, str(error)))
        except Problems as error:
            problems += error.problems
    if problems:
        raise Problems(problems)
    return Gate(policies)


def country_of(trunk: Trunk, config: Config) -> str:
    """Whose national numbers a trunk writes."""
    return str(trunk.country or config.country)


def _speech(config: Config) -> Speech:
    prefix = prefix_of(config)
    voices = {str(language): str(voice) for language, voice in config.speech.voices.items()}
    voice = EspeakVoice(prefix, voices, words_per_minute=config.speech.words_per_minute)
    return Speech(config.var / "speech", prefix, voice)


def prefix_of(config: Config) -> Prefix:
    """The folder that asterisk/install made, or the system's own programs when there is none."""
    private = config.asterisk.private
    folder = private.prefix if private else Path("var/asterisk")
    return Prefix(folder if folder.is_dir() else None)


async def _warm(speech: Speech, plans: Plans, gate: Gate) -> None:
    """Speaks all texts of plans and contracts before a caller needs them; then there is nothing left to do."""
    try:
        announced = [words for one in gate.announcements for words in ((one.fr, "fr"), (one.en, "en"))]
        await speech.warm([*(text for plan in plans for text in plan.texts), *announced])
    except SpeechError as error:
        log.error("texts cannot be spoken, callers will not hear them: %s", error)
    await asyncio.Event().wait()


async def _light_lamps(ami: Ami, store: Store, plans: Plans) -> None:
    """Message lamps live in Asterisk's memory only: at start all of them are told again."""
    counts = await store.counts()
    for plan in plans:
        for line in plan.lines.values():
            boxes = [counts.get((plan.tenant, box), (0, 0)) for box in plan.boxes_of(line)]
            if any(new or old for new, old in boxes):
                await ami.lamp(plan.identity(line), sum(new for new, _ in boxes), sum(old for _, old in boxes))


async def _connected(ari: Ari) -> None:
    try:
        async with asyncio.timeout(CONNECT_S):
            await ari.connected.wait()
    except TimeoutError:
        raise AppError("Asterisk runs, but its event stream does not open: its log may say why") from None


async def _serve_api(
    stack: AsyncExitStack, config: Config, ari: Ari, store: Store, engine: Engine, pbx: _Later
) -> int:
    """Opens the HTTP API and gives its port."""
    shown = Shown(
        store=store,
        token=token(config.var / "api-token"),
        checks={"asterisk": lambda: "" if ari.connected.is_set() else "no event stream from Asterisk"},
        calls=lambda: [call.record for call in engine.calls.values()],
        lines=lambda: pbx.value.registrations(),
    )
    runner = web.AppRunner(application(shown), access_log=None)
    stack.push_async_callback(runner.cleanup)
    await runner.setup()
    port = _api_port(config)
    await web.TCPSite(runner, config.api.bind, port, shutdown_timeout=1.0).start()
    return port


def _api_port(config: Config) -> int:
    """Raises AppError when the API cannot listen there."""
    bind, port = config.api.bind, config.api.port
    try:
        if port == "auto":
            return free_port(bind, ("tcp",))
        check_port(bind, port, ("tcp",))
        return port
    except PortTaken as error:
        raise AppError(f'{error}: stop that, or set "api: {{port: ...}}" in config/pbx.yml to another port') from None


def _note_failure(task: asyncio.Task[None], failures: list[BaseException], on_failure: Callable[[], None]) -> None:
    if task.cancelled():
        return
    error = task.exception() or AppError(f"{task.get_name()} ended")
    log.critical("%s failed: %s", task.get_name(), error, exc_info=error)
    failures.append(error)
    on_failure()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _own_address() -> str:
    """The address by which handsets of the local network reach this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Of UDP, nothing is sent by this: the kernel only looks up which way it would go.
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _lines(plans: Plans) -> int:
    return sum(len(plan.lines) for plan in plans)
