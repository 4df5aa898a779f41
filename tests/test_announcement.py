"""What comes out of a loudspeaker, measured: nothing cut, said twice, a drill never like real, no foreign alarm."""

from __future__ import annotations

import io
from functools import cache
from hashlib import sha256
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import soundfile
from links import sample_message
from test_pronunciation import TABLE, engine

from gateway.model import Document, Level, Notice, Status
from gateway.speech.announcement import (
    MARKS,
    TYPES,
    Order,
    Recording,
    compose,
    encode,
    read,
    resampled,
    tone_of,
    words_of,
)
from gateway.speech.chime import PAIRS, TONES, chime, strikes, wake
from gateway.speech.engine import RATE_HZ, Samples

TEXT = "泌阳县贾楼乡，泌阳县贾楼乡。泌阳县气象台发布暴雨红色预警。"
FOREIGN_HZ = (853.0, 960.0, 1050.0, 1562.5, 2083.3)
"""EAS attention signal, weather-radio warning tone, SAME's two tones."""
AFTER_CHIME_S = 0.4


def ordered(tone: str = "red", text: str = TEXT, language: str = "zh", **more: float | str | Recording) -> Order:
    return Order(text, language, tone, **more)  # type: ignore[arg-type]  # a test names the fields it means


@cache
def announced(tone: str = "red") -> Samples:
    """One whole announcement."""
    return compose(ordered(tone), engine(), TABLE)


def spectrum(sound: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies and power, Hz resolution or better."""
    window = np.hanning(len(sound))
    power = np.abs(np.fft.rfft(sound * window, max(len(sound), RATE_HZ))) ** 2
    return np.fft.rfftfreq(max(len(sound), RATE_HZ), 1 / RATE_HZ), power


def loudness(sound: Samples, step_s: float = 0.02) -> np.ndarray:
    """Root mean square of each step."""
    step = round(step_s * RATE_HZ)
    cut = sound[: len(sound) // step * step].reshape(-1, step)
    return np.asarray(np.sqrt(np.mean(np.square(cut), axis=1)))


# --- nothing is cut, all is said twice --------------------------------------------------------------


@pytest.mark.parametrize("tone", TONES)
def test_an_amplifier_has_time_to_wake_before_anything_matters(tone: str) -> None:
    """A horn that opens late cuts off what comes first: here that is a soft tone, then the chime, and no word."""
    sound = announced(tone)
    woken = sound[: round(1.5 * RATE_HZ)]
    assert 0.02 < np.abs(woken).max() < 0.05
    assert loudness(woken)[10:-10].min() > 0.015, "a gate that hears a gap closes again"
    words_at = 1.5 + len(chime(tone)) / RATE_HZ + AFTER_CHIME_S
    silent = sound[round((words_at - AFTER_CHIME_S + 0.01) * RATE_HZ) : round(words_at * RATE_HZ)]
    assert np.abs(silent).max() == 0, "the first word would be under the chime"
    assert np.abs(sound[round(words_at * RATE_HZ) :][: RATE_HZ // 2]).max() > 0.1


def test_padding_and_pause_are_settings() -> None:
    """An old amplifier takes three seconds to open."""
    longer = compose(ordered(wake_s=3.0, pause_s=2.0), engine(), TABLE)
    assert len(longer) / RATE_HZ == pytest.approx(len(announced()) / RATE_HZ + 1.5 + 0.8, abs=0.05)


def test_the_words_are_said_twice_with_a_pause() -> None:
    """Who missed the first half hears all of it: both halves are one sound, and between them is silence."""
    words = announced()[round((1.5 + AFTER_CHIME_S) * RATE_HZ) + len(chime("red")) :]
    size = 2 ** int(np.ceil(np.log2(2 * len(words))))
    transformed = np.fft.rfft(words, size)
    same = np.fft.irfft(np.abs(transformed) ** 2, size)
    smallest = 3 * RATE_HZ
    lag = smallest + int(np.argmax(same[smallest : len(words)]))
    assert same[lag] / same[0] == pytest.approx(0.5, abs=0.01), "one half correlates wholly with the other"
    length = lag - round(1.2 * RATE_HZ)
    assert np.abs(words[length:lag]).max() == 0
    assert np.array_equal(words[:length], words[lag : lag + length])


def test_it_is_loud_and_never_clips() -> None:
    """A horn at full volume distorts what clips, and a soft text is not heard in rain."""
    sound = announced()
    assert 0.8 < np.abs(sound).max() < 0.9
    said = sound[round(1.5 * RATE_HZ) + len(chime("red")) :]
    assert 20 * np.log10(np.sqrt(np.mean(np.square(said[np.abs(said) > 0.01])))) > -20


def test_english_is_said_by_an_english_voice() -> None:
    """A guest house with foreign guests."""
    assert len(compose(ordered(text="Heavy rain. Move to higher ground.", language="en"), engine(), TABLE)) > RATE_HZ


@pytest.mark.parametrize(("text", "language"), [("", "zh"), ("，。", "zh"), ("☂", "zh"), ("", "en")])
def test_a_text_without_words_is_no_announcement(text: str, language: str) -> None:
    """A chime alone says that something is wrong, and not what."""
    with pytest.raises(ValueError, match=r"no words|no sound"):
        compose(ordered(text=text, language=language), engine(), TABLE)


# --- tones ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tone", TONES)
def test_no_chime_holds_the_tones_of_another_system(tone: str) -> None:
    """A receiver that opens on EAS or SAME tones must stay shut; people who know them must not be misled."""
    frequencies, power = spectrum(np.concatenate([wake(1.5), chime(tone)]))
    for foreign in FOREIGN_HZ:
        near = power[np.abs(frequencies - foreign) < 12].max()
        assert 10 * np.log10(near / power.max()) < -40, foreign


@pytest.mark.parametrize("tone", TONES)
def test_no_chime_is_like_a_siren(tone: str) -> None:
    """Civil defence sounds for 6 to 36 s at a time, and wails: ours is over in 5 s, struck, with fixed notes."""
    sound = chime(tone)
    assert len(sound) / RATE_HZ < 5
    level = loudness(sound)
    longest = max(len(part) for part in "".join("x" if one > 0.25 else " " for one in level).split())
    assert longest * 0.02 < 0.8, "a note that stays loud this long is a siren"
    notes = set()
    for at in range(0, len(sound) - 2048, 1024):
        piece = sound[at : at + 2048]
        if np.abs(piece).max() > 0.2:
            power = np.abs(np.fft.rfft(piece * np.hanning(2048), 65_536))
            notes.add(round(float(np.argmax(power)) * RATE_HZ / 65_536 / 12))
    assert len(notes) <= 8, "few fixed notes; a sweep passes through many"


def test_the_wake_tone_does_not_sweep_and_is_soft() -> None:
    """Quiet enough to be taken for nothing."""
    frequencies, power = spectrum(wake(1.5))
    assert frequencies[np.argmax(power)] == pytest.approx(440, abs=2)
    assert 20 * np.log10(np.abs(wake(1.5)).max()) < -30


@pytest.mark.parametrize("real", PAIRS)
def test_a_drill_sounds_like_no_real_warning(real: str) -> None:
    """Another melody, other timbre, no stroke: nobody may mistake one for the other, in either direction."""
    size = 2 ** int(np.ceil(np.log2(len(chime(real)) + len(chime("drill")))))
    one, other = np.fft.rfft(chime(real), size), np.fft.rfft(chime("drill"), size)
    across = np.abs(np.fft.irfft(one * np.conj(other), size)).max()
    alone = np.sqrt(np.sum(np.square(chime(real))) * np.sum(np.square(chime("drill"))))
    assert across / alone < 0.3
    attack = {tone: float(np.argmax(np.abs(chime(tone)) > 0.4) / RATE_HZ) for tone in (real, "drill")}
    assert attack[real] < 0.02 < 0.05 < attack["drill"], "a bell is struck, a drill's note swells"
    frequencies, power = spectrum(chime(real))
    high = power[frequencies > 1000].sum() / power.sum()
    frequencies, power = spectrum(chime("drill"))
    assert high > 0.01 > 1000 * power[frequencies > 1000].sum() / power.sum(), "a bell rings, a drill is plain"


def test_each_level_has_more_strokes_than_the_one_below() -> None:
    """Who cannot make out the words still hears how bad it is."""
    counts = {}
    for tone in PAIRS:
        level = loudness(chime(tone), 0.01)
        rises = np.flatnonzero((level[1:] > 1.3 * level[:-1]) & (level[1:] > 0.15))
        counts[tone] = 1 + int(np.sum(np.diff(rises, prepend=0) > 8))  # the first stroke is the first step itself
        assert counts[tone] == len(strikes(tone)) == 2 * PAIRS[tone][0], tone
    assert counts["red"] > counts["orange"] > counts["yellow"] > counts["blue"]


# --- drill or real ----------------------------------------------------------------------------------


def test_only_actual_sounds_real_whatever_else_is_said() -> None:
    """Every combination there is: a drill is never a warning, a warning never a drill (rule 3)."""
    for status, level, notice, document in product(Status, Level, Notice, Document):
        message = sample_message(status=status, level=level, notice=notice, document=document)
        assert (tone_of(message) == "drill") == (status is not Status.ACTUAL)
        assert tone_of(message) in TONES


@pytest.mark.parametrize("text", ["暴雨红色预警", "演练。暴雨红色预警", "演练：暴雨", "　演练暴雨"])
def test_the_first_word_of_a_drill_is_its_mark(text: str) -> None:
    """Also where whoever wrote the text forgot it."""
    assert words_of(text, "zh", drill=True).startswith(MARKS["zh"])
    assert words_of("Heavy rain", "en", drill=True).startswith(MARKS["en"])
    assert words_of("暴雨红色预警", "zh", drill=False) == "暴雨红色预警"


@pytest.mark.parametrize(
    ("changes", "tone"),
    [
        ({"level": Level.RED}, "red"),
        ({"level": Level.YELLOW}, "yellow"),
        ({"level": Level.UNKNOWN}, "yellow"),
        ({"level": Level.UNKNOWN, "document": Document.EVACUATION}, "red"),
        ({"level": Level.UNKNOWN, "document": Document.SERVICE}, "blue"),
        ({"level": Level.RED, "notice": Notice.ALL_CLEAR}, "blue"),
        ({"level": Level.RED, "notice": Notice.CORRECTION}, "blue"),
        ({"level": Level.UNKNOWN, "document": Document.EVACUATION, "notice": Notice.ALL_CLEAR}, "blue"),
    ],
)
def test_the_chime_says_how_urgent_it_is(changes: dict[str, object], tone: str) -> None:
    """An all-clear with the red bell would wake a village twice."""
    assert tone_of(sample_message(**changes)) == tone


# --- files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", TYPES)
def test_a_file_lasts_exactly_as_long_as_is_said(form: str) -> None:
    """Whether a device played it all is judged by its duration: one channel, 22.05 kHz, no sample more."""
    data = encode(announced(), form)
    samples, rate = soundfile.read(io.BytesIO(data), always_2d=True)
    assert (rate, samples.shape) == (RATE_HZ, (len(announced()), 1))
    assert encode(announced(), form) == data, "the same sound is the same file"
    error = np.sqrt(np.mean(np.square(samples[:, 0] - announced())))
    assert 20 * np.log10(error / np.sqrt(np.mean(np.square(announced())))) < -20


def test_mp3_is_small_enough_for_a_village_with_bad_reception() -> None:
    """Twelve devices of a township on one 4G cell."""
    assert len(encode(announced(), "mp3")) / (len(announced()) / RATE_HZ) < 8_000


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_a_recording_of_any_rate_keeps_pitch_and_length(rate: int) -> None:
    """People record with what they have."""
    at = np.arange(2 * rate) / rate
    sound = resampled(np.sin(2 * np.pi * 700 * at).astype(np.float32), rate)
    frequencies, power = spectrum(sound)
    assert len(sound) == 2 * RATE_HZ
    assert frequencies[np.argmax(power)] == pytest.approx(700, abs=1)


@pytest.mark.parametrize("place", ["before", "instead"])
def test_a_recording_stands_before_or_instead_of_the_words(tmp_path: Path, place: str) -> None:
    """The voice of the village's own secretary, after the chime and never before it."""
    path = tmp_path / "secretary.wav"
    soundfile.write(path, 0.1 * np.sin(np.arange(48_000 * 2) / 10), 48_000)
    data = path.read_bytes()
    recording = Recording(str(path), sha256(data).hexdigest(), place)  # type: ignore[arg-type]  # one of the two
    sound = compose(ordered(recording=recording), engine(), TABLE)
    voice = read(data)
    start = round((1.5 + AFTER_CHIME_S) * RATE_HZ) + len(chime("red"))
    assert np.array_equal(sound[start : start + len(voice)], voice)
    pause, end = round(1.2 * RATE_HZ), round(0.3 * RATE_HZ)
    if place == "before":
        rest = sound[start + len(voice) + pause :]
        assert len(rest) == pytest.approx(len(announced()) - start, abs=500), "the voice varies by milliseconds"
        assert np.abs(rest[: RATE_HZ // 2]).max() > 0.1
    else:
        assert np.array_equal(sound[start + len(voice) + pause : -end], voice)
