"""The PBX's own configuration, config/pbx.yml; docs/configuration.md explains every key.

Paths are relative to the folder the PBX is started in. No secret stands in the file: it names the file or the variable
that holds it. A few values can be set by the environment instead, see ENVIRONMENT.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping as Environment
from pathlib import Path
from typing import Annotated
from typing import Any
from typing import Literal
from typing import Self
from urllib.parse import quote
from urllib.parse import urlsplit

from pydantic import AfterValidator
from pydantic import BeforeValidator
from pydantic import Field
from pydantic import PrivateAttr
from pydantic import ValidationInfo
from pydantic import model_validator
from pydantic.json_schema import SkipJsonSchema

from pbx import numbers
from pbx.yamlfile import Mapping
from pbx.yamlfile import Model
from pbx.yamlfile import Problem
from pbx.yamlfile import Problems
from pbx.yamlfile import Text
from pbx.yamlfile import Where
from pbx.yamlfile import load

_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"

# What the environment may set, and the key that it replaces.
ENVIRONMENT = {"PBX_DATABASE_URL": "database", "PBX_NODE": "node", "PBX_PLANS": "plans", "PBX_VAR": "var"}


def _name(text: Text) -> Text:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", text):
        raise ValueError(f'"{text}" is no name: small letters, digits and "-", a letter first, at most 31 of them')
    return text


def _country(text: Text) -> Text:
    if text not in numbers.COUNTRIES:
        raise ValueError(f'no country "{text}" (write the two letters of ISO 3166, as in FR)')
    return text


def _host(text: Text) -> Text:
    if not re.fullmatch(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*\.?", text) and not _address(text):
        raise ValueError(f'"{text}" is neither a host name nor an address; the port, if any, has a key of its own')
    return text


def _bind(text: Text) -> Text:
    if not _address(text):
        raise ValueError(f'"{text}" is no address: write 0.0.0.0 to listen on all of them')
    return text


def _loopback(text: Text) -> Text:
    address = _address(text)
    if not address or not address.is_loopback:
        raise ValueError(f'the API does not encrypt, so it listens on 127.0.0.1 only, not on "{text}"')
    return text


def _network(text: Text) -> Text:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(f'"{text}" is neither an address (192.0.2.7) nor a network (192.0.2.0/24)') from None
    return text


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _file(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f'there is no file "{path}"')
    return path


def _database_url(text: Text) -> Text:
    if not re.match(r"(sqlite|postgres|postgresql)(\+\w+)?://", text):
        raise ValueError(f'"{text.split(":")[0]}" is no database: write sqlite:///FILE or postgresql://USER@HOST/NAME')
    if urlsplit(text).password and text.where.file not in ENVIRONMENT:
        raise ValueError('a password does not belong in this file: use "password_file", or set PBX_DATABASE_URL')
    return text


def _never(value: object) -> None:
    raise ValueError(
        'a password does not belong in this file: put it into a file of its own and name that with "password_file", '
        'or name an environment variable with "password_env"'
    )


Name = Annotated[Text, AfterValidator(_name)]
Country = Annotated[Text, AfterValidator(_country)]
Host = Annotated[Text, AfterValidator(_host)]
Bind = Annotated[Text, AfterValidator(_bind)]
DatabaseUrl = Annotated[Text, AfterValidator(_database_url)]
Network = Annotated[Text, AfterValidator(_network)]
ExistingFile = Annotated[Path, AfterValidator(_file)]
Port = Annotated[int, Field(ge=1, le=65535)]
FreePort = Port | Literal["auto"]
Codec = Literal["alaw", "ulaw", "g722", "opus"]
Transport = Literal["udp", "tcp", "tls"]


class WithPassword(Model):
    """Something that needs a password, which is read once, when the configuration is."""

    password_file: Path | None = Field(None, description="File that holds the password, on its first line")
    password_env: Text | None = Field(None, description="Environment variable that holds the password")
    password_: SkipJsonSchema[Annotated[None, BeforeValidator(_never)]] = None

    _password: str = PrivateAttr("")

    @property
    def password(self) -> str:
        """The password itself; empty if there is none."""
        return self._password

    @model_validator(mode="after")
    def _read_password(self, info: ValidationInfo) -> Self:
        if self.password_file and self.password_env:
            raise ValueError('set either "password_file" or "password_env", not both')
        if self._unused():
            return self
        if self.password_file:
            try:
                self._password = self.password_file.read_text("utf-8").split("\n")[0].strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
                raise ValueError(f'the password file "{self.password_file}" cannot be read: {reason}') from None
        elif self.password_env:
            environment: Environment[str, str] = info.context or {}
            self._password = environment.get(self.password_env, "")
        if (self.password_file or self.password_env) and not self._password:
            raise ValueError(f'there is no password in "{self.password_file or self.password_env}"')
        return self

    def _unused(self) -> bool:
        return False


class Database(WithPassword):
    """Where records are kept."""

    url: DatabaseUrl = Field(description="sqlite:///FILE or postgresql://USER@HOST:PORT/NAME")

    @model_validator(mode="before")
    @classmethod
    def _url_alone(cls, data: Any) -> Any:
        return {"url": data} if isinstance(data, Text) else data

    @property
    def address(self) -> str:
        """The URL with the password in it: not for logs."""
        if not self.password:
            return str(self.url)
        scheme, rest = self.url.split("://", 1)
        user, at, place = rest.rpartition("@")
        return f"{scheme}://{user}:{quote(self.password, safe='')}{at}{place}"


class Tls(Model):
    """SIP over TLS."""

    port: FreePort = Field(5061)
    certificate: ExistingFile = Field(description="PEM file: the certificate and those that vouch for it")
    key: ExistingFile = Field(description="PEM file: the private key")


class Sip(Model):
    """Where handsets and carriers reach the PBX."""

    bind: Bind = Field(Text("0.0.0.0"), description="Address to listen on; 0.0.0.0 is all of them")
    port: FreePort = Field(5060, description="For UDP and TCP")
    udp: bool = Field(True)
    tcp: bool = Field(True)
    tls: Tls | None = Field(None, description="Listen for SIP over TLS too; its calls carry encrypted sound (SRTP)")

    @model_validator(mode="after")
    def _something_listens(self) -> Self:
        if not (self.udp or self.tcp or self.tls):
            raise ValueError('nothing would listen for SIP: set "udp: yes", "tcp: yes" or "tls"')
        return self


class Rtp(Model):
    """UDP ports for sound: two per leg of a call."""

    first: Annotated[int, Field(ge=1024, le=65534)] = Field(10000)
    last: Annotated[int, Field(ge=1025, le=65535)] = Field(19999)

    @model_validator(mode="after")
    def _room_for_a_call(self) -> Self:
        if self.last - self.first < 3:
            raise ValueError(f"{self.first} to {self.last} is no room for one call: it takes 4 ports")
        return self


class PrivateAsterisk(Model):
    """An Asterisk that the PBX starts, watches and stops itself."""

    prefix: Path = Field(
        Path("var/asterisk"), description="Folder made by asterisk/install; without it, the Asterisk on PATH is used"
    )


class Ami(WithPassword):
    """The manager interface of an Asterisk elsewhere."""

    host: Host = Field(Text("127.0.0.1"))
    port: Port = Field(5038)
    user: Text = Field()


class ElsewhereAsterisk(WithPassword):
    """An Asterisk that somebody else starts."""

    url: Text = Field(description="Of its HTTP server: http://127.0.0.1:8088")
    user: Text = Field(description="ARI user")
    ami: Ami = Field(description="Its manager interface, needed for message lamps")

    @model_validator(mode="after")
    def _url_and_password(self) -> Self:
        if not re.fullmatch(r"https?://[^/\s@]+(/[^\s?#]*)?", self.url):
            raise Problems([Problem(self.url.where, f'"{self.url}" is no address such as http://127.0.0.1:8088')])
        return self


class Asterisk(Model):
    """Which Asterisk carries the calls: one of the two."""

    private: PrivateAsterisk | None = Field(None, description="One that the PBX starts itself (the default)")
    elsewhere: ElsewhereAsterisk | None = Field(None, description="One that is there already")

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        if self.private and self.elsewhere:
            raise ValueError('set either "private" or "elsewhere", not both')
        return self


class Api(Model):
    """The HTTP API and /metrics."""

    bind: Annotated[Text, AfterValidator(_loopback)] = Field(Text("127.0.0.1"), description="A loopback address")
    port: FreePort = Field(8080)


class Speech(Model):
    """Texts that are spoken."""

    voices: dict[Text, Text] = Field(
        {Text("en"): Text("en-us"), Text("fr"): Text("fr-fr")}, description="Voice of espeak-ng for each language"
    )
    words_per_minute: Annotated[int, Field(ge=80, le=400)] = Field(160)


class Trunk(WithPassword):
    """A carrier, or another telephone system."""

    enabled: bool = Field(True, description="`no` keeps the trunk in the file, and out of use")
    host: Host = Field(description="The carrier's SIP server")
    port: Port | None = Field(None, description="5060, or 5061 over TLS")
    transport: Transport = Field("udp")
    username: Text | None = Field(None, description="For calls and registration")
    register_: bool = Field(False, description="Register, so that the carrier knows where to send calls")
    match: tuple[Network, ...] = Field((), description="Where the carrier's calls come from, besides `host`")
    outbound_proxy: Host | None = Field(None, description="Send everything through this server")
    codecs: tuple[Codec, ...] = Field(("g722", "alaw", "ulaw"), min_length=1, description="Best first")
    numbers: Literal["e164", "national"] = Field("e164", description="Writes +15145550100, or 5145550100")
    translation: Literal["carrier", "engine"] = Field(
        "carrier", description="Who finds the emergency centre: the carrier, or the engine in `emergency.centres`"
    )
    country: Country | None = Field(None, description="Whose national numbers, if not the PBX's `country`")

    def _unused(self) -> bool:
        return not self.enabled

    @model_validator(mode="after")
    def _credentials(self) -> Self:
        secret = self.password_file or self.password_env
        if self.register_ and not (self.username and secret):
            raise ValueError('"register: yes" needs "username", and "password_file" or "password_env"')
        if secret and not self.username:
            raise ValueError('a password is set, but no "username"')
        return self


class Emergency(Model):
    """What emergency calls need besides the tables of emergency numbers, which are in the folder `emergency`."""

    centres: ExistingFile | None = Field(None, description="The State's list of emergency centres, by commune")
    domain: Host | None = Field(None, description="The PBX's own name, which it gives as the source of locations")


class Config(Model):
    """config/pbx.yml."""

    node: Name = Field(Text("a1"), description="Name of this machine, the first part of every call's id")
    worker: Name = Field(Text("w1"), description="Name of this engine on its machine, the second part")
    country: Country = Field(Text("FR"), description="Of plans and trunks that do not say")
    var: Path = Field(Path("var"), description="Folder for all that the PBX writes")
    plans: Path = Field(Path("dialplans"), description="Folder of the tenants' plans")
    database: Database | None = Field(None, description="A URL; SQLite in `var` if it is left out")
    sip: Sip = Field(Sip())
    rtp: Rtp | Literal["auto"] = Field(Rtp())
    asterisk: Asterisk = Field(Asterisk())
    api: Api = Field(Api())
    speech: Speech = Field(Speech())
    emergency: Emergency = Field(Emergency())
    trunks: dict[Name, Trunk] = Field({}, description="By name; a plan calls out through one of them")

    @property
    def database_url(self) -> str:
        """Where the database is, its password included: not for logs."""
        return self.database.address if self.database else f"sqlite:///{self.var}/pbx.db"

    @model_validator(mode="before")
    @classmethod
    def _environment_first(cls, data: Any, info: ValidationInfo) -> Any:
        if not isinstance(data, Mapping):
            return data
        set_there = {
            Text(key): Text(info.context[name], Where(name, 1, 1))
            for name, key in ENVIRONMENT.items() if info.context and info.context.get(name)
        }
        return {**data, **set_there}

    @model_validator(mode="after")
    def _centres_for_translation(self) -> Self:
        engine = [trunk for trunk in self.trunks.values() if trunk.enabled and trunk.translation == "engine"]
        if engine and not self.emergency.centres:
            remedy = 'name the list with "centres" under "emergency"'
            raise Problems([Problem(trunk.where, f'"translation: engine" needs a list: {remedy}') for trunk in engine])
        return self

    @model_validator(mode="after")
    def _transports_of_trunks(self) -> Self:
        problems = [
            Problem(trunk.where, f'trunk "{name}" goes over {trunk.transport}: set "{trunk.transport}" under "sip"')
            for name, trunk in self.trunks.items() if trunk.enabled and not getattr(self.sip, trunk.transport)
        ]
        if problems:
            raise Problems(problems)
        return self


def load_config(path: str | Path, environment: Environment[str, str] = os.environ) -> Config:
    """The configuration. Raises yamlfile.Problems: each with its place, or the name of the environment variable."""
    if not Path(path).exists():
        reason = "there is no such file: name the configuration with --config FILE, or in the variable PBX_CONFIG"
        raise Problems([Problem(Where(str(path), 1, 1), reason)])
    return load(path, Config, context=environment)
