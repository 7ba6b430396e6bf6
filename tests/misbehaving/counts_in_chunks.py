"""Counts to `steps`, keeps every number in a chunk of its own, and writes down each number that it really counted."""

import time
from pathlib import Path

from tests.misbehaving import behaves


def run(stage):
    chunks = stage.chunks()
    behaves.tell_pid(stage)
    for number in range(len(chunks), stage.config["steps"]):
        time.sleep(stage.config["step_seconds"])
        with Path(f"{stage.config['pids']}.counted").open("a") as counted:
            counted.write(f"{number}\n")
        chunks.keep(f"{number} ".encode())
        stage.report.progress((number + 1) / stage.config["steps"] * stage.video.duration_seconds)
    (stage.output_folder / "out.json").write_bytes(b"".join(chunks))
    return behaves.result()
