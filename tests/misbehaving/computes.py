"""Behaves, after half a second of processor time: a tenth in a process that it waits for, the rest its own."""

import subprocess
import sys
import time

from tests.misbehaving import behaves

_BURN = "import time\nend = time.process_time() + {}\nwhile time.process_time() < end: pass"


def run(stage):
    subprocess.run([sys.executable, "-c", _BURN.format(0.1)], check=True)
    end = time.process_time() + 0.4
    while time.process_time() < end:
        stage.report.progress(0.5)
    return behaves.run(stage)
