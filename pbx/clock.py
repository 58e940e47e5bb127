"""Wall time, injected, so that months can be tested in milliseconds. Timers use the event loop's own clock."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The present moment as an aware datetime in UTC."""


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)
