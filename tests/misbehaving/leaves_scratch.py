"""Leaves temporary files behind, as whatever is killed does, and says where."""

import os
import signal
import tempfile
from pathlib import Path


def run(stage):
    folder = tempfile.mkdtemp()
    Path(folder, "huge").write_bytes(b"x" * 1000)
    stage.report.log("info", folder)
    os.kill(os.getpid(), signal.SIGKILL)
