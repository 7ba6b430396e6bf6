"""A stage that writes down when it reported what, so that somebody else can tell how long the news took."""

import time
from pathlib import Path

from videoannotator.jobs import Ledger, Output
from videoannotator.pipelines.contract import Result, Stage


def run(stage: Stage) -> Result:
    steps: int = stage.config["steps"]
    with Path(stage.config["file"]).open("w", buffering=1) as file:
        for step in range(1, steps + 1):
            time.sleep(stage.config["step_seconds"])
            file.write(f"{step / steps:.4f} {time.time()}\n")
            stage.report.progress(step / steps * stage.video.duration_seconds)
    (stage.output_folder / "out.json").write_text("{}")
    return Result(
        annotations=1,
        outputs=(Output("out.json", "annotations", "application/json"),),
        engine="none",
        libraries=(),
        ledger=Ledger(expected=10, decoded=10, failed=0, processed=10, skipped=0),
    )
