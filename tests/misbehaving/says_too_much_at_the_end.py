"""An index of a million rows does not fit in a message."""

from tests.misbehaving import behaves
from videoannotator.jobs import Interval


def run(stage):
    behaves.write(stage)
    return behaves.result(intervals=(Interval("voice", 0.0, 1.0, "x" * 50),) * 100_000)
