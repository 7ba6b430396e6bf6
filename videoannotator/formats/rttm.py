"""
Turns of speech as RTTM: ten fields divided by blanks, one line per turn.

Source: NIST, The 2009 (RT-09) Rich Transcription Meeting Recognition Evaluation Plan, appendix A:
`SPEAKER file channel onset duration <NA> <NA> name confidence <NA>`.

Losses: times are rounded to the millisecond, confidences to 0.001; blanks in names become `_`.
"""

from collections.abc import Iterable
from pathlib import Path

from videoannotator.annotations import Turn

ABSENT = "<NA>"


def write_rttm(file: Path, turns: Iterable[Turn], *, uri: str) -> None:
    """Write one line per turn; `uri` names the recording. A file without a line is not RTTM: write none then."""
    name = word(uri)
    file.write_text("".join(_line(name, turn) for turn in turns), encoding="utf-8", newline="\n")


def read_rttm(file: Path) -> tuple[Turn, ...]:
    """The SPEAKER lines of an RTTM, others and comments left out. Raises ValueError, naming the line that is wrong."""
    turns = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.split()
        if not fields or fields[0] != "SPEAKER":
            continue
        if len(fields) < 9:
            raise ValueError(f"{file.name}, line {number}: {len(fields)} fields, an RTTM line has ten.")
        score = None if fields[8] == ABSENT else float(fields[8])
        turns.append(Turn(float(fields[3]), float(fields[4]), fields[7], score))
    return tuple(turns)


def word(text: str) -> str:
    """`text` without blanks and control characters, so that it is one field; never empty."""
    return "".join(c if c.isprintable() and not c.isspace() else "_" for c in text) or "_"


def _line(uri: str, turn: Turn) -> str:
    onset = round(turn.onset, 3)
    duration = max(0.001, round(turn.end, 3) - onset)
    score = ABSENT if turn.score is None else f"{turn.score:.3f}"
    return f"SPEAKER {uri} 1 {onset:.3f} {duration:.3f} {ABSENT} {ABSENT} {word(turn.label)} {score} {ABSENT}\n"
