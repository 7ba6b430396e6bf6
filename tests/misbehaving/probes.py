"""Ways to misbehave for the reader of videos: the file's first word says which."""

import ctypes
import os
import time

from videoannotator.errors import UnreadableVideo
from videoannotator.jobs import Video

_served: list[str] = []


def probe(path, filename):
    _served.append(filename)
    match path.read_text().split():
        case ["hang"]:
            time.sleep(3600)
        case ["crash"]:
            ctypes.string_at(0)
        case ["crash_if_used"] if len(_served) > 1:
            os._exit(1)
        case ["refuse"]:
            raise UnreadableVideo(f"{filename} is a playlist.", hint="Send the video itself.", code="PLAYLIST")
        case ["bug"]:
            raise ZeroDivisionError("a bug")
        case ["memory"]:
            bytearray(8 * 1024**3)
        case ["meet", number]:
            _meet(path, int(number))
        case ["print"]:
            print("noise" * 10_000, flush=True)
    return Video(filename=filename, size_bytes=path.stat().st_size, container="mp4", duration_seconds=os.getpid())


def breaks_at_import(path, filename):
    raise AssertionError


def _meet(path, number):
    """Until so many processes look at this file at the same time, or for half a minute."""
    folder = path.with_suffix(".here")
    folder.mkdir(exist_ok=True)
    (folder / str(os.getpid())).touch()
    until = time.monotonic() + 30
    while len(list(folder.iterdir())) < number and time.monotonic() < until:
        time.sleep(0.01)
