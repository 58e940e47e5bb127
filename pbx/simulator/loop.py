"""A clock that jumps: an event loop which never sleeps, so that an hour of calls costs only its events."""

from __future__ import annotations

import asyncio
import functools
import inspect
import selectors
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Coroutine
from concurrent.futures import Executor
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import TYPE_CHECKING
from typing import Any
from typing import ParamSpec
from typing import TypeVar

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

T = TypeVar("T")
P = ParamSpec("P")

OUTSIDE_S = 10.0  # real seconds that a thread or a program outside the loop gets before it counts as stuck
_POLL_S = 0.05  # a thread that nobody announced may still wake the loop: so long is it listened for


class Deadlock(Exception):
    """Every task waits, and nothing is left that could wake one; the message names them and where they wait."""


class Leftover(Exception):
    """A story ended and left tasks or unhandled errors behind; the message names them."""


class _Jump(selectors.DefaultSelector):
    """Where a loop would sleep until its next timer, moves the loop's time there.

    Threads (run_in_executor) and pipes (programs) live in real time: while one is awaited, virtual time stands still.
    """

    loop: VirtualLoop
    readers = 0

    def register(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> selectors.SelectorKey:
        self.readers += 1
        return super().register(fileobj, events, data)

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        self.readers -= 1
        return super().unregister(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return super().select(0) if self._outside() else []
        if self._outside():
            ready = super().select(OUTSIDE_S)
            if not ready:
                raise Deadlock(f"nothing outside answered in {OUTSIDE_S:.0f} real seconds\n{waiting(self.loop)}")
            return ready
        if timeout is not None:
            self.loop.jump(timeout)
            return []
        ready = super().select(_POLL_S)
        if not ready:
            raise Deadlock(f"nothing can wake the loop again\n{waiting(self.loop)}")
        return ready

    def _outside(self) -> bool:
        # One reader is the loop's own pipe, through which threads wake it.
        return self.loop.threads > 0 or self.readers > 1


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time()` starts at 0 and jumps to the next timer whenever nothing is ready.

    Raises Deadlock when nothing is ready and there is no timer. Work in threads that were not started by
    `run_in_executor` is waited for only while no timer is pending.
    """

    def __init__(self) -> None:
        self._moment = 0.0
        self.threads = 0
        selector = _Jump()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self._moment

    def jump(self, seconds: float) -> None:
        self._moment += seconds

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self.threads += 1
        future.add_done_callback(self._thread_ended)
        return future

    def _thread_ended(self, future: asyncio.Future[Any]) -> None:
        self.threads -= 1


class VirtualClock:
    """Wall time (`pbx.clock.Clock`) that follows a loop's own time."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop | None = None, start: datetime = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
    ) -> None:
        self._loop = loop or asyncio.get_running_loop()
        self._start = start - timedelta(seconds=self._loop.time())

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._loop.time())


def run(story: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on a virtual loop of its own, and gives its result.

    Raises Deadlock when it can never end, and Leftover when tasks or errors that nobody handled are left after it.
    """
    loop = VirtualLoop()
    unhandled: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unhandled.append(context))
    try:
        asyncio.set_event_loop(loop)
        result = loop.run_until_complete(story)
        left = asyncio.all_tasks(loop)
        if left:
            raise Leftover(f"{len(left)} tasks are left\n{waiting(loop)}")
        if unhandled:
            raise Leftover(f"an error was not handled: {unhandled[0]}") from unhandled[0].get("exception")
        return result
    finally:
        _clear(loop)
        asyncio.set_event_loop(None)
        loop.close()


def virtual(story: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Makes an async test run on a virtual loop (see `run`)."""

    @functools.wraps(story)
    def told(*args: P.args, **kwargs: P.kwargs) -> None:
        async def tell() -> None:
            await story(*args, **kwargs)

        run(tell())

    return told


def waiting(loop: asyncio.AbstractEventLoop) -> str:
    """One line per unfinished task: its name, and where it waits."""
    return "\n".join(sorted(f"  {task.get_name()}: {_place(task)}" for task in asyncio.all_tasks(loop)))


def _place(task: asyncio.Task[Any]) -> str:
    """The innermost line of a suspended task: the await that does not come back."""
    place = ""
    inner: Any = task.get_coro()
    while inspect.iscoroutine(inner):
        if inner.cr_frame is not None:
            place = f"{inner.cr_code.co_filename}:{inner.cr_frame.f_lineno} in {inner.cr_code.co_qualname}"
        inner = inner.cr_await
    return place


def _clear(loop: VirtualLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=60))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
