"""Voice: when somebody speaks, in silence and in noise."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy
from answers import annotate, f1
from rig import say
from truth import RATE, TIMINGS, shot, speech, write


def voice(folder: Path) -> None:
    for noise in (0.0, 0.01):
        for timing in TIMINGS:
            sound = folder / "speech.wav"
            spoken = speech(sound, noise, seed=1)
            clip = folder / "speech.mp4"
            write(clip, list(shot("coffee", 60 * RATE, 1)), timing, sound)
            results = annotate(clip, "voice_activity", folder)
            lines = (results / "voice_activity.rttm").read_text().splitlines()
            got = [(float(f[3]), float(f[3]) + float(f[4])) for f in (line.split() for line in lines)]
            there, heard = on_a_grid(spoken), on_a_grid(got)
            score = f1(int((there & heard).sum()), int(heard.sum()), int(there.sum()))
            say(f"voice, noise {noise}, {timing.name}: F1 on a grid of 10 ms", score, "", stretches=len(spoken))


def on_a_grid(stretches: Iterable[tuple[float, float]]) -> Any:
    grid = numpy.zeros(60 * 100, bool)
    for begin, end in stretches:
        grid[round(begin * 100) : round(end * 100)] = True
    return grid
