"""Lets somebody else take the memory."""

import subprocess
import sys
import time

_EAT = "import time; held = b'x' * (400 * 1024**2); time.sleep(3600)"


def run(stage):
    subprocess.Popen([sys.executable, "-c", _EAT], start_new_session=True)
    time.sleep(3600)
