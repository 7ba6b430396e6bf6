"""Wants to finish first."""

import signal

from tests.misbehaving import behaves


def run(stage):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    behaves.wait(stage)
