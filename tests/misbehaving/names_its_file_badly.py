"""Its output has the name that the parameter `pids` says."""

from contextlib import suppress

from tests.misbehaving.behaves import result
from videoannotator.jobs import Output
from videoannotator.pipelines.contract import Result, Stage


def run(stage: Stage) -> Result:
    name = stage.config["pids"]
    with suppress(OSError, ValueError):
        (stage.output_folder / name).write_text("{}")
    return result(outputs=(Output(name, "annotations", "application/json"),))
