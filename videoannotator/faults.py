"""
Points at which tests end this process as `kill -9` does, so that every step is known to survive it.

`VIDEOANNOTATOR_FAULT=stage.recorded` ends it when that point is reached, `stage.recorded:3` the third time. Without the
variable a point costs one comparison. `tests/faults/` goes through all of them.
"""

import os
import signal

POINTS = (
    "upload.received",  # the video is on disk, under a name of its own
    "upload.moved",  # and in the job's folder; there is no row
    "job.admitted",  # probed and checked; there is no row
    "job.queued",  # the row is there; nobody has been told
    "store.committing",  # before the COMMIT of a transaction
    "store.committed",  # after it, before anybody hears of it
    "job.claimed",
    "stage.started",
    "stage.done",  # the process has said Done
    "stage.sealed",  # its files are hashed and on disk, not in their place
    "stage.recorded",  # the store knows them, they are not in their place
    "artifact.moved",  # one of them is
    "stage.published",  # all of them are
    "stage.put_back",  # another attempt is recorded
    "cache.written",  # an entry is complete and has not its name
    "cache.kept",
    "manifest.written",  # under another name
    "job.manifest",  # the manifest is written, the job is running
    "job.finished",  # the ending is recorded
    "job.forgotten",  # a deleted job's rows are gone, its files are there
)

_point, _, _times = os.environ.get("VIDEOANNOTATOR_FAULT", "").partition(":")
_left = [int(_times or 1)]


def reach(point: str) -> None:
    if point != _point:
        return
    _left[0] -= 1
    if _left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
