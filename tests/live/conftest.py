"""The PBX of the Paris office, started once for all live tests that leave it as they found it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from live.pbx import ROOT
from live.pbx import Pbx
from live.pbx import running

from pbx.prefix import Prefix


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def office(tmp_path_factory: pytest.TempPathFactory, prefix: Prefix) -> AsyncIterator[Pbx]:
    """dialplans/acme.yml, but with more patient telephones than people: they ring for three seconds."""
    folder = tmp_path_factory.mktemp("office") / "pbx"
    async with running(folder, prefix, ROOT / "dialplans" / "acme.yml", rings_for="3s") as pbx:
        yield pbx


@pytest_asyncio.fixture(loop_scope="session")
async def acme(office: Pbx) -> AsyncIterator[Pbx]:
    """The same for one test: afterwards no call, no bridge and no complaint in a log may be left of it."""
    office.forget_the_past()
    yield office
    await office.everybody_leaves()
    await office.is_idle()
    assert not office.problems(), "\n".join(office.problems())
