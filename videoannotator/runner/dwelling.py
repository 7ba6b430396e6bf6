"""
What one stage after another finds in the same process: its own log, its own scratch folder, and nothing of the last.
"""

import os
import tempfile
from contextlib import suppress

from videoannotator.runner.messages import Start


class Dwelling:
    """Made once, when the process begins; what it looks like then is what every stage finds."""

    def __init__(self) -> None:
        self._environ = dict(os.environ)
        self._folder = _here()
        scratch = self._environ.get("TMPDIR")
        self._scratch_variables = [name for name, value in self._environ.items() if value == scratch]
        self._mask = os.umask(0o077)
        os.umask(self._mask)

    def move_in(self, start: Start) -> None:
        """Raises OSError where the log cannot be opened."""
        if start.log:
            # Made by the server a moment ago; never through a link that somebody put in its place.
            log = os.open(start.log, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
            _output_to(log)
        if start.scratch:
            os.environ.update(dict.fromkeys(self._scratch_variables, start.scratch))
        tempfile.tempdir = None

    def move_out(self) -> None:
        """Put everything back, and write to nobody's log any more."""
        with suppress(OSError):
            os.chdir(self._folder)
        os.umask(self._mask)
        os.environ.clear()
        os.environ.update(self._environ)
        tempfile.tempdir = None
        _output_to(os.open(os.devnull, os.O_WRONLY))


def _here() -> str:
    try:
        return os.getcwd()  # noqa: PTH109  (pathlib is not needed otherwise)
    except OSError:
        return "/"


def _output_to(file: int) -> None:
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
