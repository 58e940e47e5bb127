"""Sound, and a judge of what was heard: is this prompt in that recording, is there this tone, is it silent?

A recording differs from what was played: another level, another sampling rate, the coding of G.711 or G.722,
something before and after. So nothing is compared sample by sample; everything is a measure between 0 and 1,
and the thresholds lie in the wide gap that test_sound.py shows between right and wrong.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]

TELEPHONE = 8000  # samples per second of narrowband telephony, at which recordings are compared

# Half-second pieces of right prompts come out at 0.88 or more after coding and resampling, of wrong ones below 0.58.
_PIECE = 0.5  # seconds
_LOST_END = 0.12  # seconds: a hang-up right after a prompt overtakes its last packets
_SLIP = 0.06  # seconds: three lost or doubled packets move the rest of a prompt by as much
_ALIKE = 0.72
_MOST = 0.8  # of the pieces; a lost packet may spoil one

_WINDOW = 0.05  # seconds
_SILENT = -50.0  # dBFS; digital silence through A-law comes out near -72, quiet speech near -35
_PURE = 0.7


@dataclass(frozen=True, eq=False)
class Sound:
    """Mono sound: samples between -1 and 1."""

    samples: Samples
    rate: int = TELEPHONE

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    @property
    def level(self) -> float:
        """The loudness of the whole in dBFS; -120 for nothing at all."""
        return _decibels(self.samples)

    def first(self, seconds: float) -> Sound:
        return Sound(self.samples[: round(seconds * self.rate)], self.rate)

    def after(self, seconds: float) -> Sound:
        return Sound(self.samples[round(seconds * self.rate):], self.rate)

    def louder(self, decibels: float) -> Sound:
        return Sound(self.samples * 10 ** (decibels / 20), self.rate)

    def at(self, rate: int) -> Sound:
        """The same sound at another sampling rate, band-limited to what that rate can carry."""
        if rate == self.rate or not len(self.samples):
            return Sound(self.samples, rate)
        length = round(len(self.samples) * rate / self.rate)
        spectrum = np.fft.rfft(self.samples)
        wanted = np.zeros(length // 2 + 1, dtype=np.complex128)
        shared = min(len(spectrum), len(wanted))
        wanted[:shared] = spectrum[:shared]
        return Sound(np.fft.irfft(wanted, length) * (rate / self.rate), rate)

    def __add__(self, other: Sound) -> Sound:
        return Sound(np.concatenate([self.samples, other.at(self.rate).samples]), self.rate)

    def mixed(self, other: Sound) -> Sound:
        """Both at once, as long as the longer one."""
        overlay = other.at(self.rate).samples
        mix = np.zeros(max(len(self.samples), len(overlay)))
        mix[: len(self.samples)] += self.samples
        mix[: len(overlay)] += overlay
        return Sound(mix, self.rate)

    @classmethod
    def read(cls, path: Path) -> Sound:
        """Reads a WAV file of 16-bit samples, even while it is being written, or Asterisk's raw .sln and .sln16."""
        content = path.read_bytes()
        if path.suffix in (".sln", ".sln16"):
            return cls(_from_integers(content), 16000 if path.suffix == ".sln16" else 8000)
        return cls._from_wav(content)

    @classmethod
    def _from_wav(cls, content: bytes) -> Sound:
        rate, channels, position = 0, 1, 12
        while position + 8 <= len(content):
            name, size = content[position:position + 4], int.from_bytes(content[position + 4:position + 8], "little")
            position += 8
            if name == b"fmt " and len(content) >= position + 16:
                channels, rate = struct.unpack_from("<HI", content, position + 2)
            elif name == b"data":
                # The size is only right once the writer has closed its file: until then, all there is.
                samples = _from_integers(content[position:])
                return cls(samples[: len(samples) // channels * channels:channels], rate)
            position += size + size % 2
        return cls(np.zeros(0), rate or TELEPHONE)

    def write(self, path: Path, *, silence_after: float = 0) -> None:
        """Writes a WAV file; `silence_after` seconds cost no space on the disk (the file has a hole)."""
        data = (np.clip(self.samples, -1, 1) * 32767).astype("<i2").tobytes()
        size = len(data) + 2 * round(silence_after * self.rate)
        with path.open("wb") as file:
            file.write(b"RIFF" + struct.pack("<I", 36 + size) + b"WAVE")
            file.write(b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, self.rate, 2 * self.rate, 2, 16))
            file.write(b"data" + struct.pack("<I", size) + data)
            file.truncate(44 + size)


def tone(hz: float, seconds: float, *, rate: int = TELEPHONE, level: float = -12) -> Sound:
    """A sine of `level` dBFS."""
    peak = 10 ** (level / 20) * np.sqrt(2)
    return Sound(peak * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate), rate)


def silence(seconds: float, *, rate: int = TELEPHONE) -> Sound:
    return Sound(np.zeros(round(seconds * rate)), rate)


@dataclass(frozen=True)
class Match:
    """Where a prompt lies within a recording (seconds), and how alike the two are there (0 to 1).

    `end` is that of its last sound which must be heard; a key may have cut short what comes after.
    """

    begin: float
    end: float
    likeness: float
    found: bool

    def later(self, seconds: float) -> Match:
        return Match(self.begin + seconds, self.end + seconds, self.likeness, self.found)


NOTHING = Match(0, 0, 0, False)


def search(prompt: Sound, recording: Sound) -> Match:
    """The place in `recording` that is most like `prompt`, and whether it is the prompt, all of it.

    Silence around the prompt's words is no part of what is looked for. Raises ValueError for a prompt without sound.
    """
    wanted, silent_before = _trimmed(prompt.at(TELEPHONE))
    given = recording.at(TELEPHONE).samples
    if len(given) < len(wanted):
        return NOTHING
    wanted, given = _whitened(wanted), _whitened(given)
    offset = int(np.argmax(_correlation(wanted, given)))
    likenesses = [_likeness_near(piece, given, offset + at) for at, piece in _pieces(wanted)]
    alike = sum(likeness >= _ALIKE for likeness in likenesses)
    return Match(
        begin=offset / TELEPHONE - silent_before,
        end=(offset + len(wanted)) / TELEPHONE,
        likeness=float(np.mean(likenesses)),
        found=alike >= _MOST * len(likenesses),
    )


def tone_seconds(hz: float, recording: Sound, *, share: float = _PURE) -> float:
    """How long (seconds in all) the recording holds a tone of `hz`: at least `share` of the power, and not silent."""
    size = round(_WINDOW * recording.rate)
    windows = _windows(recording.samples, size)
    if not len(windows):
        return 0.0
    power = np.abs(np.fft.rfft(windows * np.hanning(size))) ** 2
    # A Hann window spreads a tone over two neighbours on either side of its own bin.
    nearest = round(hz * size / recording.rate)
    near = power[:, max(0, nearest - 2):nearest + 3].sum(axis=1)
    loud = np.array([_decibels(window) > _SILENT for window in windows])
    return float(np.sum(loud & (near >= share * np.maximum(power.sum(axis=1), 1e-12))) * _WINDOW)


def sounding_seconds(recording: Sound) -> float:
    """How long (seconds in all) the recording is not silent."""
    windows = _windows(recording.samples, round(_WINDOW * recording.rate))
    return float(sum(_decibels(window) > _SILENT for window in windows) * _WINDOW)


def describe(recording: Sound) -> str:
    """What a failed test says of a recording: per half second, its level in dBFS and its strongest frequency."""
    size = recording.rate // 2
    words = []
    for window in _windows(recording.samples, size):
        level = _decibels(window)
        strongest = int(np.argmax(np.abs(np.fft.rfft(window * np.hanning(size))))) * 2
        words.append("silence" if level <= _SILENT else f"{level:.0f}dB/{strongest}Hz")
    return f"{recording.seconds:.1f} s: {' '.join(words) or 'nothing'}"


def _from_integers(content: bytes) -> Samples:
    return np.frombuffer(content[: len(content) // 2 * 2], dtype="<i2").astype(np.float64) / 32768


def _decibels(samples: Samples) -> float:
    power = float(np.mean(samples**2)) if len(samples) else 0.0
    return 10 * float(np.log10(max(power, 1e-12)))


def _windows(samples: Samples, size: int) -> Samples:
    count = len(samples) // size
    return samples[: count * size].reshape(count, size)


def _trimmed(prompt: Sound) -> tuple[Samples, float]:
    """The samples that must be heard (no silence around them, nor the very end), and the seconds of silence before."""
    size = round(0.02 * prompt.rate)
    loud = [at for at, window in enumerate(_windows(prompt.samples, size)) if _decibels(window) > _SILENT]
    if not loud:
        raise ValueError("there is no sound in the prompt: it would be found in any recording")
    end = max((loud[-1] + 1) * size - round(_LOST_END * prompt.rate), (loud[0] + 1) * size)
    return prompt.samples[loud[0] * size:end], loud[0] * 0.02


def _whitened(samples: Samples) -> Samples:
    """Speech without its bass, in which all voices are alike."""
    return samples - 0.5 * np.concatenate([np.zeros(1), samples[:-1]])


def _correlation(wanted: Samples, given: Samples) -> Samples:
    """The normalised cross-correlation (-1 to 1) for each place at which `wanted` fits into `given`."""
    size = 1 << (len(given) + len(wanted)).bit_length()
    product = np.fft.irfft(np.fft.rfft(given, size) * np.conj(np.fft.rfft(wanted, size)), size)
    places = len(given) - len(wanted) + 1
    total = np.concatenate([np.zeros(1), np.cumsum(given**2)])
    energy = total[len(wanted):] - total[:places]
    # Silence in the recording is like nothing at all: a floor keeps rounding noise from being scaled up to a match.
    floor = len(wanted) * 10 ** ((_SILENT - 20) / 10)
    return np.asarray(product[:places] / np.sqrt(np.maximum(energy, floor) * np.sum(wanted**2)))


def _pieces(wanted: Samples) -> list[tuple[int, Samples]]:
    """The prompt's pieces that are not pauses, each with its place; the last piece is as long as the others."""
    size = min(round(_PIECE * TELEPHONE), len(wanted))
    starts = [*range(0, len(wanted) - size, size), len(wanted) - size]
    pieces = [(at, wanted[at:at + size]) for at in starts]
    loudest = max(_decibels(piece) for _, piece in pieces)
    return [(at, piece) for at, piece in pieces if _decibels(piece) > loudest - 25]


def _likeness_near(piece: Samples, given: Samples, at: int) -> float:
    slip = round(_SLIP * TELEPHONE)
    begin, end = max(0, at - slip), min(len(given), at + len(piece) + slip)
    return float(np.max(_correlation(piece, given[begin:end]))) if end - begin >= len(piece) else 0.0
