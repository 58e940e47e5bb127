from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pbx.config import ENVIRONMENT
from pbx.config import Config
from pbx.config import Rtp
from pbx.config import load_config
from pbx.yamlfile import Problems

ROOT = Path(__file__).parent.parent
MANUAL = (ROOT / "docs" / "configuration.md").read_text("utf-8")

TRUNK = "trunks:\n  carrier:\n    host: sip.carrier.example\n    username: pbx\n    password_{}\n    register: yes\n"


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    return tmp_path / "pbx.yml"


def test_the_shipped_configuration_is_valid_and_reaches_nobody() -> None:
    config = load_config(ROOT / "config" / "pbx.yml", {})
    assert config.trunks and not any(trunk.enabled for trunk in config.trunks.values())
    assert config.api.bind == "127.0.0.1"


def test_one_line_is_a_configuration(config_file: Path) -> None:
    config_file.write_text("country: CA\n")
    config = load_config(config_file, {})
    assert (config.country, config.sip.port, config.rtp) == ("CA", 5060, Rtp(first=10000, last=19999))
    assert config.database_url == "sqlite:///var/pbx.db"
    assert config.asterisk.elsewhere is None


def test_a_configuration_that_is_not_there_is_told_with_the_ways_to_name_another(tmp_path: Path) -> None:
    with pytest.raises(Problems, match=r"none\.yml:1:1: there is no such file: .*--config FILE.*PBX_CONFIG"):
        load_config(tmp_path / "none.yml")


def test_ports_can_be_left_to_the_pbx(config_file: Path) -> None:
    config_file.write_text("sip: {port: auto}\nrtp: auto\napi: {port: auto}\n")
    config = load_config(config_file, {})
    assert (config.sip.port, config.rtp, config.api.port) == ("auto", "auto", "auto")


def test_a_password_comes_from_the_first_line_of_a_file(config_file: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("correct horse \nbattery\n")
    config_file.write_text(TRUNK.format(f"file: {tmp_path}/secret"))
    assert load_config(config_file, {}).trunks["carrier"].password == "correct horse"  # type: ignore[index]


def test_a_password_comes_from_the_environment(config_file: Path) -> None:
    config_file.write_text(TRUNK.format("env: CARRIER"))
    assert load_config(config_file, {"CARRIER": "s3cret"}).trunks["carrier"].password == "s3cret"  # type: ignore[index]


def test_a_password_is_neither_printed_nor_written_out(config_file: Path) -> None:
    config_file.write_text(TRUNK.format("env: CARRIER"))
    config = load_config(config_file, {"CARRIER": "s3cret"})
    assert "s3cret" not in f"{config!r} {config} {config.model_dump()} {config.model_dump_json()}"


def test_a_trunk_out_of_use_needs_no_password_yet(config_file: Path) -> None:
    config_file.write_text(TRUNK.format("file: /nowhere/carrier") + "    enabled: no\n")
    assert load_config(config_file, {}).trunks["carrier"].password == ""  # type: ignore[index]


def test_the_password_of_a_database_is_put_into_its_address(config_file: Path) -> None:
    config_file.write_text("database: {url: 'postgresql://pbx@db.example:5433/pbx', password_env: DB}\n")
    assert load_config(config_file, {"DB": "p@s/s"}).database_url == "postgresql://pbx:p%40s%2Fs@db.example:5433/pbx"


def test_the_environment_wins_over_the_file(config_file: Path) -> None:
    config_file.write_text("var: here\ndatabase: sqlite:///here.db\nnode: b1\n")
    set_there = {
        "PBX_VAR": "/there", "PBX_PLANS": "/plans", "PBX_NODE": "b2",
        "PBX_DATABASE_URL": "postgresql://pbx:secret@db.example/pbx",
    }
    config = load_config(config_file, set_there)
    assert (config.var, config.plans, config.node) == (Path("/there"), Path("/plans"), "b2")
    assert config.database_url == "postgresql://pbx:secret@db.example/pbx"


def test_the_default_database_follows_var(config_file: Path) -> None:
    config_file.write_text("worker: w2\n")
    assert load_config(config_file, {"PBX_VAR": "/there"}).database_url == "sqlite:////there/pbx.db"


def test_a_mistake_in_the_environment_is_told_by_the_name_of_the_variable(config_file: Path) -> None:
    config_file.write_text("country: FR\n")
    with pytest.raises(Problems) as raised:
        load_config(config_file, {"PBX_DATABASE_URL": "mysql://db", "PBX_NODE": "A 1"})
    database, node = map(str, raised.value.problems)
    assert database.startswith('PBX_DATABASE_URL:1:1: "mysql" is no database')
    assert node.startswith('PBX_NODE:1:1: "A 1" is no name')


def test_an_asterisk_elsewhere_is_named_with_its_passwords(config_file: Path) -> None:
    config_file.write_text(
        "asterisk:\n  elsewhere:\n    url: http://10.0.0.7:8088/\n    user: pbx\n    password_env: ARI\n"
        "    ami: {host: 10.0.0.7, user: pbx, password_env: AMI}\n"
    )
    elsewhere = load_config(config_file, {"ARI": "one", "AMI": "two"}).asterisk.elsewhere
    assert elsewhere and (elsewhere.password, elsewhere.ami.password, elsewhere.ami.port) == ("one", "two", 5038)


# The manual


def keys(schema: dict[str, Any], definitions: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Each key a configuration can have, with its default as the manual shows it."""
    for name, field in schema.get("properties", {}).items():
        yield from _key(f"{path}{name}", field, definitions, "needed" if name in schema.get("required", ()) else "")


def _key(path: str, field: dict[str, Any], definitions: dict[str, Any], default: str) -> Iterator[tuple[str, str]]:
    models = [branch["$ref"] for branch in (field, *field.get("anyOf", ())) if "$ref" in branch]
    named = field.get("additionalProperties")
    if models:
        yield from keys(definitions[models[0].rpartition("/")[2]], definitions, f"{path}.")
    elif isinstance(named, dict):
        yield from _key(f"{path}.{'LANGUAGE' if path == 'speech.voices' else 'NAME'}", named, definitions, "")
    else:
        yield path, default or _shown(field.get("default"))


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "yes" if default else "no"
    return ", ".join(default) if isinstance(default, list) else "" if default is None else str(default)


def test_the_manual_has_every_key_with_its_default_and_no_other() -> None:
    schema = Config.model_json_schema()
    in_manual = re.findall(r"^\| `([\w.]+)` \| ([^|]*?) ?\| ", MANUAL.split("## Environment")[0], re.MULTILINE)
    assert sorted(in_manual) == sorted(keys(schema, schema["$defs"]))


def test_the_manual_has_every_environment_variable() -> None:
    assert dict(re.findall(r"^\| `(PBX_\w+)` \| `(\w+)`", MANUAL, re.MULTILINE)) == ENVIRONMENT


def test_the_example_of_the_manual_is_valid(config_file: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", MANUAL, re.DOTALL)
    config_file.write_text(example.replace("password_file: config/secrets/carrier", "password_env: CARRIER"))
    assert load_config(config_file, {"CARRIER": "x"}).trunks["carrier"].register_  # type: ignore[index]
