"""The switchboard: an arriving channel becomes a call, the call gets its flow, and its record is kept.

One task per call. However a call ends, its `finally` releases every leg and bridge and saves the record.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pbx import metrics
from pbx import numbers
from pbx.ari import Ari
from pbx.ari import AriError
from pbx.ari import Gone
from pbx.ari import Snapshot
from pbx.call import Call
from pbx.call import Hangup
from pbx.call import Speaker
from pbx.clock import Clock
from pbx.dialplan import Plan
from pbx.dialplan import Plans
from pbx.dialplan import Route
from pbx.emergency import Emergency
from pbx.emergency_call import EmergencyCalls
from pbx.emergency_call import Origin
from pbx.leg import Cause
from pbx.policy import Gate
from pbx.step import Run
from pbx.step import Services
from pbx.store import CallRecord

if TYPE_CHECKING:
    from pbx.ari_api import StasisStart

log = logging.getLogger(__name__)

STATIC_ROUTE = "absent-emergency"  # a context of asterisk/extensions.conf.j2
STOP_S = 5.0  # for the last events of all calls
LONGEST_NAME = 80  # characters; anybody can write anything into a SIP header
WITHHELD = {"anonymous", "restricted", "unavailable", "unknown"}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this engine is among others, and which of its lives this is; names every call."""

    node: str
    worker: str
    epoch: int


class Engine:
    """Serves every call that Asterisk hands over to the ARI application.

    `trunks` are those of the configuration with the country whose national numbers they use.
    """

    def __init__(
        self, ari: Ari, plans: Plans, services: Services, *, app: str, identity: Identity, clock: Clock,
        speaker: Speaker, trunks: Mapping[str, str], emergencies: EmergencyCalls, gate: Gate = Gate(),
    ) -> None:
        self.plans = plans
        self.calls: dict[str, Call] = {}
        self._ari = ari
        self._services = services
        self._app = app
        self._identity = identity
        self._clock = clock
        self._speaker = speaker
        self._trunks = trunks
        self.emergencies = emergencies
        self._gate = gate
        self._tasks: set[asyncio.Task[None]] = set()
        self._sequence = 0
        self._stopping = False
        ari.on_arrival = self._arrived
        ari.on_snapshot = self._clear_orphans

    async def stop(self) -> None:
        """Releases all calls (callers hear why: temporary failure) and waits until their records are saved.

        Each caller is hung up on, and his flow ends as it does when he leaves himself: a message that was being
        recorded is kept. What has not ended then is cut short. Emergency calls are left to Asterisk.
        """
        self._stopping = True
        calls = list(self.calls.values())
        for call in calls:
            call.note("engine_stopped")
        await asyncio.gather(*(self._quietly(self._let_go(call)) for call in calls))
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=STOP_S)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    async def _let_go(self, call: Call) -> None:
        if call.emergency:
            with contextlib.suppress(Hangup):
                await call.send_on(STATIC_ROUTE, call.emergency)
        else:
            await call.caller.hangup(Cause.TEMPORARY_FAILURE)

    # -- arrivals -----------------------------------------------------------------------------

    def _arrived(self, event: StasisStart) -> None:
        """A channel nobody expected: somebody calls. Registered here and now, before its next event."""
        channel = event["channel"]
        kind, endpoint, dialled = (*event["args"], "", "", "")[:3]
        self._sequence += 1
        who = self._identity
        caller = channel["caller"]
        record = CallRecord(
            id=f"{who.node}.{who.worker}.{who.epoch}.{self._sequence}", node=who.node, worker=who.worker,
            epoch=who.epoch, tenant="", direction="inbound", caller_number=_said(caller["number"]),
            caller_name=_said(caller["name"]), dialled=dialled, plan_version="", started_at=self._clock.now(),
        )
        call = Call(
            self._ari, channel["id"], record, app=self._app, clock=self._clock, speaker=self._speaker, language="en",
            gate=self._gate,
        )
        call.caller.on_event(event)
        self.calls[call.id] = call
        task = asyncio.get_running_loop().create_task(self._serve(call, kind, endpoint), name=f"call {call.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, call: Call, kind: str, endpoint: str) -> None:
        """Runs a call from arrival to record."""
        cause = Cause.NORMAL
        try:
            if kind == "line":
                await self._from_line(call, endpoint)
            else:
                await self._from_trunk(call, endpoint)
        except Hangup:
            if call.caller.released_with is None:
                call.note("asterisk_crashed" if call.caller.crashed else "caller_left")
        except asyncio.CancelledError:
            cause = Cause.TEMPORARY_FAILURE
        except Exception as error:
            cause = Cause.TEMPORARY_FAILURE
            call.note("failed", error=f"{type(error).__name__}: {error}")
            log.exception("call %s failed", call.id)
        finally:
            await self._finish(call, cause)

    async def _finish(self, call: Call, cause: int) -> None:
        record = call.record
        if record.tenant:
            metrics.calls_now.labels(record.tenant).dec()
        try:
            await call.release(cause)
        finally:
            del self.calls[call.id]
            metrics.calls.labels(record.tenant, record.direction, record.outcome).inc()
            self._services.store.save(record)

    def _enter_plan(self, call: Call, plan: Plan, direction: str) -> None:
        """Binds the call to its tenant's present plan; it keeps this version to its end."""
        record = call.record
        record.tenant, record.direction, record.plan_version = plan.tenant, direction, plan.version
        metrics.calls_now.labels(record.tenant).inc()
        call.language = plan.language

    async def _from_line(self, call: Call, endpoint: str) -> None:
        try:
            emergency = self.emergencies.dialled(self.plans, endpoint, call.dialled)
        except Exception:
            # It may have been one. Asterisk knows their numbers, too.
            log.exception("call %s: the number dialled cannot be judged", call.id)
            await call.send_on(f"absent-{endpoint.rpartition('-')[0]}", call.dialled)
            return
        if emergency is not None:
            await self._emergency(call, *emergency)
            return
        if self._stopping:
            await call.reject(Cause.CONGESTION)
        found = self.plans.line(endpoint)
        if found is None:
            call.note("unknown_line", endpoint=endpoint)
            await call.reject(Cause.REJECTED)
            return
        plan, line = found
        route = plan.route_from_line(line, call.dialled)
        self._enter_plan(call, plan, "outbound" if route.outbound else "internal")
        call.line, call.language = line.id, line.language or plan.language
        call.record.caller_number, call.record.caller_name = line.id, line.name
        call.note("arrived", line=line.id, dialled=call.dialled, plan=plan.version)
        await Run(call, plan, self._services, line=line).flow(route.flow)
        await call.let_go()

    async def _from_trunk(self, call: Call, endpoint: str) -> None:
        if self._stopping:
            await call.reject(Cause.CONGESTION)
        found = self._company_number(call.dialled, endpoint)
        if found is None:
            call.note("unknown_number", dialled=call.dialled, trunk=endpoint)
            await call.reject(Cause.UNALLOCATED)
            return
        plan, route = found
        self._enter_plan(call, plan, "inbound")
        call.note("arrived", trunk=endpoint, dialled=call.dialled, plan=plan.version)
        await Run(call, plan, self._services).flow(route.flow)
        await call.let_go()

    def _company_number(self, dialled: str, endpoint: str) -> tuple[Plan, Route] | None:
        """Whose number was called: carriers write it in full, with or without +, or nationally."""
        country = self._trunks.get(endpoint.removeprefix("trunk-"), "")
        for number in (dialled, f"+{dialled}", numbers.e164(dialled, country) if country else None):
            found = self.plans.number(number) if number else None
            if found:
                return found
        return None

    async def _emergency(self, call: Call, emergency: Emergency, origin: Origin) -> None:
        """Serves an emergency call; what goes wrong here leaves it to the way that Asterisk has without an engine."""
        call.emergency = emergency.number
        plan, line = origin.plan, origin.line
        try:
            if plan is not None:
                self._enter_plan(call, plan, "outbound")
            call.record.direction = "outbound"
            call.language = origin.language
            call.line = line.id if line else ""
            call.record.caller_number, call.record.caller_name = (line.id, line.name) if line else (origin.device, "")
            version = plan.version if plan else ""
            call.note("arrived", line=call.record.caller_number, dialled=call.dialled, plan=version)
            if self._stopping:
                await call.send_on(STATIC_ROUTE, emergency.number)
            await self.emergencies.serve(call, emergency, origin)
        except Hangup:
            raise
        except Exception as error:
            call.note("failed", error=f"{type(error).__name__}: {error}")
            log.exception("emergency call %s failed: Asterisk sends it out by itself", call.id)
            await call.send_on(STATIC_ROUTE, emergency.number)

    # -- reconnection ---------------------------------------------------------------------------

    async def _clear_orphans(self, snapshot: Snapshot) -> None:
        """Releases channels and bridges of our application that no call of this engine owns.

        They are what a former life of the engine left: nobody else would ever end them. One at a time,
        because Asterisk has crashed on parallel removal.
        """
        mine = {channel for call in self.calls.values() for channel in call.channels}
        for channel in snapshot.channels:
            if channel["id"] not in mine:
                log.warning("releasing channel %s, left by a former engine", channel["id"])
                await self._quietly(self._ari.channels.hangup(channel["id"], reason_code=str(Cause.TEMPORARY_FAILURE)))
        owned = {bridge for call in self.calls.values() for bridge in call.bridges}
        # Asterisk does not say whose a bridge is; its id does, and other workers have theirs.
        ours = f"{self._identity.node}.{self._identity.worker}."
        for bridge in snapshot.bridges:
            if bridge["id"].startswith(ours) and bridge["id"] not in owned:
                log.warning("destroying bridge %s, left by a former engine", bridge["id"])
                await self._quietly(self._ari.bridges.destroy(bridge["id"]))

    async def _quietly(self, command: Awaitable[object]) -> None:
        try:
            await command
        except Gone:
            pass
        except AriError as error:
            log.warning("%s", error)


def _said(text: str) -> str:
    """What a caller says of himself, fit for records and other people's telephones; "" when he will not say."""
    shown = "".join(char for char in text if char.isprintable())[:LONGEST_NAME]
    return "" if shown.lower() in WITHHELD else shown
