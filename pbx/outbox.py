"""Lines on their way to the database: gathered in memory, written in groups, kept on disk while it is away."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from pbx import metrics
from pbx.database import StoreError
from pbx.spool import Spool

log = logging.getLogger(__name__)

_GATHER = 0.25  # seconds between transactions, in which lines gather; a crash of the engine may cost as much
_GROUP = 200  # lines in one transaction
_MOST_IN_MEMORY = 10_000  # lines, about 50 MB; only a full or missing spool lets them grow that far
_FIRST_RETRY = 0.5  # seconds
_LAST_RETRY = 30.0  # seconds


class Outbox:
    """Hands every line to `write`, oldest first, in groups that are written as a whole or not at all.

    `write` raises StoreError. While it does, lines wait in the spool, if there is one, and are tried again. After a
    crash some may be written twice. A line that is itself at fault is set aside, in a file beside the spool.
    """

    def __init__(self, spool: Path | None, write: Callable[[Sequence[bytes]], Awaitable[None]]) -> None:
        self._write_group = write
        self._spool = Spool(spool) if spool else None
        self._waiting: deque[bytes] = deque()  # younger than every line in the spool
        self._arrived = asyncio.Event()
        self._turn = asyncio.Lock()  # held by whoever moves lines
        self._writer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Starts writing, first what an earlier process left in the spool. Raises StoreError if that cannot be used."""
        if self._spool:
            try:
                await asyncio.to_thread(self._spool.open)
            except OSError as error:
                raise StoreError(self._spool_problem(error)) from error
            if self._spool.waiting:
                log.info("%d records of an earlier run wait in %s", self._spool.waiting, self._spool.path)
                self._arrived.set()
        self._writer = asyncio.create_task(self._write_for_ever(), name="record writer")

    async def close(self) -> None:
        """Writes what waits, to the spool if that is all there is."""
        if self._writer is None:
            return
        async with self._turn:  # never in the middle of a transaction
            self._writer.cancel()
        await asyncio.wait([self._writer])
        self._writer = None
        try:
            await self.flush()
        except StoreError as error:
            if self._waiting:
                log.error("%d records are lost: %s", len(self._waiting), error)
            else:
                log.warning("%s; %d records wait in the spool for the next start", error, self._count())
        if self._spool:
            await asyncio.to_thread(self._spool.close)

    def put(self, line: bytes) -> None:
        """Never waits. Raises StoreError when nothing could be written for so long that the memory is full."""
        if len(self._waiting) >= _MOST_IN_MEMORY:
            raise StoreError(f"{_MOST_IN_MEMORY} records wait in memory already, and none can be written")
        self._waiting.append(line)
        metrics.records_waiting.set(self._count())
        self._arrived.set()

    async def flush(self) -> None:
        """Writes everything that waits, now. Raises StoreError when that fails. Not to be cancelled half-way."""
        async with self._turn:
            try:
                await self._write_spooled()
                await self._write_waiting()
            except StoreError:
                await self._spill()
                raise
            except OSError as error:
                raise StoreError(self._spool_problem(error)) from error
            finally:
                metrics.records_waiting.set(self._count())

    def _count(self) -> int:
        return len(self._waiting) + (self._spool.waiting if self._spool else 0)

    async def _write_for_ever(self) -> None:
        retry = _FIRST_RETRY
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            try:
                await self.flush()
                await asyncio.sleep(_GATHER)
                retry = _FIRST_RETRY
            except Exception as error:  # a defect too: the writer outlives it, and what waits is not lost
                defect = not isinstance(error, StoreError)
                log.warning("%s; %d records wait, next try in %g s", error, self._count(), retry, exc_info=defect)
                await self._spill_for(retry)
                retry = min(retry * 2, _LAST_RETRY)
                self._arrived.set()

    async def _spill_for(self, seconds: float) -> None:
        """Sits out an outage: what arrives meanwhile goes to the disk at once."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (left := until - loop.time()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self._arrived.wait()
            except TimeoutError:
                return
            self._arrived.clear()
            async with self._turn:
                await self._spill()
            await asyncio.sleep(min(_GATHER, left))

    async def _spill(self) -> None:
        """Moves the lines in memory to the spool. When that fails too they stay, and the next outcome is the same."""
        if not self._spool or not self._waiting:
            return
        lines = list(self._waiting)
        try:
            await asyncio.to_thread(self._spool.append, lines)
        except OSError as error:
            log.error("%s; %d records stay in memory", self._spool_problem(error), len(lines))
        else:
            self._drop(len(lines))

    async def _write_spooled(self) -> None:
        while self._spool and self._spool.waiting:
            lines = await asyncio.to_thread(self._spool.head, _GROUP)
            await self._write(lines)
            await asyncio.to_thread(self._spool.forget, lines)
            if len(self._waiting) > _GROUP:
                await self._spill()  # a long spool must not fill the memory while it is written

    async def _write_waiting(self) -> None:
        while lines := list(islice(self._waiting, _GROUP)):
            await self._write(lines)
            self._drop(len(lines))

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self._waiting.popleft()

    async def _write(self, lines: Sequence[bytes]) -> None:
        try:
            await self._write_group(lines)
        except StoreError as error:
            if not error.record_at_fault:
                raise
            if len(lines) == 1:
                await self._set_aside(lines[0], error)
                return
            # One bad record must not hold up the others for ever.
            for line in lines:
                await self._write([line])

    async def _set_aside(self, line: bytes, error: StoreError) -> None:
        if not self._spool:
            log.error("a record is lost, no database would take it: %s", error)
            return
        refused = Spool(self._spool.path.with_suffix(".refused"))
        log.error("a record that no database would take is set aside in %s: %s", refused.path, error)
        await asyncio.to_thread(_append_alone, refused, line)

    def _spool_problem(self, error: OSError) -> str:
        path = self._spool.path if self._spool else None
        if isinstance(error, BlockingIOError):
            return (
                f"another PBX is running here (it has the spool {path}): stop it, "
                'or give this one another "node", "worker" or "var" in config/pbx.yml'
            )
        return f"the spool {path} cannot be used: {error.strerror or error}"


def _append_alone(spool: Spool, line: bytes) -> None:
    spool.open()
    try:
        spool.append([line])
    finally:
        spool.close()
