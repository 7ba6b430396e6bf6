"""What the disk has when a submission is answered: seen from outside, in the server's system calls."""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.clips import Clips
from tests.faults.lives import House

_TRACED = ("strace", "-D", "-f", "--seccomp-bpf", "-y", "-s", "20", "-e", "trace=fsync,fdatasync,sendto")
_UNFINISHED = re.compile(r"(\d+) +(?:fsync|fdatasync)\(\d+<([^>]*)> <unfinished")
_RESUMED = re.compile(r"(\d+) +<\.\.\. (?:fsync|fdatasync) resumed>\) += 0")
_WHOLE = re.compile(r"\d+ +(?:fsync|fdatasync)\(\d+<([^>]*)>\) += 0")


_LIMIT_SECONDS = 20.0


def _works_here() -> bool:
    traced = [*_TRACED, "-o", os.devnull, "true"]
    return shutil.which("strace") is not None and subprocess.run(traced, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not _works_here(), reason="needs strace, and the right to use it")
def test_what_is_acknowledged_is_on_disk_row_last(tmp_path: Path, clips: Clips) -> None:
    """A power cut after the answer takes neither video nor name nor row; one before it leaves no row without video."""
    trace = tmp_path / "trace"
    house = House(tmp_path, pause_free_bytes=str(10**15))  # nobody works on the jobs: what is written is of submissions

    with house.life(under=(*_TRACED, "-o", str(trace))) as life:
        _, job = life.submit(clips.path("h264.mp4")), life.submit(clips.path("h264.mp4"))

    *files, row = _synced_between_answers(trace)
    folder = house.storage.resolve() / "videos"
    assert {str(folder), str(folder / str(job)), str(folder / str(job) / "video.mp4")} == set(files)
    assert row.endswith("-wal")


def _synced_between_answers(trace: Path) -> list[str]:
    """Paths in the order in which the disk had them, from the first 201 to the second."""
    begun: dict[str, str] = {}
    synced: list[list[str]] = [[]]
    for line in _lines(trace):
        if found := _UNFINISHED.match(line):
            begun[found[1]] = found[2]
        elif found := _RESUMED.match(line):
            synced[-1].append(begun.pop(found[1]))
        elif found := _WHOLE.match(line):
            synced[-1].append(found[1])
        elif "HTTP/1.1 201" in line:
            synced.append([])
    return synced[1]


def _lines(trace: Path) -> list[str]:
    """All there will be: strace writes its last ones when the server has gone."""
    until = time.monotonic() + _LIMIT_SECONDS
    while (text := trace.read_text()).count("HTTP/1.1 201") < 2:
        assert time.monotonic() < until, text
        time.sleep(0.05)
    return text.splitlines()
