"""How an emergency call goes out: on one way after another, for as long as the caller is there.

Nothing of the plan but what it knows of the place, and no policy, is asked.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pbx import numbers
from pbx.call import Call
from pbx.dial import CallerId
from pbx.dial import Destination
from pbx.dialplan import Plan
from pbx.dialplan import Plans
from pbx.emergency import Centres
from pbx.emergency import Emergency
from pbx.emergency import Tables
from pbx.leg import Cause
from pbx.location import geolocation
from pbx.tenant import Address
from pbx.tenant import Line
from pbx.tenant import Site

log = logging.getLogger(__name__)

SIGN_MS = 4_000  # a trunk on which nothing is heard for so long is left for the next
RING_MS = 3_600_000  # one that rings is not: whoever is in the queue of a centre would be at its end again
QUICK_ROUNDS = 3  # through all ways at once; then with a pause between
PAUSE_MS = 2_000

Translation = Literal["carrier", "engine"]


@dataclass(frozen=True, slots=True)
class Way:
    """A trunk, as emergency calls use it.

    `translation` says who finds the centre of the caller's place: the carrier gets the short number as it is, the
    engine looks in the list of centres. `national` is the country whose national numbers it takes, None for E.164.
    """

    trunk: str
    translation: Translation = "carrier"
    national: str | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an emergency call comes from, as far as it is known.

    `device` is the handset's SIP name, `trunks` are those to try first, `shown` what the centre can call back: an
    empty number is withheld, because there is none.
    """

    device: str
    country: str
    language: str = "en"
    plan: Plan | None = None
    line: Line | None = None
    shown: CallerId = CallerId("")
    trunks: tuple[str, ...] = ()
    address: Address | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """One attempt: a trunk, and the number that is sent there."""

    trunk: str
    number: str


class EmergencyCalls:
    """What the PBX has for emergency calls: `ways` in their order, `centres` if there is a list, its own `domain`.

    `country` is that of handsets of which no plan knows anything.
    """

    def __init__(
        self, ways: Sequence[Way], tables: Tables, *, country: str, centres: Centres | None = None,
        domain: str | None = None,
    ) -> None:
        self.ways = ways
        self.tables = tables
        self.centres = centres
        self._country = country
        self._domain = domain

    # -- what it is ---------------------------------------------------------------------------

    def dialled(self, plans: Plans, endpoint: str, dialled: str) -> tuple[Emergency, Origin] | None:
        """The emergency that a handset dialled, and where; None for any other number.

        A handset that registered, though no plan knows its line (any more), gets out as well.
        """
        found = plans.line(endpoint)
        if found is not None:
            plan, line = found
            emergency = plan.emergency(line, dialled)
            return (emergency, self.origin(plan, line)) if emergency else None
        tenant = plans.by_tenant.get(endpoint.rpartition("-")[0])
        sites = list(tenant.sites.values()) if tenant else []
        for site in sites or [Site()]:
            country = tenant.country_of(site) if tenant else self._country
            if emergency := self.tables.classify(dialled, country, site.outside_prefix):
                return emergency, self._stranger(endpoint, tenant, country)
        return None

    def origin(self, plan: Plan, line: Line) -> Origin:
        """What a plan knows of one of its lines."""
        site = plan.site_of(line)
        return Origin(
            device=plan.identity(line), country=plan.country_of(site), language=line.language or plan.language,
            plan=plan, line=line, shown=plan.shown_in_emergency(line), address=site.address,
            trunks=tuple(str(trunk) for trunk in (site.trunk, plan.trunk) if trunk),
        )

    def _stranger(self, endpoint: str, plan: Plan | None, country: str) -> Origin:
        if plan is None:
            return Origin(endpoint, country)
        only = next(iter(plan.sites.values())) if len(plan.sites) == 1 else None
        return Origin(
            endpoint, country, plan.language, plan, shown=plan.shown_in_emergency(None),
            trunks=(plan.trunk,) if plan.trunk else (), address=only.address if only else None,
        )

    # -- where it goes ------------------------------------------------------------------------

    def routes(self, emergency: Emergency, origin: Origin) -> list[Route]:
        """All that is tried, in order; empty only where the PBX has no trunk at all."""
        names = dict.fromkeys((*origin.trunks, *(way.trunk for way in self.ways)))
        by_name = {way.trunk: way for way in self.ways}
        ways = [by_name[name] for name in names if name in by_name]
        routes = [Route(way.trunk, number) for way in ways for number in self._written(way, emergency.number, origin)]
        general = self.tables.general(origin.country)
        if emergency.kind == "vital" and general is not None:
            # Better the centre for everything than none.
            routes += [Route(way.trunk, general.number) for way in ways]
        return list(dict.fromkeys(routes))

    def _written(self, way: Way, short: str, origin: Origin) -> Iterator[str]:
        if way.translation == "engine" and self.centres and origin.address and origin.address.insee:
            for number in self.centres.numbers(origin.address.insee, short):
                yield numbers.national(number, way.national) if way.national else number
        yield short

    # -- the call -----------------------------------------------------------------------------

    async def serve(self, call: Call, emergency: Emergency, origin: Origin) -> None:
        """Connects the caller, however often it takes. Ends with the Hangup of the call."""
        call.note("emergency", number=emergency.number, vital=emergency.kind == "vital", service=emergency.service)
        routes = self.routes(emergency, origin)
        if not routes:
            log.critical("call %s: no trunk for emergency number %s", call.id, emergency.number)
            call.note("emergency_without_trunk")
            await call.reject(Cause.CONGESTION)
        self._note_gaps(call, origin)
        destinations = [self._destination(route, emergency, origin) for route in routes]
        for turn in itertools.count(1):
            for destination in destinations:
                await self._try(call, destination, origin.shown)
            if turn >= QUICK_ROUNDS:
                await call.wait(PAUSE_MS)

    async def _try(self, call: Call, to: Destination, shown: CallerId) -> None:
        dialled = await call.dial([to], ring_ms=RING_MS, sign_ms=SIGN_MS, caller=shown)
        if dialled.leg is None:
            return
        await call.talk(dialled.leg)
        if dialled.leg.released_with is None:  # else it was we who could not join the two
            await call.hangup(Cause.NORMAL)

    def _destination(self, route: Route, emergency: Emergency, origin: Origin) -> Destination:
        variables = {"PJSIP_HEADER(add,Priority)": "emergency"}
        if origin.address is not None:
            variables |= geolocation(
                origin.address, country=origin.country, language=origin.language, number=origin.shown.number,
                device=origin.device, domain=self._domain,
            )
        endpoint = f"PJSIP/{route.number}@trunk-{route.trunk}"
        return Destination(endpoint, emergency.number, caller=origin.shown, outside=True, variables=variables)

    def _note_gaps(self, call: Call, origin: Origin) -> None:
        for missing, there in (("number", origin.shown.number), ("location", origin.address)):
            if not there:
                call.note(f"emergency_without_{missing}")
                log.error("call %s: the emergency service is not told the %s of %s", call.id, missing, origin.device)


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a line can call for help now, by configuration and plans alone.

    `numbers` are the vital ones of its country, `routes` those of the number for everything, `place` the address that
    is told. `problems` keep it from calling; with `gaps` the call goes out, but the centre is told less than it could.
    """

    line: str
    name: str
    country: str
    numbers: tuple[str, ...]
    routes: tuple[Route, ...]
    shown: str
    place: str
    problems: tuple[str, ...]
    gaps: tuple[str, ...]


def readiness(calls: EmergencyCalls, plans: Plans) -> Iterator[Readiness]:
    """Of every line of every plan."""
    for plan in plans:
        for line in plan.lines.values():
            origin = calls.origin(plan, line)
            general = calls.tables.general(origin.country)
            yield Readiness(
                origin.device, line.name, origin.country,
                numbers=tuple(one.number for one in calls.tables.numbers(origin.country) if one.kind == "vital"),
                routes=tuple(calls.routes(general, origin)) if general else (),
                shown=origin.shown.number,
                place=_one_line(origin.address) if origin.address else "",
                problems=tuple(_problems(calls, origin)),
                gaps=tuple(_gaps(calls, plan, line, origin)),
            )


def _problems(calls: EmergencyCalls, origin: Origin) -> Iterator[str]:
    if calls.tables.general(origin.country) is None:
        country = origin.country
        yield f"no emergency number of {country} is known: write {country}.yml into config/emergency"
    if not calls.ways:
        yield "no trunk is in use: enable one in config/pbx.yml"


def _gaps(calls: EmergencyCalls, plan: Plan, line: Line, origin: Origin) -> Iterator[str]:
    if not origin.shown.number:
        yield 'nobody can call back: give the line or its site a "number"'
    elif origin.shown.number not in plan.answers:
        yield f'nobody answers {origin.shown.number}: say under "numbers" who does'
    engine = any(way.translation == "engine" for way in calls.ways)
    if origin.address is None:
        yield f'no place is told: write the "address" of {f"site {line.site}" if line.site else "its site"}'
    elif engine and not origin.address.insee:
        yield 'the centre is not found: the address has no "insee"'
    elif engine and calls.centres and origin.address.insee not in calls.centres.communes:
        yield f"the centre is not found: commune {origin.address.insee} is not in the list of centres"


def _one_line(address: Address) -> str:
    street = f"{address.house or ''} {address.street}".strip()
    return f"{street}, {address.postcode} {address.city}"
