"""Ended by SIGKILL, as the kernel does when memory runs out."""

import os
import signal


def run(stage):
    stage.report.progress(1.0)
    os.kill(os.getpid(), signal.SIGKILL)
