from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import BeforeValidator
from pydantic import Field

from pbx.dial import CallerId
from pbx.dial import Destination
from pbx.leg import Outcome
from pbx.prompt import several
from pbx.step import Run
from pbx.step import Step
from pbx.step import Steps
from pbx.tenant import RING_MS
from pbx.tenant import Group
from pbx.tenant import Line
from pbx.tenant import RingTime
from pbx.tenant import Target


class Dial(Step):
    """Rings somebody, and lets the two talk.

    ```yaml
    - dial: sales
    - dial: ["101", "102"]
    - dial: "+33199000199"
    - dial:
        to: "102"
        for: 15s
        busy: {say: "Bob est en ligne."}
        no_answer: {voicemail: "102"}
    ```

    `to` is a line, a group, an outside number in full, or several of them, which ring at once; also a text with a
    variable, such as `"{digits}"`, for a line or a group that the caller chose himself (never for an outside number).
    The caller hears ringing. Once somebody answers they talk, and the call ends with their conversation. Nobody
    answers: what `busy`, `no_answer` or `unreachable` say is done, then the next step follows. When the contract
    forbids the call, and nobody else could be rung, the caller hears why, and the call ends.
    """

    word = "dial"
    short = "to"
    takes_time = True

    to: Annotated[
        tuple[Target, ...],
        BeforeValidator(several, json_schema_input_type=Target | list[Target]),
        Field(min_length=1, description="A line, a group, an outside number in full, or a list of them"),
    ]
    for_: RingTime | None = Field(None, description="How long it rings, instead of the time of the line or group")
    busy: Steps | None = Field(None, description="When those who could be reached are talking, or refuse the call")
    no_answer: Steps | None = Field(None, description="When it rang and nobody answered")
    unreachable: Steps | None = Field(None, description="When no handset is there")

    @property
    def exhaustive(self) -> bool:
        return None not in (self.busy, self.no_answer, self.unreachable)

    async def run(self, run: Run) -> None:
        caller = CallerId(run.variables["caller"], run.variables["caller_name"])
        tried = []
        for destinations, ring_ms in self._rings(run):
            dialled = await run.call.dial(destinations, ring_ms=ring_ms, caller=caller)
            if dialled.leg is not None:
                await run.call.talk(dialled.leg)
                await run.call.hangup()
            tried.append(dialled)
        refusal = next((dialled.refusal for dialled in tried), None)
        if refusal and all(dialled.refusal for dialled in tried):
            await run.refuse(refusal)
        branch = self._branch([dialled.outcome for dialled in tried])
        if branch:
            await run.steps(branch)

    def _branch(self, outcomes: list[Outcome]) -> Steps | None:
        """Somebody who did not answer says more than one who was busy, and he more than a handset that is not there."""
        if Outcome.NO_ANSWER in outcomes:
            return self.no_answer
        if Outcome.BUSY in outcomes or Outcome.REFUSED in outcomes:
            return self.busy
        return self.unreachable

    def _rings(self, run: Run) -> Iterator[tuple[list[Destination], int]]:
        """Who rings at the same time and for how many milliseconds, one ringing after another."""
        found = [run.plan.target(target.fill(run.variables), outside=not target.names) for target in self.to]
        if len(found) == 1 and isinstance(found[0], Group) and found[0].ring == "in order":
            for number in found[0].lines:
                yield [run.plan.handset(run.plan.lines[number])], self.for_ or found[0].for_
            return
        destinations: dict[str, Destination] = {}
        longest = 0
        for target in found:
            for destination in self._destinations(run, target):
                destinations[destination.endpoint] = destination
                longest = max(longest, target.for_ if isinstance(target, Line | Group) else RING_MS)
        if destinations:
            yield list(destinations.values()), self.for_ or longest

    def _destinations(self, run: Run, target: Line | Group | str | None) -> Iterator[Destination]:
        if isinstance(target, Line):
            yield run.plan.handset(target)
        elif isinstance(target, Group):
            yield from (run.plan.handset(run.plan.lines[number]) for number in target.lines)
        elif target is not None:
            outside = run.plan.outside(target, run.line, run.call.dialled)
            if outside is not None:
                yield outside
