"""
Takes 1, 3 and 2 GiB of the card of `tests/nvml.c`, one after the other, the 3 until it is told to go on by a file, and
writes 8 MiB to the disk.
"""

import os
import time
from pathlib import Path

from tests.misbehaving import behaves
from videoannotator.jobs import Output


def run(stage):
    ledger = Path(os.environ["NVML_LEDGER"])
    _write(stage.output_folder / "kept", 8 * 2**20)
    ledger.with_suffix(".io").write_text(Path("/proc/self/io").read_text())
    for gib in (1, 3, 2):
        _hold(ledger, gib * 2**30)
        stage.report.progress(0.5)
        while gib == 3 and not ledger.with_suffix(".go").exists():
            stage.report.progress(0.5)
            time.sleep(0.02)
    (stage.output_folder / "card.json").write_text("{}")
    return behaves.result(outputs=(Output("card.json", "annotations", "application/json"),))


def _write(file, size):
    with file.open("wb") as content:
        content.write(os.urandom(size))
        content.flush()
        os.fsync(content.fileno())
    file.unlink()


def _hold(ledger, size):
    line = ledger.with_suffix(".new")
    line.write_text(f"{os.getpid()} {size}\n")
    line.replace(ledger)
