"""Telephones for live tests, each a baresip of its own.

A verb either does something (`dials`, `answers`, `presses`) or waits for something (`rings`, `hears`, `is_released`).
Every wait has a deadline; a test that meets it fails with all that the telephone went through.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any
from typing import Literal
from typing import NoReturn
from typing import Self

from pbx.ports import free_port
from pbx.prefix import Prefix
from live import sound
from live.baresip import Baresip
from live.baresip import Refused
from live.sound import Sound

PATIENCE = 10.0  # seconds a test waits for what must happen
_BREATH = 0.5  # seconds
_LOOK_AGAIN = 0.1  # seconds between two looks at a recording that grows
_SILENCE_AFTER = 300.0  # seconds; see baresip.py


@dataclass
class Call:
    """One call as its telephone sees it."""

    id: str
    peer: str
    ringing: bool = False  # here
    remote_rings: bool = False
    established: bool = False
    encrypted: bool = False
    ended: str | None = None  # why, in the words of SIP ("486 Busy Here"), once it has
    heard: Sound = field(default_factory=lambda: sound.silence(0), repr=False)  # all that was heard, once it has ended
    listened: float = 0.0  # seconds of the recording that a test has gone past


class Phone:
    """A telephone on 127.0.0.1. The verbs are about its newest call; waits take seconds and default to PATIENCE."""

    def __init__(self, name: str, folder: Path, prefix: Prefix, *, wideband: bool = False) -> None:
        self.name = name
        self.codec = "G722/16000/1" if wideband else "PCMA/8000/1"
        self.calls: list[Call] = []
        self.sip_port = 0
        self._folder = folder
        self._baresip = Baresip(folder, prefix, self._note)
        self._story: list[str] = []
        self._news = asyncio.Event()
        self._registration = ""
        self._lamp = ""
        self._files = 0

    async def start(self, playing: Sound, *, sip_port: int | None = None) -> None:
        """Starts the telephone; `playing` is what it says in every call until told otherwise."""
        self.sip_port = sip_port or free_port("127.0.0.1", ("udp", "tcp"), in_a_row=2)  # baresip wants the next for TLS
        self._folder.mkdir(parents=True)
        await self._baresip.start(self._file(playing), self.sip_port)

    async def stop(self) -> None:
        """Ends its calls, signs off and leaves no process."""
        await self._baresip.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def call(self) -> Call:
        if not self.calls:
            self._fail("has no call")
        return self.calls[-1]

    # Accounts

    async def is_known_as(self, address: str) -> None:
        """Calls from, and is called as, the SIP address `user@host:port` without signing on anywhere."""
        await self._add_account(address, "regint=0")

    async def registers(
        self, address: str, password: str, *, transport: str = "udp", within: float = PATIENCE
    ) -> None:
        """Signs on as `user@host:port` and subscribes to its message lamp. Over "tls" its sound is encrypted, too."""
        encryption = ";mediaenc=srtp" if transport == "tls" else ""
        await self._add_account(
            f"{address};transport={transport}", f"auth_pass={password};regint=120;mwi=yes{encryption}"
        )
        await self._until(lambda: self._registration, "is registered", within)
        if not self._registration.startswith("200"):
            self._fail(f"could not register: {self._registration}")

    async def lamp_shows(self, new: int, old: int = 0, *, within: float = PATIENCE) -> None:
        """Waits until the message lamp tells of `new` and `old` messages."""
        await self._until(lambda: f"{new}/{old}" == self._lamp, f"lamp shows {new}/{old}", within)

    # Calls

    async def dials(self, address: str) -> Call:
        """Starts a call to a number of its own server or to a SIP address."""
        answer = await self._baresip.command("dial", address)
        return self._call(answer.partition("call id: ")[2].strip(), address)

    async def rings(self, *, within: float = PATIENCE) -> Call:
        """Waits for a call from outside that nobody has answered."""
        await self._until(lambda: bool(self.calls) and self.call.ringing, "rings", within)
        return self.call

    async def is_ringing(self, *, within: float = PATIENCE) -> None:
        """Waits until the other side rings."""
        await self._until(lambda: self.call.remote_rings, "is told that the other side rings", within)

    async def answers(self, *, within: float = PATIENCE) -> None:
        await self._baresip.command("accept")
        await self.is_connected(within=within)

    async def rejects(self, *, within: float = PATIENCE) -> None:
        """Refuses the call that rings, as busy."""
        await self.hangs_up(within=within)

    async def is_connected(self, *, within: float = PATIENCE) -> None:
        await self._until(lambda: self.call.established, "is connected", within)

    async def hangs_up(self, *, within: float = PATIENCE) -> None:
        call = self.call
        await self._baresip.command("hangup")
        await self._until(lambda: call.ended is not None, "has hung up", within)

    async def is_released(self, reason: str = "", *, within: float = PATIENCE) -> str:
        """Waits until its call is over; with `reason` ("486") the end must begin with it. Returns how it ended."""
        call = self.call
        await self._until(lambda: call.ended is not None, "is released", within)
        ended = call.ended or ""
        if not ended.startswith(reason):
            self._fail(f'expected its call to end with "{reason}", not "{ended}"')
        return ended

    async def presses(self, keys: str) -> None:
        """Presses the keys (0-9 * #) one after the other, as RFC 4733 events."""
        for key in keys:
            await self._baresip.command("sndcode", key)

    async def holds(self) -> None:
        await self._baresip.command("hold")

    async def resumes(self) -> None:
        """Takes the call back. What is heard from now on is a recording of its own."""
        # baresip 1.1 resumes the call, then complains that there was no other one to put on hold.
        with contextlib.suppress(Refused):
            await self._baresip.command("resume")
        # Nor does it put the recording filter back in: now its file player records.
        self._files += 1
        await self._baresip.command("auplay", f"aufile,{self._baresip.heard / f'resumed-{self._files}-dec.wav'}")
        self.call.listened = 0

    async def transfers(self, address: str) -> None:
        """Sends the other side to `address` (REFER)."""
        await self._baresip.command("transfer", address)

    async def plays(self, what: Sound) -> None:
        """From now on says `what`, then nothing."""
        await self._baresip.command("ausrc", f"aufile,{self._file(what)}")

    async def says(self, what: Sound) -> None:
        """Takes a breath, says `what`, and waits until all of it is on its way; then says nothing.

        Without the breath he would talk into the silence at the end of a beep, after which Asterisk records.
        """
        what = sound.silence(_BREATH, rate=what.rate) + what
        said = self._recording("enc").seconds
        await self.plays(what)
        await self._until(
            lambda: self._recording("enc").seconds >= said + what.seconds, "has spoken", what.seconds + PATIENCE
        )

    # Listening

    def heard(self) -> Sound:
        """All that was heard so far in the newest call."""
        call = self.call
        return call.heard if call.ended is not None else self._recording("dec")

    def has_heard(self, prompt: Sound) -> bool:
        """Whether all of `prompt` is in what was heard so far."""
        return sound.search(prompt, self.heard()).found

    async def hears(self, prompt: Sound, *, within: float = PATIENCE) -> sound.Match:
        """Waits until all of `prompt` has been heard, after whatever was waited for before. Tells where (seconds)."""
        call = self.call
        begin = searched = call.listened
        match = sound.NOTHING

        def found() -> bool:
            nonlocal begin, searched, match
            heard = self.heard()
            if heard.seconds > searched:
                # What was searched in vain may still hold the beginning of the prompt.
                begin, searched = max(call.listened, searched - prompt.seconds), heard.seconds
                match = sound.search(prompt, heard.after(begin)).later(begin)
            return match.found

        await self._until(
            found, "hears the prompt", within, lambda: f"last match: {match}; heard {sound.describe(self.heard())}"
        )
        call.listened = match.end
        return match

    async def hears_tone(self, hz: float, *, seconds: float = 0.5, within: float = PATIENCE) -> None:
        """Waits until a tone has been heard for `seconds`, from now on."""
        since = self.heard().seconds
        await self._until(
            lambda: sound.tone_seconds(hz, self.heard().after(since)) >= seconds,
            f"hears {hz:.0f} Hz",
            within,
            lambda: f"heard {sound.describe(self.heard().after(since))}",
        )

    async def hears_other_than(self, hz: float, *, seconds: float = 0.5, within: float = PATIENCE) -> None:
        """Waits until sound has been heard for `seconds`, from now on, that is not a tone of `hz`."""
        since = self.heard().seconds

        def found() -> bool:
            new = self.heard().after(since)
            return sound.sounding_seconds(new) - sound.tone_seconds(hz, new) >= seconds

        await self._until(
            found, f"hears other than {hz:.0f} Hz", within, lambda: f"heard {sound.describe(self.heard().after(since))}"
        )

    async def hears_nothing(self, *, seconds: float = 1.0) -> None:
        """Listens for `seconds` and fails when there is sound."""
        since = self.heard().seconds
        await asyncio.sleep(seconds)
        noise = self.heard().after(since)
        # What was on its way when the listening began is not counted.
        if sound.sounding_seconds(noise.after(0.2)) > 0.1:
            self._fail(f"expected silence, heard {sound.describe(noise)}")

    # Inside

    async def _add_account(self, address: str, options: str) -> None:
        account = f"<sip:{address}>;audio_codecs={self.codec};audio_player=aubridge,nowhere"
        await self._baresip.command("uanew", f"{account};{options}")

    def _recording(self, direction: Literal["dec", "enc"]) -> Sound:
        """What was heard (decoded) or said (encoded) so far in the call that goes on."""
        files = sorted(self._baresip.heard.glob(f"*-{direction}.wav"))
        return Sound.read(files[-1]) if files else sound.silence(0)

    def _file(self, what: Sound) -> Path:
        self._files += 1
        path = self._folder / f"playing-{self._files}.wav"
        # baresip 1.1 does not resample: a file of another rate would be played at another speed.
        what.at(int(self.codec.split("/")[1])).write(path, silence_after=_SILENCE_AFTER)
        return path

    def _call(self, id: str, peer: str) -> Call:
        for call in self.calls:
            if call.id == id:
                return call
        self.calls.append(Call(id, peer))
        return self.calls[-1]

    def _note(self, event: dict[str, Any]) -> None:
        kind, what = event["type"], event.get("param", "")
        self._story.append(f"{kind} {what}")
        match kind:
            case "REGISTER_OK" | "REGISTER_FAIL":
                self._registration = what
            case "MWI_NOTIFY":
                counts = re.search(r"voice-message: *(\d+/\d+)", what, re.IGNORECASE)
                self._lamp = counts[1] if counts else self._lamp
            case "CALL_INCOMING":
                self._call(event["id"], event["peeruri"]).ringing = True
            case "CALL_RINGING":
                self._call(event["id"], event["peeruri"]).remote_rings = True
            case "CALL_ESTABLISHED":
                call = self._call(event["id"], event["peeruri"])
                call.ringing, call.established = False, True
            case "CALL_MENC":
                self._call(event["id"], event["peeruri"]).encrypted = True
            case "CALL_CLOSED":
                self._ended(self._call(event["id"], event["peeruri"]), what)
        self._news.set()

    def _ended(self, call: Call, reason: str) -> None:
        call.ringing, call.ended = False, reason
        if call.established:
            call.heard = self._recording("dec")
            # The files are named by the second: the next call must not find this one's.
            past = self._folder / f"call-{self.calls.index(call) + 1}"
            past.mkdir()
            for file in self._baresip.heard.iterdir():
                file.rename(past / file.name)

    async def _until(
        self, happened: Callable[[], object], what: str, within: float, excuse: Callable[[], str] = str
    ) -> None:
        deadline = asyncio.get_running_loop().time() + within
        while not happened():
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                self._fail(f"{what}: not within {within:g} s. {excuse()}")
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), min(left, _LOOK_AGAIN))
            except TimeoutError:
                pass  # recordings grow without events

    def _fail(self, why: str) -> NoReturn:
        story = "\n  ".join(self._story) or "nothing"
        raise AssertionError(f"{self.name} {why}\nwhat it saw:\n  {story}\n{self._baresip.last_words()}")
