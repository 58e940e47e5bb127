"""A company: the whole engine with its plan, on a simulated Asterisk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from switchboard import APP
from switchboard import Echo

from pbx.ari import Ari
from pbx.contract import Profile
from pbx.dialplan import Plans
from pbx.dialplan import compile_plan
from pbx.emergency import Centres
from pbx.emergency import packaged_tables
from pbx.emergency_call import EmergencyCalls
from pbx.emergency_call import Way
from pbx.engine import Engine
from pbx.engine import Identity
from pbx.links import Installation
from pbx.policy import Gate
from pbx.policy import Kind
from pbx.policy import Tenant
from pbx.policy import build_policies
from pbx.simulator import Asterisk
from pbx.simulator import VirtualClock
from pbx.step import Services
from pbx.store import CallRecord
from pbx.store import MemoryStore


class Office:
    def __init__(
        self, plan: Path, asterisk: Asterisk, contract: Profile | None, kinds: Mapping[str, Kind] | None,
        ways: Sequence[Way], centres: Centres | None,
    ) -> None:
        clock = VirtualClock()
        plans = Plans([compile_plan(plan, Installation(trunks=[way.trunk for way in ways]))])
        self.asterisk = asterisk
        self.store = MemoryStore(clock=clock)
        self.lamps: dict[str, tuple[int, int]] = {}
        self.gate = Gate({
            one.tenant: build_policies(
                Tenant(one.tenant, one.zone, list(one.lines)), contract, store=self.store, clock=clock, kinds=kinds,
            )
            for one in plans if contract
        })
        self.ari = Ari(asterisk, APP, clock=clock, random=asterisk.random.random)
        self.engine = Engine(
            self.ari, plans, Services(self.store, self._lamp), app=APP, identity=Identity("a1", "w1", 1), clock=clock,
            speaker=Echo(), trunks={way.trunk: "FR" for way in ways}, gate=self.gate,
            emergencies=EmergencyCalls(ways, packaged_tables(), country="FR", centres=centres),
        )

    async def _lamp(self, line: str, unheard: int, heard: int) -> None:
        self.lamps[line] = unheard, heard

    async def records(self) -> list[CallRecord]:
        return await self.store.calls(limit=1_000_000)

    async def quiet(self) -> None:
        """Waits until all calls have ended, then sees that nothing of them is left anywhere."""
        while self.engine.calls:
            await asyncio.sleep(1)
        await asyncio.sleep(1)
        assert self.asterisk.idle
        assert self.ari._listeners == {}


@asynccontextmanager
async def office(
    plan: Path, seed: int = 0, *, contract: Profile | None = None, kinds: Mapping[str, Kind] | None = None,
    ways: Sequence[Way] = (Way("x"),), centres: Centres | None = None, **settings: Any,
) -> AsyncIterator[Office]:
    """A company at work; at the end all its calls must have ended and left nothing but their records.

    Its tenants are held to a contract by policies of these kinds. `ways` are its trunks.
    """
    company = Office(plan, Asterisk(seed, **settings), contract, kinds, ways, centres)
    await company.gate.open()
    serving = asyncio.create_task(company.ari.run(), name="ari")
    await company.ari.connected.wait()
    yield company
    await company.quiet()
    serving.cancel()
    await asyncio.wait([serving])
    await company.gate.close()
