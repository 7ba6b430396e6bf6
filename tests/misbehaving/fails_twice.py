"""Fails twice for a reason that passes, then works; writes down when each attempt began."""

import time
from pathlib import Path

from tests.misbehaving import behaves
from videoannotator.errors import StageFailed


def run(stage):
    if attempt(stage) <= 2:
        raise StageFailed("The licence server does not answer.", code="LICENCE_SERVER_SILENT", retryable=True)
    return behaves.write(stage)


def attempt(stage) -> int:
    """Which attempt at this pipeline it is, from 1, whatever process it runs in."""
    attempts = Path(f"{stage.config['pids']}.attempts")
    with attempts.open("a") as file:
        file.write(f"{time.time()}\n")
    behaves.tell_pid(stage)
    return len(attempts.read_text().splitlines())
