"""Writes what a browser or a spreadsheet would run if it were let."""

import json

from tests.misbehaving.behaves import result
from videoannotator.jobs import Output
from videoannotator.pipelines.contract import Result, Stage

SCRIPT = "<script>fetch('//evil.example')</script>"


def run(stage: Stage) -> Result:
    stage.report.log("warning", f"{SCRIPT} and \x1b[31mred\x1b[0m")
    (stage.output_folder / "page.html").write_text(f"<!doctype html>{SCRIPT}")
    (stage.output_folder / "picture.svg").write_text(f'<svg xmlns="http://www.w3.org/2000/svg">{SCRIPT}</svg>')
    (stage.output_folder / "labels.json").write_text(json.dumps({"label": SCRIPT}))
    return result(
        outputs=(
            Output("page.html", "table", "text/html"),
            Output("picture.svg", "image", "image/svg+xml"),
            Output("labels.json", "table", "application/json"),
        )
    )
