"""How long sound files play, and files of silence."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from pathlib import Path

# Bytes per second of files that have no header.
_RATES = {".g722": 8_000, ".alaw": 8_000, ".ulaw": 8_000, ".gsm": 1_650, ".sln": 16_000, ".sln16": 32_000}
_WITH_HEADER = (".wav", ".wav16")
_SILENCE_RATE = 8_000  # frames per second


class SoundFiles:
    """The true length of sounds: `sound:NAME` is NAME below `root`/LANGUAGE, or an absolute path without extension."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[Path, float] = {}

    def __call__(self, uri: str, language: str) -> float | None:
        """Seconds, or None when there is no such file."""
        name = uri.partition(":")[2]
        for path in (self._root / language / name, self._root / name):
            if path in self._known:
                return self._known[path]
            for file in _files(path):
                self._known[path] = _length(file)
                return self._known[path]
        return None


def _files(path: Path) -> Iterator[Path]:
    for suffix in (*_RATES, *_WITH_HEADER):
        file = path.parent / (path.name + suffix)
        if file.exists():
            yield file


def _length(file: Path) -> float:
    if file.suffix in _WITH_HEADER:
        with wave.open(str(file)) as sound:
            return float(sound.getnframes() / sound.getframerate())
    return file.stat().st_size / _RATES[file.suffix]


def silence(file: Path, seconds: float) -> None:
    """Writes a WAV file in which nobody says anything."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(file), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(_SILENCE_RATE)
        sound.writeframes(bytes(2 * int(seconds * _SILENCE_RATE)))
