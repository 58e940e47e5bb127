"""The judge accepts what a caller would call the same prompt, and nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from live import sound
from live.sound import Sound
from live.sound import search
from live.sound import silence
from live.sound import tone

from pbx.prefix import Prefix

TEXTS = {
    "sales": "Welcome to Acme. For sales, press one. For support, press two.",
    "support": "Welcome to Acme. All our lines are busy. Please stay on the line.",
    "closed": "Our offices are closed now. Please call again tomorrow after nine.",
    "bonjour": "Bonjour et bienvenue. Pour le service commercial, tapez un.",
}


@pytest.fixture(scope="module")
def prompts(prefix: Prefix, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sound]:
    """Speech at 22,050 samples per second, as espeak-ng makes it."""
    folder = tmp_path_factory.mktemp("prompts")
    for name, text in TEXTS.items():
        voice = "fr-fr" if name == "bonjour" else "en-us"
        program = [*prefix.command("espeak-ng"), "-v", voice, "-w", str(folder / f"{name}.wav"), text]
        subprocess.run(program, check=True, capture_output=True)
    return {name: Sound.read(folder / f"{name}.wav") for name in TEXTS}


@pytest.fixture
def telephone(prefix: Prefix, tmp_path: Path) -> Telephone:
    return Telephone(prefix, tmp_path)


class Telephone:
    """What A-law at 8,000 samples per second leaves of a sound."""

    def __init__(self, prefix: Prefix, folder: Path) -> None:
        self._sox = prefix.command("sox")
        self._folder = folder

    def __call__(self, what: Sound) -> Sound:
        said, coded, heard = (self._folder / name for name in ("said.wav", "coded.wav", "heard.wav"))
        what.write(said)
        subprocess.run([*self._sox, str(said), "-r", "8000", "-e", "a-law", str(coded)], check=True)
        subprocess.run([*self._sox, str(coded), "-e", "signed", "-b", "16", str(heard)], check=True)
        return Sound.read(heard)


@pytest.mark.parametrize("name", TEXTS)
def test_a_prompt_is_found_in_a_telephone_call(name: str, prompts: dict[str, Sound], telephone: Telephone) -> None:
    call = telephone(silence(0.7) + prompts[name].louder(-15) + silence(0.4))
    match = search(prompts[name], call)
    assert match.found
    assert match.begin == pytest.approx(0.7, abs=0.02)
    assert match.end < 0.7 + prompts[name].seconds < match.end + 0.5


@pytest.mark.parametrize("said", TEXTS)
@pytest.mark.parametrize("expected", TEXTS)
def test_another_prompt_is_not_taken_for_it(
    said: str, expected: str, prompts: dict[str, Sound], telephone: Telephone
) -> None:
    call = telephone(prompts[said] + silence(prompts[expected].seconds))
    assert search(prompts[expected], call).found == (said == expected)


def test_silence_tones_and_noise_hold_no_prompt(prompts: dict[str, Sound]) -> None:
    noise = Sound(np.random.default_rng(1).normal(0, 0.1, 80_000))
    for nothing in (silence(0), silence(10), tone(440, 10), noise):
        assert not search(prompts["sales"], nothing).found


def test_a_prompt_that_was_cut_off_was_not_heard_but_its_beginning_was(
    prompts: dict[str, Sound], telephone: Telephone
) -> None:
    call = telephone(prompts["sales"].first(2.0) + silence(10))
    assert not search(prompts["sales"], call).found
    assert search(prompts["sales"].first(1.5), call).found
    assert not search(prompts["sales"].after(2.0), call).found


def test_what_follows_a_prompt_is_looked_for_after_it(prompts: dict[str, Sound], telephone: Telephone) -> None:
    call = telephone(prompts["sales"].first(prompts["sales"].seconds - 0.1) + prompts["closed"] + prompts["sales"])
    first = search(prompts["sales"], call.first(5))
    then = search(prompts["closed"], call.after(first.end))
    assert first.found and then.found


def test_a_hang_up_may_swallow_the_very_end_of_a_prompt(prompts: dict[str, Sound], telephone: Telephone) -> None:
    words = prompts["sales"]
    assert search(words, telephone(words.first(words.seconds - 0.1))).found


def test_a_lost_packet_does_not_hide_a_prompt(prompts: dict[str, Sound], telephone: Telephone) -> None:
    words = prompts["support"]
    assert search(words, telephone(words.first(1.6) + words.after(1.62))).found


def test_a_prompt_is_found_behind_a_quieter_voice(prompts: dict[str, Sound], telephone: Telephone) -> None:
    both = prompts["sales"].mixed(prompts["bonjour"].louder(-20))
    assert search(prompts["sales"], telephone(both)).found


def test_a_prompt_without_sound_is_refused() -> None:
    with pytest.raises(ValueError, match="no sound in the prompt"):
        search(silence(1), tone(440, 2))


@given(hz=st.integers(200, 3400), other=st.integers(200, 3400))
def test_a_tone_is_told_from_other_tones(hz: int, other: int) -> None:
    assert sound.tone_seconds(hz, tone(hz, 1)) == pytest.approx(1)
    if abs(hz - other) > 80:
        assert sound.tone_seconds(hz, tone(other, 1)) == 0


def test_a_tone_is_measured_within_other_sounds(prompts: dict[str, Sound], telephone: Telephone) -> None:
    call = telephone(silence(1) + tone(620, 2, level=-25) + prompts["sales"])
    assert sound.tone_seconds(620, call) == pytest.approx(2, abs=0.15)
    assert sound.tone_seconds(440, call) < 0.3


def test_silence_is_measured(prompts: dict[str, Sound], telephone: Telephone) -> None:
    assert sound.sounding_seconds(telephone(silence(3))) == 0
    assert sound.sounding_seconds(telephone(silence(1) + tone(440, 0.5) + silence(1))) == pytest.approx(0.5, abs=0.1)


def test_a_wav_file_is_read_while_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "growing.wav"
    tone(440, 1).write(path)
    complete = path.read_bytes()
    path.write_bytes(complete[:40] + b"\0\0\0\0" + complete[44:44 + 8001])
    assert Sound.read(path).seconds == 0.5
    path.write_bytes(complete[:20])
    assert Sound.read(path).seconds == 0


def test_silence_after_a_sound_costs_no_disk(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    tone(440, 1).write(path, silence_after=3600)
    assert path.stat().st_blocks * 512 < 100_000
    read = Sound.read(path)
    assert read.seconds == 3601
    assert sound.tone_seconds(440, read.first(2)) == pytest.approx(1)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 48000])
def test_a_tone_keeps_pitch_length_and_level_at_another_rate(rate: int) -> None:
    other = tone(1000, 1, level=-20).at(rate)
    assert other.seconds == pytest.approx(1)
    assert other.level == pytest.approx(-20, abs=0.1)
    assert sound.tone_seconds(1000, other) == pytest.approx(1)
