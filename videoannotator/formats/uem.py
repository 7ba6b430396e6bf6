"""
The stretches of a recording that were listened to, as UEM: silence outside of the RTTM's turns counts only inside.

Source: NIST, un-partitioned evaluation map, RT-09 plan section 6: `file channel onset end`.

Losses: times are rounded to the millisecond; blanks in the name become `_`.
"""

from collections.abc import Iterable
from pathlib import Path

from videoannotator.formats.rttm import word

Stretch = tuple[float, float]
"""Onset and end, seconds."""


def write_uem(file: Path, stretches: Iterable[Stretch], *, uri: str) -> None:
    """A stretch without length is none; a file without a line says that nothing was listened to."""
    lines = (f"{word(uri)} 1 {onset:.3f} {end:.3f}\n" for onset, end in stretches if end > onset)
    file.write_text("".join(lines), encoding="utf-8", newline="\n")


def read_uem(file: Path) -> tuple[Stretch, ...]:
    """Raises ValueError where a line has not its four fields."""
    stretches = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith(";;"):
            continue
        fields = line.split()
        if len(fields) != 4:
            raise ValueError(f"{file.name}, line {number}: {len(fields)} fields, a UEM line has four.")
        stretches.append((float(fields[2]), float(fields[3])))
    return tuple(stretches)
