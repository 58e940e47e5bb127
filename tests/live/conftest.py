"""A PBX for live tests: one that runs the Paris office, shared by all tests that leave it as they found it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from live.pbx import ROOT
from live.pbx import Pbx
from live.pbx import running

from pbx.prefix import Prefix


@pytest.fixture
async def acme(tmp_path: Path, prefix: Prefix) -> AsyncIterator[Pbx]:
    async with running(tmp_path / "pbx", prefix, ROOT / "dialplans" / "acme.yml") as pbx:
        yield pbx
        await pbx.is_idle()
        assert pbx.problems() == []
