"""The telephone network outside: people who call the PBX through its trunk, and people whom it calls."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from live.phone import Phone
from live.sound import Sound
from live.sound import tone

from pbx.prefix import Prefix


class Carrier:
    """The other end of a trunk of fixed address: it expects the PBX's calls at `port`, and sends its own to `server`.

    Everybody out there has a telephone of his own, which is stopped when `people` is left. `noticed` waits
    until the PBX knows that somebody is at `port`.
    """

    def __init__(
        self, folder: Path, prefix: Prefix, people: AsyncExitStack, *, server: str, port: int,
        noticed: Callable[[], Awaitable[None]],
    ) -> None:
        self.server = server
        self.port = port
        self._noticed = noticed
        self._folder = folder
        self._prefix = prefix
        self._exit = people
        self._people = itertools.count(1)
        self._callers = itertools.count(1)

    async def calls(self, number: str, *, caller: str = "", playing: Sound | None = None) -> Phone:
        """Somebody dials `number` and says `playing`, a tone of 620 Hz unless given.

        He calls from `caller`, or from a number that nobody had before. The telephone's name is that number.
        """
        phone = await self._person(caller or f"+3363998{next(self._callers):04}", playing)
        await phone.dials(f"sip:{number}@{self.server}")
        return phone

    async def subscriber(self, number: str, *, playing: Sound | None = None) -> Phone:
        """The one telephone out there that the PBX can call for the time being, at `number`."""
        phone = await self._person(number, playing, sip_port=self.port)
        await self._noticed()
        return phone

    async def _person(self, number: str, playing: Sound | None, sip_port: int | None = None) -> Phone:
        phone = Phone(number, self._folder / str(next(self._people)), self._prefix)
        await phone.start(playing or tone(620, 60), sip_port=sip_port)
        self._exit.push_async_callback(phone.stop)
        await phone.is_known_as(f"{number}@127.0.0.1:{phone.sip_port}")
        return phone
