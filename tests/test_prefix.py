"""Programs of the prefix really run; without a prefix PATH is used; what is missing is named with its remedy."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pbx.prefix import Prefix
from pbx.prefix import ProgramMissing


@pytest.mark.parametrize(
    "program, argument, says",
    [("asterisk", "-V", "Asterisk 2"), ("sox", "--version", "SoX"), ("espeak-ng", "--version", "eSpeak NG")],
)
def test_the_programs_of_the_prefix_run(prefix: Prefix, program: str, argument: str, says: str) -> None:
    answer = subprocess.run([*prefix.command(program), argument], capture_output=True, text=True, check=True)
    assert says in answer.stdout


def test_asterisk_data_and_modules_are_where_the_prefix_says(prefix: Prefix) -> None:
    assert (prefix.data / "rest-api" / "resources.json").is_file()
    assert (prefix.modules / "res_ari.so").is_file()


def test_without_a_prefix_the_program_on_path_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "sox"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Prefix(None).command("sox") == [str(program)]


def test_a_program_that_is_nowhere_is_named_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(ProgramMissing, match=r"no-such-program is not installed: run asterisk/install .*"):
        Prefix(tmp_path).command("no-such-program")
