"""The switchboard: an arriving channel becomes a call, the call gets its flow, and its record is kept.

One task per call. However a call ends, its `finally` releases every leg and bridge and saves the record.
"""

from __future__ import annotations

import asyncio
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
from pbx.dial import CallerId
from pbx.dial import Destination
from pbx.dialplan import Plan
from pbx.dialplan import Plans
from pbx.dialplan import Route
from pbx.leg import Cause
from pbx.leg import Outcome
from pbx.policy import Gate
from pbx.step import Run
from pbx.step import Services
from pbx.store import CallRecord

if TYPE_CHECKING:
    from pbx.ari_api import StasisStart

log = logging.getLogger(__name__)

EMERGENCY_RING_MS = 90_000
EMERGENCY_PAUSE_MS = 2_000
STOP_S = 5.0  # for the last events of all calls


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this engine is among others, and which of its lives this is; names every call."""

    node: str
    worker: str
    epoch: int


class Engine:
    """Serves every call that Asterisk hands over to the ARI application.

    `trunks` are those of the configuration with the country whose national numbers they use, in the order in which
    emergency calls try them.
    """

    def __init__(
        self, ari: Ari, plans: Plans, services: Services, *, app: str, identity: Identity, clock: Clock,
        speaker: Speaker, trunks: Mapping[str, str], gate: Gate = Gate(),
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
        self._gate = gate
        self._tasks: set[asyncio.Task[None]] = set()
        self._sequence = 0
        self._stopping = False
        ari.on_arrival = self._arrived
        ari.on_snapshot = self._clear_orphans

    async def stop(self) -> None:
        """Releases all calls (callers hear why: temporary failure) and waits until their records are saved.

        Each caller is hung up on, and his flow ends as it does when he leaves himself: a message that was being
        recorded is kept. What has not ended then is cut short.
        """
        self._stopping = True
        calls = list(self.calls.values())
        for call in calls:
            call.note("engine_stopped")
        await asyncio.gather(*(self._quietly(call.caller.hangup(Cause.TEMPORARY_FAILURE)) for call in calls))
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=STOP_S)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

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
            epoch=who.epoch, tenant="", direction="inbound", caller_number=caller["number"],
            caller_name=caller["name"], dialled=dialled, plan_version="", started_at=self._clock.now(),
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
            if self._stopping:
                await call.reject(Cause.CONGESTION)
            if kind == "line":
                await self._from_line(call, endpoint)
            else:
                await self._from_trunk(call, endpoint)
        except Hangup:
            if call.caller.released_with is None:
                call.note("caller_left")

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
        found = self.plans.line(endpoint)
        if found is None:
            call.note("unknown_line", endpoint=endpoint)
            await call.reject(Cause.REJECTED)
            return
        plan, line = found
        emergency = plan.emergency(line, call.dialled)
        route = plan.route_from_line(line, call.dialled)
        self._enter_plan(call, plan, "outbound" if emergency or route.outbound else "internal")
        call.line, call.language = line.id, line.language or plan.language
        call.record.caller_number, call.record.caller_name = line.id, line.name
        call.note("arrived", line=line.id, dialled=call.dialled, plan=plan.version)
        if emergency:
            await self._emergency(call, emergency.number, plan.caller_id(line))
        else:
            await Run(call, plan, self._services, line=line).flow(route.flow)
            await call.hangup(Cause.NORMAL)

    async def _from_trunk(self, call: Call, endpoint: str) -> None:
        found = self._company_number(call.dialled, endpoint)
        if found is None:
            call.note("unknown_number", dialled=call.dialled, trunk=endpoint)
            await call.reject(Cause.UNALLOCATED)
            return
        plan, route = found
        self._enter_plan(call, plan, "inbound")
        call.note("arrived", trunk=endpoint, dialled=call.dialled, plan=plan.version)
        await Run(call, plan, self._services).flow(route.flow)
        await call.hangup(Cause.NORMAL)

    def _company_number(self, dialled: str, endpoint: str) -> tuple[Plan, Route] | None:
        """Whose number was called: carriers write it in full, with or without +, or nationally."""
        country = self._trunks.get(endpoint.removeprefix("trunk-"), "")
        for number in (dialled, f"+{dialled}", numbers.e164(dialled, country) if country else None):
            found = self.plans.number(number) if number else None
            if found:
                return found
        return None

    async def _emergency(self, call: Call, number: str, caller: CallerId) -> None:
        """Sends an emergency call out on one trunk after another, for as long as the caller is there.

        Nothing of the plan, and no policy, is asked.
        """
        call.emergency = True
        call.note("emergency", number=number)
        while True:
            for trunk in self._trunks:
                to = Destination(f"PJSIP/{number}@trunk-{trunk}", number)
                dialled = await call.dial([to], ring_ms=EMERGENCY_RING_MS, caller=caller)
                if dialled.outcome is Outcome.ANSWERED and dialled.leg is not None:
                    await call.talk(dialled.leg)
                    await call.hangup(Cause.NORMAL)
            if not self._trunks:
                call.note("emergency_without_trunk", number=number)
                log.critical("call %s: no trunk for emergency number %s", call.id, number)
                await call.reject(Cause.CONGESTION)
            await call.wait(EMERGENCY_PAUSE_MS)

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
