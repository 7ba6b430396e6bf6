"""Takes 1, 3 and 2 GiB of the card of `tests/nvml.c`, one after the other, and writes 8 MiB to the disk."""

import os
import time
from pathlib import Path

from tests.misbehaving import behaves
from videoannotator.jobs import Output


def run(stage):
    ledger = Path(os.environ["NVML_LEDGER"])
    _write(stage.output_folder / "kept", 8 * 2**20)
    ledger.with_suffix(".io").write_text(Path("/proc/self/io").read_text())
    for gib, ticks in ((1, 3), (3, 9), (2, 3)):
        _hold(ledger, gib * 2**30)
        for _ in range(ticks):
            stage.report.progress(0.5)
            time.sleep(0.05)
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
