"""What is written for Asterisk, and what is said when it cannot start. Nothing is started here; see live/."""

from __future__ import annotations

import configparser
import os
import re
import socket
import stat
from pathlib import Path

import pytest

from pbx.asterisk import AsteriskError
from pbx.asterisk import ElsewhereAsterisk
from pbx.asterisk import PrivateAsterisk
from pbx.asterisk import asterisk_of
from pbx.config import Config
from pbx.config import load_config
from pbx.dialplan import compile_plan
from pbx.instance import Handset
from pbx.instance import Instance
from pbx.instance import Office
from pbx.instance import last_digits
from pbx.instance import office
from pbx.prefix import Prefix

ACME = Office(
    "acme", ["fr", "en"],
    [Handset("acme-101", "101", "Alice Martin", "fr", "+33199000101"), Handset("acme-102", "102", "Bob Durand", "en")],
    emergency={"15": "15", "015": "15"}, rings={"+33199000100": ["acme-101", "acme-102"]},
)
CARRIER = "{host: 127.0.0.1, port: 5070"


def config_of(folder: Path, settings: str = "", prefix: Path | None = None) -> Config:
    file = folder / "pbx.yml"
    file.write_text(
        f"var: {folder}/var\nrtp: auto\n{settings or 'sip: {bind: 127.0.0.1, port: auto}'}\n"
        f"asterisk: {{private: {{prefix: {prefix or folder}}}}}\n"
    )
    return load_config(file, {"CARRIER": "a;b=[c]"})


def instance_of(config: Config, prefix: Prefix) -> Instance:
    trunks = {str(name): trunk for name, trunk in config.trunks.items()}
    return Instance(Path(config.var) / "a1", prefix, config.sip, config.rtp, trunks, node="a1", app="pbx-w1")


def section(instance: Instance, file: str, name: str, kind: str = "") -> dict[str, list[str]]:
    """One section of a rendered file; of several with its name the one of that type, or from that template."""
    text = (instance.folder / "etc" / file).read_text()
    for head, template, body in re.findall(r"^\[([^]]+)\](?:\(([^)]*)\))?\n(.*?)(?=^\[|\Z)", text, re.M | re.S):
        options: dict[str, list[str]] = {}
        for line in body.splitlines():
            if line and not line.startswith(";"):
                key, _, value = line.partition("=")
                options.setdefault(key.strip(), []).append(value.removeprefix(">").strip())
        if head == name and kind in (template, *options.get("type", []), ""):
            return options
    raise AssertionError(f"no [{name}] of {kind or 'any kind'} in {file}:\n{text}")


def test_every_directory_is_in_the_folder_of_the_instance_or_in_the_prefix(tmp_path: Path, prefix: Prefix) -> None:
    instance = instance_of(config_of(tmp_path), prefix)
    instance.write([ACME])
    for option, values in section(instance, "asterisk.conf", "directories").items():
        inside = (str(instance.folder), str(prefix.modules))
        assert values[0].startswith(inside), option
    for link in (instance.folder / "share" / "sounds").iterdir():
        assert link.resolve().is_dir(), link


def test_a_line_is_an_endpoint_with_a_password_of_its_own_and_a_lamp(tmp_path: Path, prefix: Prefix) -> None:
    instance = instance_of(config_of(tmp_path), prefix)
    instance.write([ACME])
    endpoint = section(instance, "pjsip_lines.conf", "acme-101", "line-endpoint")
    assert endpoint["callerid"] == ['"Alice Martin" <101>']
    assert endpoint["mailboxes"] == ["acme-101@default"]
    assert endpoint["language"] == ["fr"]
    passwords = {section(instance, "pjsip_lines.conf", f"acme-{n}", "line-auth")["password"][0] for n in (101, 102)}
    assert len(passwords) == 2
    assert all(len(password) == 16 for password in passwords)
    common = section(instance, "pjsip.conf", "endpoint")
    assert (common["direct_media"], common["dtmf_mode"], common["rtp_timeout"]) == (["no"], ["rfc4733"], ["0"])


def test_passwords_are_made_once_and_only_their_owner_reads_them(tmp_path: Path, prefix: Prefix) -> None:
    config = config_of(tmp_path)
    first = instance_of(config, prefix)
    first.write([ACME])
    kept = first.secrets.password("lines", "acme-101")
    assert instance_of(config, prefix).secrets.password("lines", "acme-101") == kept
    assert first.secrets.password("asterisk", "ari") != first.secrets.password("asterisk", "ami")
    for path in (first.secrets.path, *(first.folder / "etc").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_password_written_into_the_file_by_hand_is_used(tmp_path: Path, prefix: Prefix) -> None:
    config = config_of(tmp_path)
    instance_of(config, prefix).write([ACME])
    again = instance_of(config, prefix)
    again.secrets.path.write_text("[lines]\nacme-101 = 50%=#ten;\n")
    again = instance_of(config, prefix)
    again.write([ACME])
    assert section(again, "pjsip_lines.conf", "acme-101", "line-auth")["password"] == ["50%=#ten\\;"]
    written = configparser.RawConfigParser()
    written.read(again.secrets.path)
    assert written["lines"]["acme-101"] == "50%=#ten;"


def test_no_name_breaks_out_of_its_line(tmp_path: Path, prefix: Prefix) -> None:
    instance = instance_of(config_of(tmp_path), prefix)
    evil = Handset("acme-103", "103", 'Eve" <15>\nallow = all ;--', "fr")
    instance.write([Office("acme", ["fr"], [evil], {}, {})])
    assert section(instance, "pjsip_lines.conf", "acme-103", "line-endpoint")["callerid"] == [
        "\"Eve' <15> allow = all \\;--\" <103>"
    ]


def test_a_trunk_with_a_fixed_address_is_known_by_that_alone(tmp_path: Path, prefix: Prefix) -> None:
    trunk = f"{CARRIER}, match: [192.0.2.0/28], codecs: [alaw, ulaw], outbound_proxy: proxy.carrier.example}}"
    instance = instance_of(config_of(tmp_path, f"trunks: {{paris: {trunk}}}\nsip: {{port: auto}}"), prefix)
    instance.write([])
    endpoint = section(instance, "pjsip_trunks.conf", "trunk-paris", "endpoint")
    assert endpoint["identify_by"] == ["ip"]
    assert endpoint["allow"] == ["alaw,ulaw"]
    assert endpoint["outbound_proxy"] == ["sip:proxy.carrier.example\\;lr"]
    assert section(instance, "pjsip_trunks.conf", "trunk-paris", "aor")["contact"] == ["sip:127.0.0.1:5070"]
    assert section(instance, "pjsip_trunks.conf", "trunk-paris", "identify")["match"] == ["127.0.0.1"]
    assert section(instance, "pjsip_trunks.conf", "trunk-paris.networks", "identify")["match"] == ["192.0.2.0/28"]
    with pytest.raises(AssertionError):
        section(instance, "pjsip_trunks.conf", "trunk-paris", "registration")


def test_a_trunk_that_registers_has_its_password_whatever_is_in_it(tmp_path: Path, prefix: Prefix) -> None:
    trunk = f"{CARRIER}, transport: tcp, username: joe, password_env: CARRIER, register: yes}}"
    instance = instance_of(config_of(tmp_path, f"trunks: {{voip: {trunk}}}\nsip: {{port: auto}}"), prefix)
    instance.write([])
    registration = section(instance, "pjsip_trunks.conf", "trunk-voip", "registration")
    assert registration["server_uri"] == ["sip:127.0.0.1:5070\\;transport=tcp"]
    assert registration["client_uri"] == ["sip:joe@127.0.0.1"]
    assert registration["line"] == ["yes"]
    assert section(instance, "pjsip_trunks.conf", "trunk-voip", "auth")["password"] == ["a\\;b=[c]"]


def test_with_a_certificate_sip_listens_for_tls_and_offers_encrypted_sound(tmp_path: Path, prefix: Prefix) -> None:
    (tmp_path / "pem").touch()
    tls = f"sip: {{port: auto, tls: {{port: auto, certificate: {tmp_path}/pem, key: {tmp_path}/pem}}}}"
    instance = instance_of(config_of(tmp_path, tls), prefix)
    instance.write([ACME])
    assert section(instance, "pjsip.conf", "tls")["bind"] == [f"0.0.0.0:{instance.ports.tls}"]
    assert section(instance, "pjsip_lines.conf", "line-endpoint")["media_encryption"] == ["sdes"]


def test_only_what_changed_is_reported_as_changed(tmp_path: Path, prefix: Prefix) -> None:
    instance = instance_of(config_of(tmp_path), prefix)
    assert "http.conf" in instance.write([ACME])
    assert instance.write([ACME]) == set()
    more = Office("duo", ["en"], [Handset("duo-11", "11", "Ann", "en")], {}, {})
    assert instance.write([ACME, more]) == {"pjsip_lines.conf", "extensions.conf"}


def test_chosen_ports_are_remembered_until_the_configuration_names_others(tmp_path: Path, prefix: Prefix) -> None:
    first = instance_of(config_of(tmp_path), prefix).ports
    assert instance_of(config_of(tmp_path), prefix).ports == first
    assert instance_of(config_of(tmp_path, "sip: {bind: 127.0.0.1, port: 5999}"), prefix).ports.sip == 5999


def test_two_instances_share_no_port_and_no_identity(tmp_path: Path, prefix: Prefix) -> None:
    instances = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        instances.append(instance_of(config_of(tmp_path / name), prefix))
        instances[-1].write([])
    one, two = instances
    assert not {one.ports.sip, one.ports.http, one.ports.ami} & {two.ports.sip, two.ports.http, two.ports.ami}
    identities = {section(instance, "asterisk.conf", "options")["entityid"][0] for instance in instances}
    assert len(identities) == 2


@pytest.mark.parametrize("written", ["+33199000100", "0199000100", "0033199000100", "33199000100"])
def test_a_company_number_is_found_however_a_carrier_writes_it(written: str) -> None:
    assert last_digits(written) == "199000100"


def test_without_an_engine_a_plan_has_emergency_numbers_with_and_without_prefix_and_somebody_who_answers(
    tmp_path: Path,
) -> None:
    (tmp_path / "acme.yml").write_text(
        "tenant: acme\ncountry: FR\nlanguage: fr\ntimezone: Europe/Paris\n"
        'sites: {paris: {number: "+33199000100", outside_prefix: "0"}}\n'
        'lines:\n  "101": {name: Alice, number: "+33199000101"}\n  "102": {name: Bob}\n'
        'groups: {sales: {lines: ["102", "101"]}}\n'
        'numbers:\n  "+33199000100": welcome\n  "+33199000101": {line: "101"}\n  "+33199000102": {group: sales}\n'
        "flows:\n  welcome: [{say: Bonjour}]\n"
    )
    acme = office(compile_plan(tmp_path / "acme.yml"))
    assert acme.emergency["112"] == acme.emergency["0112"] == "112"
    assert {"15", "17", "18", "114", "196"} <= set(acme.emergency)
    assert [handset.shown for handset in acme.handsets] == ["+33199000101", "+33199000100"]
    assert acme.rings == {
        "+33199000100": ["acme-101"], "+33199000101": ["acme-101"], "+33199000102": ["acme-102", "acme-101"],
    }


# -- what is said when it cannot start --------------------------------------------------------------


async def refusal(config: Config) -> str:
    asterisk = PrivateAsterisk(config, app="pbx-w1")
    with pytest.raises(AsteriskError) as error:
        await asterisk.start([ACME])
    await asterisk.stop()
    return str(error.value)


def pretend(folder: Path, says: str) -> Path:
    """A prefix whose Asterisk is a script."""
    program = folder / "usr" / "sbin" / "asterisk"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    return folder


async def test_an_old_asterisk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = pretend(tmp_path / "old", "Asterisk 20.6.0").joinpath("usr/sbin/asterisk")
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    said = await refusal(config_of(tmp_path, prefix=tmp_path / "none"))
    assert said == f"{program} is Asterisk 20.6.0, but 22 or newer is needed: run asterisk/install var/asterisk"


async def test_something_else_called_asterisk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = pretend(tmp_path / "odd", "Gaul 1.0").joinpath("usr/sbin/asterisk")
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    assert "does not tell its version but: Gaul 1.0" in await refusal(config_of(tmp_path, prefix=tmp_path / "none"))


async def test_a_missing_asterisk_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "run asterisk/install" in await refusal(config_of(tmp_path, prefix=tmp_path))


async def test_missing_modules_are_named(tmp_path: Path, prefix: Prefix) -> None:
    """Some distributions leave modules out."""
    assert prefix.path
    poor = tmp_path / "poor"
    (poor / "usr").mkdir(parents=True)
    for name in ("sbin", "lib64", "share"):
        (poor / "usr" / name).symlink_to(prefix.path / "usr" / name)
    libraries = prefix.modules.parent.parent
    rich, few = poor / "usr" / "lib" / libraries.name, prefix.modules
    (rich / "asterisk" / "modules").mkdir(parents=True)
    for library in libraries.iterdir():
        if library.name != "asterisk":
            (rich / library.name).symlink_to(library)
    for module in few.glob("*.so"):
        if module.name not in ("res_ari.so", "app_stasis.so"):
            (rich / "asterisk" / "modules" / module.name).symlink_to(module)
    said = await refusal(config_of(tmp_path, prefix=poor))
    assert re.search(r"lacks res_ari\.so, app_stasis\.so: run asterisk/install", said)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
async def test_a_taken_port_is_named_with_its_holder_and_the_remedy(
    tmp_path: Path, prefix: Prefix, kind: socket.SocketKind
) -> None:
    with socket.socket(type=kind) as other:
        other.bind(("127.0.0.1", 0))
        if kind is socket.SOCK_STREAM:
            other.listen()
        port = other.getsockname()[1]
        said = await refusal(config_of(tmp_path, f"sip: {{bind: 127.0.0.1, port: {port}}}", prefix.path))
    name = "TCP" if kind is socket.SOCK_STREAM else "UDP"
    assert said.startswith(f"{name} port {port} on 127.0.0.1 is taken by ")
    assert f"(process {os.getpid()})" in said
    assert said.endswith('set "sip: {port: ...}" in config/pbx.yml to another port, or to auto')


async def test_an_address_of_another_machine_cannot_be_listened_on(tmp_path: Path, prefix: Prefix) -> None:
    said = await refusal(config_of(tmp_path, "sip: {bind: 192.0.2.1, port: 5060}", prefix.path))
    assert said.startswith("192.0.2.1 is not an address of this machine")


async def test_an_asterisk_elsewhere_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        (tmp_path / "secret").write_text("secret\n")
        (tmp_path / "pbx.yml").write_text(
            f"asterisk: {{elsewhere: {{url: '{url}', user: pbx, password_file: {tmp_path}/secret, "
            f"ami: {{user: pbx, password_file: {tmp_path}/secret}}}}}}\n"
        )
        asterisk = asterisk_of(load_config(tmp_path / "pbx.yml", {}), app="pbx-w1")
        assert isinstance(asterisk, ElsewhereAsterisk)
        with pytest.raises(AsteriskError, match=f"Asterisk does not answer at {url}"):
            await asterisk.start([ACME])
