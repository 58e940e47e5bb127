"""The folder of one Asterisk: its ports, its passwords, and the configuration files rendered from asterisk/*.j2."""

from __future__ import annotations

import configparser
import functools
import hashlib
import json
import os
import random
import resource
import secrets
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import Literal

from jinja2 import Environment
from jinja2 import FileSystemLoader
from jinja2 import StrictUndefined

from pbx import __version__
from pbx.location import civic
from pbx.ports import FIRST_FREE
from pbx.ports import LAST_FREE
from pbx.ports import free_port

if TYPE_CHECKING:
    from pbx.config import Rtp
    from pbx.config import Sip
    from pbx.config import Trunk
    from pbx.dialplan import Plan
    from pbx.prefix import Prefix
    from pbx.tenant import Line

TEMPLATES = Path(__file__).parent.parent / "asterisk"
# What a running Asterisk takes over without a restart. Listeners and modules are not among it.
RELOADABLE = frozenset({"pjsip_lines.conf", "pjsip_trunks.conf", "extensions.conf"})

_RTP_PORTS = 2_000  # 1,000 legs at once, for an instance that chooses its ports itself
_LOOPBACK = "127.0.0.1"
# Their defaults are right, but Asterisk logs an error for each that is not there.
_EMPTY = (
    "acl.conf", "ccss.conf", "features.conf", "geolocation.conf", "minivm.conf", "pjproject.conf", "statsd.conf",
    "udptl.conf", "websocket_client.conf",
)
# Languages of prompts, and what their folders are called by the packages of Asterisk's sounds.
_SOUND_FOLDERS = {"en": ("en", "en_US*", "en*"), "fr": ("fr", "fr_*")}
# Read from a handset's display and typed on its keys: no capitals, no letters that look like digits.
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
_PASSWORD_LENGTH = 16  # 80 bits


@dataclass(frozen=True, slots=True)
class Handset:
    """A line as Asterisk knows it.

    `identity` is its SIP user name ("acme-101"), `number` what colleagues dial ("101"). An emergency call shows the
    E.164 number `shown`, and tells the `place` (see location.civic); empty if there is none.
    """

    identity: str
    number: str
    name: str
    language: str
    shown: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True)
class Office:
    """A tenant as Asterisk knows it: its handsets, and who gets its calls while there is no engine.

    `emergency` leads from each way to dial an emergency number to the number itself, `rings` from a company number in
    E.164 to the identities that ring for it.
    """

    tenant: str
    languages: Sequence[str]
    handsets: Sequence[Handset]
    emergency: Mapping[str, str]
    rings: Mapping[str, Sequence[str]]


def office(plan: Plan) -> Office:
    """What Asterisk must know of a plan. A number answered by a flow rings the first line while there is no engine."""
    handsets = [_handset(plan, line) for line in plan.lines.values()]
    emergency: dict[str, str] = {}
    for site in (*plan.sites.values(), None):
        country = (site.country if site else None) or plan.country
        prefix = (site.outside_prefix if site else None) or ""
        for number in (one.number for one in plan.emergencies.numbers(country)):
            emergency |= {number: number, prefix + number: number}
    rings: dict[str, Sequence[str]] = {}
    for number, answers in plan.answers.items():
        ringing: Sequence[str]
        if answers.line is not None:
            ringing = [answers.line]
        elif answers.group is not None:
            ringing = plan.groups[answers.group].lines
        else:
            ringing = list(plan.lines)[:1]
        if number.startswith("+") and ringing:
            rings[number] = [plan.identity(plan.lines[line]) for line in ringing]
    return Office(plan.tenant, plan.languages, handsets, emergency, rings)


def _handset(plan: Plan, line: Line) -> Handset:
    site, language = plan.site_of(line), line.language or plan.language
    place = civic(site.address, country=plan.country_of(site), language=language) if site.address else ""
    return Handset(
        plan.identity(line), line.id, line.name, language, plan.shown_in_emergency(line).number, place
    )


@dataclass(frozen=True, slots=True)
class Ports:
    """Where an instance listens; `tls` is 0 without TLS."""

    sip: int
    tls: int
    http: int
    ami: int
    rtp_first: int
    rtp_last: int


class Secrets:
    """Passwords in a file that its owner alone may read. A new one is made when it is first asked for.

    The file is the place to change one by hand: [lines] acme-101 = ...
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._passwords = configparser.RawConfigParser(delimiters=("=",), comment_prefixes=("#",))
        self._passwords.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their capitals
        self._passwords.read(path, "utf-8")

    def password(self, section: str, name: str) -> str:
        """The password of `name` in `section`. One that is new is kept only from `save` on."""
        if not self._passwords.has_section(section):
            self._passwords.add_section(section)
        if not self._passwords.has_option(section, name):
            self._passwords.set(section, name, "".join(secrets.choice(_ALPHABET) for _ in range(_PASSWORD_LENGTH)))
        return self._passwords.get(section, name)

    def save(self) -> None:
        """Raises OSError."""
        new = self.path.with_suffix(".new")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            self._passwords.write(file)
        new.replace(self.path)


class Instance:
    """One Asterisk's folder. Everything here blocks on the disk for some milliseconds and raises OSError.

    `app` is the ARI application that calls are handed over to; `trunks` are by name, those in use only.
    """

    def __init__(
        self, folder: Path, prefix: Prefix, sip: Sip, rtp: Rtp | Literal["auto"], trunks: Mapping[str, Trunk], *,
        node: str, app: str,
    ) -> None:
        self.folder = folder.absolute()
        self.prefix = prefix
        self.sip = sip
        self.rtp = rtp
        self.trunks = trunks
        self.node = node
        self.app = app
        for name in ("etc", "lib/keys", "log", "run", "share/sounds", "spool/recording", "cache"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self.secrets = Secrets(self.folder / "secrets.ini")
        self.ports = self._remembered_ports() or self.choose_ports()

    @property
    def pid_file(self) -> Path:
        return self.folder / "run" / "asterisk.pid"

    @property
    def main_file(self) -> Path:
        return self.folder / "etc" / "asterisk.conf"

    def choose_ports(self) -> Ports:
        """Ports as the configuration says, and free ones where it leaves the choice; remembered for the next start."""
        first, last = _rtp_range(self.rtp)
        taken = set(range(first, last + 1))
        sip, tls = self.sip.port, self.sip.tls.port if self.sip.tls else 0
        if sip == "auto":
            taken.add(sip := free_port(self.sip.bind, ("udp", "tcp"), taken))
        if tls == "auto":
            taken.add(tls := free_port(self.sip.bind, ("tcp",), taken))
        http = free_port(_LOOPBACK, ("tcp",), taken)
        ami = free_port(_LOOPBACK, ("tcp",), taken | {http})
        self.ports = Ports(sip, tls, http, ami, first, last)
        (self.folder / "ports.json").write_text(json.dumps(asdict(self.ports)) + "\n")
        return self.ports

    def write(self, offices: Sequence[Office], only: frozenset[str] | None = None) -> set[str]:
        """Renders the configuration files, all or `only` some, and gives the names of those that changed."""
        self._link_shared_files()
        texts = {name: self._render(name, offices) for name in _files() if only is None or name in only}
        self.secrets.save()
        return {name for name, text in texts.items() if _write(self.folder / "etc" / name, text)}

    def required_modules(self) -> list[str]:
        """Modules without which Asterisk does not start, as written."""
        lines = (self.folder / "etc" / "modules.conf").read_text("utf-8").splitlines()
        return [line.partition("=")[2].strip() for line in lines if line.startswith("require")]

    def _remembered_ports(self) -> Ports | None:
        """The ports of the last start, unless the configuration says otherwise by now."""
        try:
            ports = Ports(**json.loads((self.folder / "ports.json").read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        tls = self.sip.tls.port if self.sip.tls else 0
        range_now = None if self.rtp == "auto" else (self.rtp.first, self.rtp.last)
        fits = (
            self.sip.port in ("auto", ports.sip)
            and (tls == ports.tls or tls == "auto" and ports.tls > 0)
            and range_now in (None, (ports.rtp_first, ports.rtp_last))
        )
        return ports if fits else None

    def _link_shared_files(self) -> None:
        """Asterisk has one data folder: ours, with links to the sounds and documents of the installation."""
        share = self.folder / "share"
        for language, patterns in _SOUND_FOLDERS.items():
            found = (folder for pattern in patterns for folder in sorted((self.prefix.data / "sounds").glob(pattern)))
            if target := next(found, None):
                _link(share / "sounds" / language, target)
        _link(share / "sounds" / "pbx", TEMPLATES / "sounds")
        # Not for reading: without its own documentation Asterisk refuses options that it knows perfectly well.
        for name in ("documentation", "moh", "rest-api"):
            _link(share / name, self.prefix.data / name)

    def _render(self, name: str, offices: Sequence[Office]) -> str:
        if name in _EMPTY:
            return ""
        modules = self.prefix.modules
        return _templates().get_template(f"{name}.j2").render(
            header=f"Written by the PBX from asterisk/{name}.j2: what is changed here is lost at the next start.",
            version=__version__,
            node=self.node,
            app=self.app,
            folder=self.folder,
            modules_folder=modules,
            available_modules={file.stem for file in modules.glob("*.so")},
            entity_id=_entity_id(self.folder),
            max_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
            ports=self.ports,
            sip=self.sip,
            bind=f"[{self.sip.bind}]" if ":" in self.sip.bind else self.sip.bind,
            trunks=self.trunks,
            offices=offices,
            password=self.secrets.password,
        )


@functools.cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False, finalize=_harmless,
    )
    environment.filters["last_digits"] = last_digits
    return environment


def _files() -> list[str]:
    return [*(file.removesuffix(".j2") for file in _templates().list_templates(extensions=["j2"])), *_EMPTY]


def _harmless(value: Any) -> Any:
    """A value as it can stand in a configuration file: on one line, and without starting a comment."""
    if isinstance(value, str):
        return "".join(char if char.isprintable() else " " for char in value).replace(";", "\\;")
    return value


def last_digits(number: str) -> str:
    """By which a dialled number is found without an engine: carriers write one number in several ways.

    The last nine digits are the same in +33199000100 and 0199000100.
    """
    return "".join(char for char in number if char.isdigit())[-9:]


def _rtp_range(rtp: Rtp | Literal["auto"]) -> tuple[int, int]:
    if rtp != "auto":
        return rtp.first, rtp.last
    # Not checked: Asterisk itself passes over ports that are taken.
    first = random.randrange(FIRST_FREE, LAST_FREE - _RTP_PORTS, 2)
    return first, first + _RTP_PORTS - 1


def _entity_id(folder: Path) -> str:
    """Tells instances apart, as a MAC address does; without it those of one machine all have the same."""
    digest = hashlib.sha256(str(folder).encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))


def _link(link: Path, target: Path) -> None:
    if not (link.is_symlink() and link.readlink() == target):
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def _write(path: Path, text: str) -> bool:
    """Whether the file had another text. Passwords are in some of them."""
    try:
        if path.read_text("utf-8") == text:
            return False
    except FileNotFoundError:
        pass
    new = path.with_name(path.name + ".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)
    return True
