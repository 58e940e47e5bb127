"""What callers are told: text spoken into cached sound files; numbers, dates and times as lists of recorded words."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import os
import tempfile
import unicodedata
from collections.abc import AsyncIterator
from collections.abc import Iterable
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from pbx import metrics
from pbx.prefix import Prefix
from pbx.prefix import ProgramMissing

MAX_TEXT = 2_000  # characters, about two minutes
ESPEAK_VOICES: Mapping[str, str] = MappingProxyType({"en": "en-us", "fr": "fr-fr"})
MAX_NUMBER = 999_999_999  # the French voice has no word beyond the million


class SpeechError(Exception):
    """Nothing can be said; the message tells why and, where it can, what to do."""


class Voice(Protocol):
    """An engine that speaks. Both methods raise SpeechError."""

    async def identity(self, language: str) -> str:
        """Names everything that changes how this language sounds: engine, version, settings."""

    async def speak(self, text: str, language: str, target: Path) -> None:
        """Speaks one line of text, a stranger's perhaps, into a WAV file of any rate and level."""


class EspeakVoice:
    """espeak-ng, from the prefix or from PATH: plain, quick (some 10 ms a sentence) and always there.

    `voices` gives its voice for each language, "fr" being good for "fr-CA" too.
    """

    def __init__(
        self, prefix: Prefix, voices: Mapping[str, str] = ESPEAK_VOICES, *, words_per_minute: int = 160
    ) -> None:
        self._prefix = prefix
        self._voices = voices
        self._speed = str(words_per_minute)
        self._version = ""

    async def identity(self, language: str) -> str:
        voice = self._voice(language)
        if not self._version:
            banner = await _run(self._prefix, "espeak-ng", "--version")
            self._version = banner.decode(errors="replace").partition("Data at:")[0].strip()
        return f"{self._version} {voice} {self._speed}"

    async def speak(self, text: str, language: str, target: Path) -> None:
        # Phonemes between double brackets are the one markup that cannot be switched off.
        harmless = text.replace("[", " ").replace("]", " ")
        voice = ("-v", self._voice(language), "-s", self._speed)
        await _run(
            self._prefix, "espeak-ng", *voice, "-b", "1", "-z", "--stdin", "-w", str(target), given=harmless.encode()
        )

    def _voice(self, language: str) -> str:
        voice = self._voices.get(language) or self._voices.get(_base(language))
        if voice is None:
            known = ", ".join(self._voices)
            raise SpeechError(f'espeak-ng has no voice set for "{language}" (languages: {known})')
        return voice


class Speech:
    """Speaks texts into sound files that Asterisk plays, each text once: the files are kept under `folder`.

    `timeout` (seconds) is for the making of one file; at most `at_once` files are made at the same time.
    """

    # 16 kHz is what wideband telephones play; for the others Asterisk resamples. No telephone carries more than 100 Hz
    # to 7 kHz. Synthetic speech is all peaks: only when they are limited is it as loud as the recorded prompts.
    _FORMAT = ("-r", "16000", "-b", "16", "-c", "1", "-t", "wav")
    _EFFECTS = ("highpass", "100", "lowpass", "7000", "norm", "gain", "-l", "8", "norm", "-4", "pad", "0", "0.15")

    def __init__(
        self, folder: Path, prefix: Prefix, voice: Voice | None = None, *, timeout: float = 20.0, at_once: int = 2
    ) -> None:
        self._folder = folder.absolute()
        self._prefix = prefix
        self._voice = voice or EspeakVoice(prefix)
        self._timeout = timeout
        self._turn = asyncio.Semaphore(at_once)
        self._making: dict[Path, asyncio.Task[None]] = {}

    async def sound(self, text: str, language: str) -> str:
        """Gives the media URI of a file in which `text` is spoken, and makes the file if it is not there yet.

        Raises SpeechError when the text is empty or longer than MAX_TEXT, or when it cannot be spoken.
        """
        text = _one_line(text)
        if not text:
            raise SpeechError("there is no text to say")
        if len(text) > MAX_TEXT:
            raise SpeechError(f"the text to say has {len(text)} characters, at most {MAX_TEXT} are allowed")
        async with self._deadline():
            voice = await self._voice.identity(language)
        content = [voice, *self._EFFECTS, language, text]
        name = hashlib.sha256("\0".join(content).encode()).hexdigest()[:32]
        # The extension tells Asterisk the rate: .wav is 8 kHz, .wav16 is 16 kHz. A URI has none.
        path = self._folder / f"{name}.wav16"
        if not path.exists():
            # Shielded, because another call may wait for the same file.
            await asyncio.shield(self._made(path, text, language))
        return f"sound:{path.with_suffix('')}"

    async def warm(self, texts: Iterable[tuple[str, str]]) -> None:
        """Makes the files of all (text, language) that are not there yet, one by one: calls have the other turns.

        Raises the first SpeechError, because what stops one text (no engine, no space) stops the next.
        """
        for text, language in texts:
            await self.sound(text, language)

    async def close(self) -> None:
        """Ends what is being made."""
        tasks = list(self._making.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _made(self, path: Path, text: str, language: str) -> asyncio.Task[None]:
        task = self._making.get(path)
        if task is None:
            task = self._making[path] = asyncio.create_task(self._make(path, text, language))
            task.add_done_callback(lambda done: self._forget(path, done))
        return task

    def _forget(self, path: Path, task: asyncio.Task[None]) -> None:
        del self._making[path]
        if not task.cancelled():
            task.exception()  # seen, even if whoever asked has hung up meanwhile

    async def _make(self, path: Path, text: str, language: str) -> None:
        async with self._turn, self._deadline():
            try:
                await self._speak_into(path, text, language)
            except OSError as problem:
                raise SpeechError(f"spoken texts cannot be kept in {self._folder}: {problem.strerror}") from problem
        metrics.speech_made.labels(_base(language)).inc()

    @contextlib.asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except TimeoutError:
            raise SpeechError(f"speaking a text took longer than {self._timeout:g} s") from None

    async def _speak_into(self, path: Path, text: str, language: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=self._folder) as workshop:
            spoken = Path(workshop) / "spoken.wav"
            ready = Path(workshop) / "ready.wav16"
            await self._voice.speak(text, language, spoken)
            await _run(self._prefix, "sox", "-V1", "-D", str(spoken), *self._FORMAT, str(ready), *self._EFFECTS)
            os.replace(ready, path)


def number(n: int, language: str) -> list[str]:
    """Media URIs of the words of a whole number. Raises SpeechError when they are lacking, beyond MAX_NUMBER."""
    if abs(n) > MAX_NUMBER:
        raise SpeechError(f"there are no recorded words for {n}: numbers go to {MAX_NUMBER}")
    minus = ["minus"] if n < 0 else []
    return _recorded([*minus, *_grammar(language).number(abs(n))])


def digits(text: str, language: str) -> list[str]:
    """Media URIs of the digits of a number, one by one, with +, * and #; anything else is passed over."""
    _grammar(language)
    names = {"*": "digits/star", "#": "digits/pound", "+": "letters/plus"} | {d: f"digits/{d}" for d in "0123456789"}
    return [f"sound:{names[character]}" for character in text if character in names]


def date(when: datetime.date, language: str) -> list[str]:
    """Media URIs of weekday, day and month: "Monday, March second", "lundi deux mars", "mardi premier avril"."""
    return _recorded([f"day-{when.isoweekday() % 7}", *_grammar(language).date(when.day, f"mon-{when.month - 1}")])


def time(when: datetime.time | datetime.datetime, language: str) -> list[str]:
    """Media URIs of the time of day, as `when` shows it: "nine oh five A.M.", "neuf heures cinq"."""
    return _recorded(_grammar(language).time(when.hour, when.minute))


def duration(seconds: int, language: str) -> list[str]:
    """Media URIs of a length of time in minutes and seconds, from two hours on in hours and minutes."""
    minutes, seconds = divmod(max(seconds, 0), 60)
    hours, rest = divmod(minutes, 60)
    # No voice can say one hour: English lacks "hour", French "une".
    parts = [(hours, "hour"), (rest, "minute")] if hours > 1 else [(minutes, "minute"), (seconds, "second")]
    grammar = _grammar(language)
    said: list[str] = []
    for count, unit in [part for part in parts if part[0]] or parts[-1:]:
        said += [*_recorded(grammar.number(count)), f"sound:{grammar.unit(unit, count)}"]
    return said


_SIZES = ((1_000_000, "million"), (1_000, "thousand"), (100, "hundred"))


class _English:
    def number(self, n: int) -> list[str]:
        for size, name in _SIZES:
            if n >= size:
                return [*self.number(n // size), name, *(self.number(n % size) if n % size else [])]
        return [str(n)] if n <= 20 or n % 10 == 0 else [str(n - n % 10), str(n % 10)]

    def date(self, day: int, month: str) -> list[str]:
        return [month, f"h-{day}"] if day <= 20 or day % 10 == 0 else [month, str(day - day % 10), f"h-{day % 10}"]

    def time(self, hour: int, minute: int) -> list[str]:
        spoken = [] if minute == 0 else ["oh", str(minute)] if minute < 10 else self.number(minute)
        return [str(hour % 12 or 12), *spoken, "a-m" if hour < 12 else "p-m"]

    def unit(self, name: str, count: int) -> str:
        return name if count == 1 else f"{name}s"


class _French:
    def number(self, n: int) -> list[str]:
        for size, name in _SIZES:
            if n >= size:
                # "cent" and "mille" stand alone, "un million" does not.
                many = [] if n // size == 1 and size < 1_000_000 else self.number(n // size)
                return [*many, name, *(self.number(n % size) if n % size else [])]
        if n <= 20 or n % 10 == 0:
            return [str(n)]
        tens = n // 20 * 20 if n > 60 else n // 10 * 10  # soixante-douze, quatre-vingt-douze
        joined = ["et"] if n % 10 == 1 and n < 80 else []  # vingt et un, soixante et onze; but quatre-vingt-un
        return [str(tens), *joined, str(n - tens)]

    def date(self, day: int, month: str) -> list[str]:
        return [*(["h-1"] if day == 1 else self.number(day)), month]

    def time(self, hour: int, minute: int) -> list[str]:
        # The file "oclock" says "heures". The voice has neither "midi" nor "minuit", and no feminine "une".
        return [*self.number(hour), "oclock", *(self.number(minute) if minute else [])]

    def unit(self, name: str, count: int) -> str:
        return f"{name}s"  # singular and plural sound alike, and the file "second" may be the ordinal


_GRAMMARS: dict[str, _English | _French] = {"en": _English(), "fr": _French()}


def _grammar(language: str) -> _English | _French:
    try:
        return _GRAMMARS[_base(language)]
    except KeyError:
        raise SpeechError(f'there are no recorded words in "{language}" (languages: en, fr)') from None


def _recorded(words: list[str]) -> list[str]:
    return [f"sound:digits/{word}" for word in words]


def _base(language: str) -> str:
    return language.replace("_", "-").partition("-")[0].lower()


def _one_line(text: str) -> str:
    """The text without anything that a reader would not see: control characters, markers, line ends."""
    visible = (character if unicodedata.category(character)[0] != "C" else " " for character in text)
    return " ".join("".join(visible).split())


async def _run(prefix: Prefix, program: str, *arguments: str, given: bytes = b"") -> bytes:
    try:
        command = prefix.command(program)
    except ProgramMissing as problem:
        raise SpeechError(f"texts cannot be spoken: {problem}") from None
    pipe = asyncio.subprocess.PIPE
    # No pipe for a program that reads nothing: uvloop raises RuntimeError when it ends before the pipe is closed.
    source = pipe if given else asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(*command, *arguments, stdin=source, stdout=pipe, stderr=pipe)
    except OSError as problem:
        raise SpeechError(f"{program} cannot be started: {problem.strerror}") from problem
    try:
        output, complaint = await process.communicate(given or None)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        reason = complaint.decode(errors="replace").strip().rpartition("\n")[2]
        raise SpeechError(f"{program} failed with status {process.returncode}: {reason}")
    return output
