"""Crashes once, then works."""

import os
import signal

from tests.misbehaving import behaves, fails_twice


def run(stage):
    if fails_twice.attempt(stage) == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    return behaves.write(stage)
