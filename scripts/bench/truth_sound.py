"""
Sound whose contents are known exactly: sentences by espeak-ng at known times, and sounds in which nobody speaks.

Everything is 16 kHz, one channel, as a WAV file.
"""

import random
import subprocess
import wave
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy

RATE = 16_000
PAUSE_SECONDS = 0.3
VOICES = ("en", "en+f3", "en-us+m2")
SENTENCES = (
    "Where is the baby? Here is the baby!", "Look at the red ball, shall we roll it to the dog?",
    "One, two, three, jump!", "Now it is your turn to put the block on top.", "No, not in your mouth please.",
    "Can you find the little bear?", "He is hiding under the table.", "Do you want some more water?",
    "Let us read the book about the moon.", "All done, clap your hands!",
)  # fmt: skip

Samples = Any
"""float32, -1 to 1."""


class Said(NamedTuple):
    """A sentence, from its first sound to its last (seconds)."""

    onset: float
    end: float
    text: str
    speaker: str


class Recital(NamedTuple):
    said: list[Said]
    stretches: list[tuple[float, float]]
    """When somebody speaks: a sentence's stretches of sound, pauses up to 0.3 s included."""

    seconds: float


def speech(file: Path, *, noise: float = 0.0, seed: int = 1, sentences: int = 10) -> Recital:
    """
    Sentences by three voices in turn, 0.8 to 2.5 s apart, in white noise of that share of full scale (deviation).

    A stretch of speech is where espeak-ng's own sound is above 1 % of its peak.
    """
    chance = random.Random(seed)
    parts, said, stretches = [_silence(1.0)], [], []
    at = 1.0
    for number, text in enumerate(SENTENCES[:sentences]):
        speaker = VOICES[number % len(VOICES)]
        sound = 0.5 * _spoken(text, speaker, file.with_name(f"sentence{number}.wav"))
        loud = _loud(sound)
        said.append(Said(at + loud[0][0], at + loud[-1][1], text, speaker))
        stretches += [(at + onset, at + end) for onset, end in loud]
        pause = round(chance.uniform(0.8, 2.5), 2)
        parts += [sound, _silence(pause)]
        at += len(sound) / RATE + pause
    total = numpy.concatenate(parts)
    total = total + noise * numpy.random.default_rng(seed).standard_normal(len(total)).astype(numpy.float32)
    save(file, total)
    return Recital(said, stretches, len(total) / RATE)


def voiceless(seconds: float = 10.0) -> dict[str, Samples]:
    """Sounds of rooms, machines and toys, by name. Nobody speaks in them."""
    return {
        "silence": _silence(seconds),
        "white noise": 0.05 * _white(seconds),
        "brown noise": 0.2 * _scaled(numpy.cumsum(_white(seconds) - _white(seconds).mean())),
        "hum of the mains": sum(0.1 / n * _tone(50.0 * n, seconds) for n in (1, 2, 3, 5)),
        "knocks": _rung(900.0, seconds, every=0.7, fade=60.0),
        "a rattle": _white(seconds) * _rung(0.0, seconds, every=0.23, fade=25.0),
        "a music box": sum(_rung(f, seconds, every=e, fade=4.0) for f, e in ((523.0, 0.8), (659.0, 0.6), (784.0, 1.1))),
    }


def save(file: Path, sound: Samples) -> None:
    with wave.open(str(file), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes((numpy.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())


def _spoken(text: str, voice: str, file: Path) -> Samples:
    subprocess.run(["espeak-ng", "-v", voice, "-s", "150", "-w", file, text], check=True, timeout=30)
    with av.open(str(file)) as container:
        resampler = av.AudioResampler("flt", "mono", RATE)
        parts = [p.to_ndarray()[0] for f in container.decode(audio=0) for p in resampler.resample(f)]
    return numpy.concatenate(parts)


def _loud(said: Samples) -> list[tuple[float, float]]:
    window = RATE // 100
    blocks = numpy.abs(said[: len(said) // window * window]).reshape(-1, window).max(axis=1)
    loud = [n for n, peak in enumerate(blocks) if peak > 0.01 * blocks.max()]
    found: list[tuple[float, float]] = []
    for block in loud:
        begin, end = block / 100, (block + 1) / 100
        if found and begin - found[-1][1] <= PAUSE_SECONDS:
            found[-1] = (found[-1][0], end)
        else:
            found.append((begin, end))
    return found


def _silence(seconds: float) -> Samples:
    return numpy.zeros(round(seconds * RATE), numpy.float32)


def _white(seconds: float) -> Samples:
    return numpy.random.default_rng(0).standard_normal(round(seconds * RATE)).astype(numpy.float32)


def _scaled(sound: Samples) -> Samples:
    return (sound / numpy.abs(sound).max()).astype(numpy.float32)


def _tone(hertz: float, seconds: float) -> Samples:
    return numpy.sin(2 * numpy.pi * hertz * numpy.arange(round(seconds * RATE)) / RATE).astype(numpy.float32)


def _rung(hertz: float, seconds: float, *, every: float, fade: float) -> Samples:
    """A tone (0 Hz: a level) that is struck every so many seconds and fades by `fade` nepers a second."""
    since = numpy.arange(round(seconds * RATE)) / RATE % every
    tone = numpy.cos(2 * numpy.pi * hertz * since)
    return (0.3 * numpy.exp(-fade * since) * tone).astype(numpy.float32)
