"""Voice: when somebody speaks, in silence and in noise, and what is taken for a voice."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy
from answers import annotate, f1
from rig import say
from truth import STEADY, still, write
from truth_sound import save, speech, voiceless

from videoannotator.formats.rttm import read_rttm

BARS = {0.0: 0.95, 0.01: 0.95, 0.03: 0.9}
"""Our own, by the noise: espeak-ng at about -15 dB of full scale, noise at -40 and -30 dB."""


def voice(folder: Path) -> None:
    for noise, bar in BARS.items():
        recital = speech(folder / "speech.wav", noise=noise)
        got = heard(folder / "speech.wav", recital.seconds, folder)
        there, found = (on_a_grid(stretches, recital.seconds) for stretches in (recital.stretches, got))
        score = f1(int((there & found).sum()), int(found.sum()), int(there.sum()))
        say(
            f"voice, noise {noise}: F1 on a grid of 10 ms", score, "",
            asked=bar, at_least=True, stretches=len(recital.stretches), found=len(got),
        )  # fmt: skip


def nobody(folder: Path) -> None:
    sounds = voiceless()
    save(folder / "nobody.wav", numpy.concatenate(list(sounds.values())))
    seconds = 10.0 * len(sounds)
    got = heard(folder / "nobody.wav", seconds, folder)
    grid = on_a_grid(got, seconds).reshape(len(sounds), -1)
    wrong: dict[str, Any] = {name: float(row.mean()) for name, row in zip(sounds, grid, strict=True) if row.any()}
    say("taken for a voice where nobody speaks", float(grid.mean()), "share", asked=0.05, **wrong)


def heard(sound: Path, seconds: float, folder: Path) -> list[tuple[float, float]]:
    clip = folder / f"{sound.stem}.mp4"
    write(clip, still(seconds), STEADY, sound)
    turns = annotate(clip, "voice_activity", folder) / "voice_activity.rttm"
    return [(turn.onset, turn.end) for turn in read_rttm(turns)] if turns.exists() else []


def on_a_grid(stretches: Iterable[tuple[float, float]], seconds: float) -> Any:
    grid = numpy.zeros(round(seconds * 100), bool)
    for begin, end in stretches:
        grid[round(begin * 100) : round(end * 100)] = True
    return grid
