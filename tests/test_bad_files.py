"""tests/bad holds one file per mistake; its first lines say what the user must be told, no more and no less:

    # expect: 3:5: unknown key "pley" (did you mean "play"?)

The beginning of the name says what the file is read as: yaml- (the model below), config-, contract- or plan-.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import pytest

from pbx.config import load_config
from pbx.contract import Profile
from pbx.dialplan import check
from pbx.links import Installation
from pbx.yamlfile import Milliseconds
from pbx.yamlfile import Model
from pbx.yamlfile import Problems
from pbx.yamlfile import Text
from pbx.yamlfile import load

BAD = Path(__file__).with_name("bad")
INSTALLATION = Installation(trunks=["carrier"], contracts=["ooma-wework"], sounds=["beep", "tt-monkeys"])


class Step(Model):
    play: Text | None = None
    wait: Milliseconds = 1_000
    times: int = 1


class Tiny(Model):
    name: Text
    color: Literal["red", "blue"] = "red"
    open: bool = True
    steps: list[Step] = []
    target: Text | list[Step] | Step = Text("none")


def read(path: Path) -> None:
    kind = path.name.split("-")[0]
    if kind == "yaml":
        load(path, Tiny)
    elif kind == "config":
        load_config(path, {"EMPTY": "", "SECRET": "s3cret"})
    elif kind == "contract":
        load(path, Profile)
    elif kind == "plan":
        if problems := check([path], INSTALLATION):
            raise Problems(problems)
    else:
        raise AssertionError(f"{path.name}: the name must begin with yaml-, config-, contract- or plan-")


def expected(path: Path) -> list[str]:
    header = path.read_bytes().decode("utf-8", "replace").removeprefix("\ufeff")
    return re.findall(r"^# expect: (.+?)\r?$", header, re.MULTILINE)


@pytest.mark.parametrize("path", sorted(BAD.iterdir()), ids=lambda path: path.name)
def test_each_mistake_is_told_with_its_place_and_its_remedy(path: Path) -> None:
    with pytest.raises(Problems) as raised:
        read(path)
    told = [str(problem).removeprefix(f"{path}:") for problem in raised.value.problems]
    assert told == expected(path)
    assert told, "a bad file without `# expect:`"
