"""What the PBX remembers: one record per conversation with its legs and timeline, and the voicemail messages."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from datetime import timedelta
from typing import Any

_ZERO = timedelta()
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(slots=True)
class LegRecord:
    """One outbound leg of a call: who was tried, over which endpoint, and what became of it.

    Times are aware and in UTC; a time that never came is None. `outcome` is "answered", "busy", "no_answer",
    "unreachable", "refused", "cancelled" or "answered_elsewhere"; `cause` is the Q.850 hangup cause;
    `ended_by` is "caller", "callee", "engine" or "asterisk".
    """

    id: str
    number: int  # 1 for the first leg of the call
    target: str  # whom: "101", "+33199000101"
    endpoint: str  # through what: "PJSIP/acme-101"
    name: str = ""
    created_at: datetime | None = None
    ringing_at: datetime | None = None
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    outcome: str = ""
    cause: int = 0
    ended_by: str = ""


@dataclass(slots=True)
class Moment:
    """One line of a call's timeline: an event or a decision. `detail` holds what JSON can hold."""

    at: datetime
    offset_ms: int  # since the start of the call, by a clock that never steps back
    kind: str
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class CallRecord:
    """One conversation. `direction` is "inbound", "outbound" or "internal"; the rest reads as in LegRecord."""

    id: str
    node: str
    worker: str
    epoch: int
    tenant: str
    direction: str
    caller_number: str
    caller_name: str
    dialled: str
    plan_version: str
    started_at: datetime
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    outcome: str = ""
    cause: int = 0
    ended_by: str = ""
    legs: list[LegRecord] = field(default_factory=list)
    timeline: list[Moment] = field(default_factory=list)

    @property
    def duration_ms(self) -> int:
        """From the first to the last moment of the call; 0 while it goes on, and never negative."""
        return _ms_between(self.started_at, self.ended_at)

    @property
    def talk_ms(self) -> int:
        """From the answer to the end; never more than `duration_ms`, even when the wall clock was set back."""
        return min(_ms_between(self.answered_at, self.ended_at), self.duration_ms)


@dataclass(slots=True)
class Message:
    """One voicemail message. `file` is the recording's name in Asterisk, without extension."""

    id: str
    tenant: str
    box: str
    call_id: str
    caller_number: str
    caller_name: str
    recorded_at: datetime
    duration_ms: int
    file: str
    heard_at: datetime | None = None
    deleted_at: datetime | None = None


def _ms_between(start: datetime | None, end: datetime | None) -> int:
    if start is None or end is None:
        return 0
    return max(end - start, _ZERO) // _MILLISECOND
