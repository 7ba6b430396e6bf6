"""A library that says a lot, from Python and from C."""

import os
import sys

from tests.misbehaving import behaves


def run(stage):
    line = "x" * 99 + "\n"
    for _ in range(100):
        sys.stdout.write(line * 5_000)
        os.write(1, line.encode() * 5_000)
    return behaves.write(stage)
