"""
How right the pipelines are, on clips with exact truth (truth.py, truth_sound.py).

    uv run scripts/bench/accuracy.py                 # all of it: a quarter of an hour on two cores
    uv run scripts/bench/accuracy.py faces voice     # these sections

Everything goes through the real command. Words and speakers need models from elsewhere; where they are not here, tiny
random ones take their place, and the line says so (accuracy_words.py).
"""

import sys
from collections.abc import Callable
from pathlib import Path

from accuracy_faces import alarms, faces, hurry, presence
from accuracy_scenes import scenes, transitions, unrest
from accuracy_times import times
from accuracy_voice import nobody, voice
from accuracy_words import silence, speakers, words
from rig import workplace

SECTIONS: dict[str, Callable[[Path], None]] = {
    section.__name__: section
    for section in (
        scenes,
        transitions,
        unrest,
        times,
        faces,
        presence,
        hurry,
        alarms,
        voice,
        nobody,
        silence,
        words,
        speakers,
    )
}


def main(asked: list[str]) -> None:
    unknown = [name for name in asked if name not in SECTIONS]
    if unknown:
        sys.exit(f"There is no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}.")
    for name in asked or SECTIONS:
        with workplace() as folder:
            SECTIONS[name](folder)


if __name__ == "__main__":
    main(sys.argv[1:])
