"""Texts become sound files that telephones can play, each made once; numbers and dates become words that exist."""

from __future__ import annotations

import asyncio
import datetime
import unicodedata
import wave
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies
from numpy.typing import NDArray

from pbx import speech
from pbx.prefix import Prefix
from pbx.speech import MAX_NUMBER
from pbx.speech import MAX_TEXT
from pbx.speech import EspeakVoice
from pbx.speech import Speech
from pbx.speech import SpeechError

WELCOME = "Bienvenue chez Acme. Pour le service commercial, tapez 1."
Samples = NDArray[numpy.int16]
VOICES = {"en": "en_US_f_Allison", "fr": "fr_CA_f_June"}


def file_of(uri: str) -> Path:
    assert uri.startswith("sound:/")
    return Path(uri.removeprefix("sound:") + ".wav16")


def samples(uri: str) -> Samples:
    with wave.open(str(file_of(uri))) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (16_000, 1, 2)
        return numpy.frombuffer(sound.readframes(sound.getnframes()), dtype=numpy.int16)


def loudness(sound: Samples) -> float:
    """The level of what is not a pause, in dB below full scale."""
    windows = sound[: len(sound) // 320 * 320].reshape(-1, 320).astype(float) / 32_768
    power = (windows**2).mean(axis=1)
    return float(10 * numpy.log10(power[power > power.max() / 1_000].mean()))


class Beep:
    """A voice that says beep, and counts."""

    def __init__(self, identity: str = "beep 1") -> None:
        self.name = identity
        self.spoken: list[tuple[str, str]] = []
        self.at_once = 0
        self.most_at_once = 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def identity(self, language: str) -> str:
        return self.name

    async def speak(self, text: str, language: str, target: Path) -> None:
        self.spoken.append((text, language))
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            await self.go_on.wait()
        finally:
            self.at_once -= 1
        with wave.open(str(target), "wb") as sound:
            sound.setparams((1, 2, 22_050, 0, "NONE", ""))
            sound.writeframes((numpy.sin(numpy.arange(2_205) / 8) * 3_000).astype("<i2").tobytes())


@pytest.mark.parametrize("text, language", [(WELCOME, "fr"), ("Welcome to Acme.", "en"), ("Bonjour", "fr-CA")])
async def test_a_text_becomes_a_file_for_wideband_telephones(
    tmp_path: Path, prefix: Prefix, text: str, language: str
) -> None:
    heard = samples(await Speech(tmp_path / "speech", prefix).sound(text, language))
    assert len(heard) > 16_000 / 2
    assert -20 < loudness(heard) < -15, "the recorded prompts have -16 to -20 dB"
    assert abs(heard.astype(int)).max() < 32_768 * 0.7, "nothing is clipped"


async def test_what_was_spoken_before_is_not_spoken_again(tmp_path: Path, prefix: Prefix) -> None:
    first, second = Beep(), Beep()
    uri = await Speech(tmp_path, prefix, first).sound(WELCOME, "fr")
    again = await Speech(tmp_path, prefix, second).sound(f"  {WELCOME}\n", "fr")
    assert (uri, second.spoken) == (again, [])


async def test_a_text_asked_for_twice_at_once_is_spoken_once(tmp_path: Path, prefix: Prefix) -> None:
    voice = Beep()
    cache = Speech(tmp_path, prefix, voice)
    one, other = await asyncio.gather(cache.sound(WELCOME, "fr"), cache.sound(WELCOME, "fr"))
    assert one == other
    assert voice.spoken == [(WELCOME, "fr")]


async def test_another_language_text_or_engine_makes_another_file(tmp_path: Path, prefix: Prefix) -> None:
    old = Speech(tmp_path, prefix, Beep("beep 1"))
    new = Speech(tmp_path, prefix, Beep("beep 2"))
    assert len({await old.sound("Un", "fr"), await old.sound("Un", "en"), await old.sound("Deux", "fr")}) == 3
    assert await old.sound("Un", "fr") != await new.sound("Un", "fr")


@pytest.mark.parametrize(
    "text",
    [
        "-v",
        "--help",
        "-w /tmp/elsewhere.wav bonjour",
        "@/etc/hostname",
        "<speak><audio src='/etc/hostname'/>bonjour</speak>",
        "[[b'O~ZuR]] [[[x]]]",
        "bon\0jour \x01+5s \x1b[31m \u202e\ud800",
        "`id` $(id) ; id | id & %s \\",
    ],
)
async def test_a_hostile_text_is_only_spoken(tmp_path: Path, prefix: Prefix, text: str) -> None:
    folder = tmp_path / "speech"
    heard = samples(await Speech(folder, prefix).sound(text, "fr"))
    assert abs(heard.astype(int)).max() > 1_000
    assert [path.suffix for path in folder.iterdir()] == [".wav16"]


@given(text=strategies.text(max_size=80))
async def test_a_voice_is_only_given_one_line_of_visible_text(
    tmp_path_factory: pytest.TempPathFactory, prefix: Prefix, text: str
) -> None:
    class Listener(Beep):
        async def speak(self, text: str, language: str, target: Path) -> None:
            self.spoken.append((text, language))
            raise SpeechError("no text to say to a listener")

    voice = Listener()
    with pytest.raises(SpeechError, match="no text to say"):
        await Speech(tmp_path_factory.getbasetemp(), prefix, voice).sound(text, "fr")
    for given_text, _ in voice.spoken:
        assert given_text.encode().decode().split() == given_text.split(" ")
        assert not {unicodedata.category(character) for character in given_text} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@pytest.mark.parametrize("text, problem", [(" \n\0", "no text to say"), ("a" * (MAX_TEXT + 1), "at most 2000")])
async def test_no_text_and_too_much_text_are_refused(tmp_path: Path, prefix: Prefix, text: str, problem: str) -> None:
    with pytest.raises(SpeechError, match=problem):
        await Speech(tmp_path, prefix).sound(text, "fr")


async def test_a_language_without_a_voice_is_named(tmp_path: Path, prefix: Prefix) -> None:
    with pytest.raises(SpeechError, match=r'no voice set for "tlh" \(languages: en, fr\)'):
        await Speech(tmp_path, prefix).sound("nuqneH", "tlh")


async def test_a_missing_engine_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SpeechError, match="espeak-ng is not installed: run asterisk/install"):
        await Speech(tmp_path, Prefix(tmp_path)).sound(WELCOME, "fr")


async def test_an_engine_that_is_no_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "espeak-ng").write_text("")
    (tmp_path / "espeak-ng").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SpeechError, match="espeak-ng cannot be started: Exec format error"):
        await Speech(tmp_path, Prefix(None)).sound(WELCOME, "fr")


async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, prefix: Prefix) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpeechError, match=f"cannot be kept in {tmp_path}/file/speech: Not a directory"):
        await Speech(tmp_path / "file" / "speech", prefix).sound(WELCOME, "fr")


async def test_an_engine_that_fails_leaves_nothing_and_is_tried_again(tmp_path: Path, prefix: Prefix) -> None:
    class Hoarse(Beep):
        async def speak(self, text: str, language: str, target: Path) -> None:
            if not self.spoken:
                self.spoken.append((text, language))
                target.write_bytes(b"RIFF")
                raise SpeechError("hoarse")
            await super().speak(text, language, target)

    cache = Speech(tmp_path, prefix, Hoarse())
    with pytest.raises(SpeechError, match="hoarse"):
        await cache.sound(WELCOME, "fr")
    assert list(tmp_path.iterdir()) == []
    assert len(samples(await cache.sound(WELCOME, "fr")))


async def test_sound_that_sox_cannot_read_is_reported_in_its_words(tmp_path: Path, prefix: Prefix) -> None:
    class Garbled(Beep):
        async def speak(self, text: str, language: str, target: Path) -> None:
            target.write_bytes(b"no sound at all")

    with pytest.raises(SpeechError, match="sox failed with status 2: .*spoken.wav"):
        await Speech(tmp_path, prefix, Garbled()).sound(WELCOME, "fr")


@pytest.mark.parametrize("until_then", ["", '[ "$1" = --version ] && exit'])
async def test_an_engine_that_hangs_is_ended_at_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until_then: str
) -> None:
    engine = tmp_path / "espeak-ng"
    engine.write_text(f"#!/bin/sh\n{until_then}\necho $$ > {tmp_path}/pid\nexec /bin/sleep 60\n")
    engine.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SpeechError, match="longer than 0.5 s"):
        await Speech(tmp_path / "speech", Prefix(None), timeout=0.5).sound(WELCOME, "fr")
    pid = int((tmp_path / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists()
    assert list(tmp_path.glob("speech/*")) == []


async def test_a_caller_who_hangs_up_does_not_spoil_the_file_for_the_next(tmp_path: Path, prefix: Prefix) -> None:
    voice = Beep()
    voice.go_on.clear()
    cache = Speech(tmp_path, prefix, voice)
    leaving = asyncio.create_task(cache.sound(WELCOME, "fr"))
    staying = asyncio.create_task(cache.sound(WELCOME, "fr"))
    while not voice.at_once:
        await asyncio.sleep(0)
    leaving.cancel()
    voice.go_on.set()
    assert len(samples(await staying))
    assert leaving.cancelled()


async def test_closing_ends_what_is_being_made(tmp_path: Path, prefix: Prefix) -> None:
    voice = Beep()
    voice.go_on.clear()
    cache = Speech(tmp_path, prefix, voice)
    asking = asyncio.create_task(cache.sound(WELCOME, "fr"))
    while not voice.at_once:
        await asyncio.sleep(0)
    await cache.close()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert (voice.at_once, list(tmp_path.iterdir())) == (0, [])


async def test_only_so_many_files_are_made_at_once(tmp_path: Path, prefix: Prefix) -> None:
    voice = Beep()
    cache = Speech(tmp_path, prefix, voice, at_once=2)
    voice.go_on.clear()
    asking = asyncio.gather(*(cache.sound(f"Texte {n}", "fr") for n in range(6)))
    while voice.at_once < 2:
        await asyncio.sleep(0)
    voice.go_on.set()
    await asking
    assert (len(voice.spoken), voice.most_at_once) == (6, 2)


async def test_all_texts_of_a_plan_are_made_beforehand(tmp_path: Path, prefix: Prefix) -> None:
    voice = Beep()
    cache = Speech(tmp_path, prefix, voice)
    await cache.warm([(WELCOME, "fr"), ("Welcome", "en"), (WELCOME, "fr")])
    assert voice.spoken == [(WELCOME, "fr"), ("Welcome", "en")]
    assert len(list(tmp_path.glob("*.wav16"))) == 2


async def test_whatever_changes_the_sound_of_espeak_changes_its_identity(prefix: Prefix) -> None:
    usual = await EspeakVoice(prefix).identity("fr")
    assert usual.startswith("eSpeak NG text-to-speech: 1.")
    assert usual == await EspeakVoice(prefix, {"fr": "fr-fr", "en": "en-gb"}).identity("fr-CA")
    assert usual != await EspeakVoice(prefix, {"fr": "fr-be"}).identity("fr")
    assert usual != await EspeakVoice(prefix, words_per_minute=140).identity("fr")


async def test_a_voice_that_espeak_does_not_have_is_reported_in_its_words(tmp_path: Path, prefix: Prefix) -> None:
    with pytest.raises(SpeechError, match="espeak-ng failed with status 1: .*voice does not exist"):
        await Speech(tmp_path, prefix, EspeakVoice(prefix, {"fr": "zz"})).sound(WELCOME, "fr")


def words(uris: list[str]) -> str:
    return " ".join(uri.removeprefix("sound:").removeprefix("digits/") for uri in uris)


@pytest.mark.parametrize(
    "n, french, english",
    [
        (0, "0", "0"),
        (1, "1", "1"),
        (16, "16", "16"),
        (17, "17", "17"),
        (21, "20 et 1", "20 1"),
        (22, "20 2", "20 2"),
        (60, "60", "60"),
        (61, "60 et 1", "60 1"),
        (70, "70", "70"),
        (71, "60 et 11", "70 1"),
        (72, "60 12", "70 2"),
        (79, "60 19", "70 9"),
        (80, "80", "80"),
        (81, "80 1", "80 1"),
        (90, "90", "90"),
        (91, "80 11", "90 1"),
        (99, "80 19", "90 9"),
        (100, "hundred", "1 hundred"),
        (101, "hundred 1", "1 hundred 1"),
        (200, "2 hundred", "2 hundred"),
        (271, "2 hundred 60 et 11", "2 hundred 70 1"),
        (1_000, "thousand", "1 thousand"),
        (1_001, "thousand 1", "1 thousand 1"),
        (1_100, "thousand hundred", "1 thousand 1 hundred"),
        (1_999, "thousand 9 hundred 80 19", "1 thousand 9 hundred 90 9"),
        (2_026, "2 thousand 20 6", "2 thousand 20 6"),
        (21_000, "20 et 1 thousand", "20 1 thousand"),
        (80_000, "80 thousand", "80 thousand"),
        (100_000, "hundred thousand", "1 hundred thousand"),
        (1_000_000, "1 million", "1 million"),
        (1_001_000, "1 million thousand", "1 million 1 thousand"),
        (
            91_181_171,
            "80 11 million hundred 80 1 thousand hundred 60 et 11",
            "90 1 million 1 hundred 80 1 thousand 1 hundred 70 1",
        ),
        (-5, "minus 5", "minus 5"),
    ],
)
def test_numbers_are_said_as_people_say_them(n: int, french: str, english: str) -> None:
    assert words(speech.number(n, "fr")) == french
    assert words(speech.number(n, "en")) == english


def test_digits_are_said_one_by_one() -> None:
    assert words(speech.digits("+33 1*#", "fr")) == "letters/plus 3 3 1 star pound"
    assert words(speech.digits("anonymous", "en")) == ""


@pytest.mark.parametrize(
    "day, french, english",
    [
        (datetime.date(2026, 3, 1), "day-0 h-1 mon-2", "day-0 mon-2 h-1"),
        (datetime.date(2026, 3, 2), "day-1 2 mon-2", "day-1 mon-2 h-2"),
        (datetime.date(2026, 7, 21), "day-2 20 et 1 mon-6", "day-2 mon-6 20 h-1"),
        (datetime.date(2026, 12, 30), "day-3 30 mon-11", "day-3 mon-11 h-30"),
        (datetime.date(2028, 2, 29), "day-2 20 9 mon-1", "day-2 mon-1 20 h-9"),
    ],
)
def test_dates_have_weekday_day_and_month(day: datetime.date, french: str, english: str) -> None:
    assert words(speech.date(day, "fr")) == french
    assert words(speech.date(day, "en")) == english


@pytest.mark.parametrize(
    "clock, french, english",
    [
        ("00:00", "0 oclock", "12 a-m"),
        ("00:05", "0 oclock 5", "12 oh 5 a-m"),
        ("09:00", "9 oclock", "9 a-m"),
        ("12:00", "12 oclock", "12 p-m"),
        ("13:10", "13 oclock 10", "1 10 p-m"),
        ("21:21", "20 et 1 oclock 20 et 1", "9 20 1 p-m"),
        ("23:59", "20 3 oclock 50 9", "11 50 9 p-m"),
    ],
)
def test_times_follow_the_custom_of_the_language(clock: str, french: str, english: str) -> None:
    assert words(speech.time(datetime.time.fromisoformat(clock), "fr")) == french
    assert words(speech.time(datetime.time.fromisoformat(clock), "en")) == english


@pytest.mark.parametrize(
    "seconds, french, english",
    [
        (0, "0 seconds", "0 seconds"),
        (1, "1 seconds", "1 second"),
        (60, "1 minutes", "1 minute"),
        (95, "1 minutes 30 5 seconds", "1 minute 30 5 seconds"),
        (3_600, "60 minutes", "60 minutes"),
        (7_199, "hundred 19 minutes 50 9 seconds", "1 hundred 19 minutes 50 9 seconds"),
        (7_200, "2 hours", "2 hours"),
        (7_265, "2 hours 1 minutes", "2 hours 1 minute"),
    ],
)
def test_lengths_of_time_are_said_in_their_two_largest_units(seconds: int, french: str, english: str) -> None:
    assert words(speech.duration(seconds, "fr")) == french
    assert words(speech.duration(seconds, "en")) == english


def missing(prefix: Prefix, language: str, uris: list[str]) -> list[str]:
    """The URIs among `uris` that Asterisk's sounds of this language lack."""
    folder = prefix.data / "sounds" / VOICES[language]
    return [uri for uri in set(uris) if not (folder / f"{uri.removeprefix('sound:')}.g722").is_file()]


@pytest.mark.parametrize("language", VOICES)
@given(n=strategies.integers(-9_999_999, MAX_NUMBER))
def test_every_word_of_every_number_is_recorded(prefix: Prefix, language: str, n: int) -> None:
    assert missing(prefix, language, speech.number(n, language)) == []


@pytest.mark.parametrize("language", VOICES)
def test_every_word_of_every_date_time_and_digit_is_recorded(prefix: Prefix, language: str) -> None:
    midnight = datetime.datetime(2028, 1, 1)
    of_days = [speech.date(midnight + datetime.timedelta(days=n), language) for n in range(366)]
    of_minutes = [speech.time(midnight + datetime.timedelta(minutes=n), language) for n in range(24 * 60)]
    of_lengths = [speech.duration(seconds, language) for seconds in range(0, 90_000, 7)]
    everything = [*of_days, *of_minutes, *of_lengths, speech.digits("0123456789*#+", language)]
    assert missing(prefix, language, [uri for uris in everything for uri in uris]) == []


@pytest.mark.parametrize(
    "say",
    [
        lambda: speech.number(1, "de"),
        lambda: speech.digits("1", "de"),
        lambda: speech.date(datetime.date(2026, 1, 1), "de"),
        lambda: speech.number(MAX_NUMBER + 1, "fr"),
    ],
)
def test_what_no_recording_can_say_is_refused(say: Callable[[], list[str]]) -> None:
    with pytest.raises(SpeechError, match="no recorded words"):
        say()
