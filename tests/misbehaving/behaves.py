"""Does what a stage should: reports, logs, writes what it declares, closes its ledger."""

import os
import time
from pathlib import Path

from videoannotator.jobs import Ledger, Output
from videoannotator.pipelines.contract import Result, Stage


def run(stage: Stage) -> Result:
    """`steps` pieces of work of `step_seconds` each; `name` and `libraries` go into the result."""
    steps = stage.config.get("steps", 1)
    stage.report.log("info", "hello")
    for step in range(steps):
        time.sleep(stage.config.get("step_seconds", 0.0))
        stage.report.progress((step + 1) / steps * stage.video.duration_seconds)
    (stage.output_folder / "out.json").write_text("{}")
    return result(libraries=tuple(stage.config.get("libraries", ())))


def result(**changes: object) -> Result:
    """A result that stands up to every check."""
    fields = {
        "annotations": 1,
        "outputs": (Output("out.json", "annotations", "application/json"),),
        "engine": "none",
        "libraries": (),
        "ledger": Ledger(expected=10, decoded=10, failed=0, processed=5, skipped=5),
    }
    return Result(**(fields | changes))


def write(stage: Stage) -> Result:
    (stage.output_folder / "out.json").write_text("{}")
    return result()


def tell_pid(stage: Stage, *pids: int) -> None:
    """For tests: this process and others that belong to this stage."""
    with Path(stage.config["pids"]).open("a") as file:
        file.writelines(f"{pid}\n" for pid in (os.getpid(), *pids))


def wait(stage: Stage) -> None:
    """Work on, reporting progress, until somebody ends it."""
    done = 0.0
    while True:
        stage.report.progress(done)
        done += 0.001
        time.sleep(0.02)
