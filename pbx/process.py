"""A process to wait for and to end, whether it is our child or not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess

log = logging.getLogger(__name__)


class Process:
    """A process, child or not. Held by a pidfd, it is never mistaken for another that got its number later."""

    def __init__(self, pid: int, child: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self._child = child
        self._pidfd = os.pidfd_open(pid)  # raises ProcessLookupError
        self._gone = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_end)

    async def ended(self) -> str:
        """Waits for its end, and says how that came."""
        await self._gone.wait()
        status = self._child.returncode if self._child else None
        if status is None:
            return "how is not known"
        return f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"

    async def end(self, patience: float) -> None:
        """Asks it to end and, after `patience` seconds or when cancelled, makes it. Returns when it is gone."""
        try:
            self._send(signal.SIGTERM)
            async with asyncio.timeout(patience):
                await self._gone.wait()
        except TimeoutError:
            log.warning("process %d does not end by itself: it is killed", self.pid)
        finally:
            self._send(signal.SIGKILL)
            await asyncio.shield(self._gone.wait())

    def _send(self, number: signal.Signals) -> None:
        if not self._gone.is_set():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def _on_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        if self._child:
            self._child.wait()
        self._gone.set()
