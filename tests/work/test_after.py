"""A pipeline that comes after another of the same job gets its files; whatever becomes of the other, it runs."""

import json
from pathlib import Path

import pytest

from tests.clips import Clips
from tests.server import Served, serving

_YAML = """\
name: {name}
version: "1.0.0"
display_name: {name}
family: test
description: A pipeline of the tests.
needs: video
engines: [{{name: none, description: does nothing useful}}]
after: [{after}]
parameters:
  - {{name: fails, type: boolean, label: Fails, description: whether it fails, default: false}}
outputs:
  - {{name: {name}.json, format: json, role: annotations, media_type: application/json, description: what it saw}}
resources: {{memory_mb: 50, realtime_factor: 1}}
known_limits: []
"""
_CODE = """\
import json
import time
from pathlib import Path

from videoannotator.jobs import Ledger, Output
from videoannotator.pipelines.contract import Result


def run(stage):
    time.sleep({seconds})
    if stage.config["fails"] and not Path(__file__).with_name("mended").exists():
        raise ValueError("it was asked to")
    seen = {{name: path.read_text() for name, path in stage.earlier.items()}}
    (stage.output_folder / "{name}.json").write_text(json.dumps(seen))
    stage.report.progress(stage.video.duration_seconds)
    return Result(
        annotations=len(seen),
        outputs=(Output("{name}.json", "annotations", "application/json"),),
        engine="none",
        libraries=(),
        ledger=Ledger(expected=None, decoded=0, failed=0, processed=0, skipped=0),
    )
"""


@pytest.fixture
def pipelines(tmp_path: Path) -> Path:
    """`slow` takes half a second, `eager` comes after it."""
    folder = tmp_path / "chain"
    folder.mkdir()
    for name, after, seconds in (("slow", "", 0.5), ("eager", "slow", 0)):
        (folder / f"{name}.yaml").write_text(_YAML.format(name=name, after=after))
        (folder / f"{name}.py").write_text(_CODE.format(name=name, seconds=seconds))
    return folder


def written(served: Served, job_id: str) -> dict[str, str]:
    seen: dict[str, str] = json.loads((served.storage / "results" / job_id / "eager.json").read_text())
    return seen


async def test_it_waits_for_the_other_and_gets_its_files(pipelines: Path, clips: Clips, tmp_path: Path) -> None:
    """Although it is named first and there is room for both."""
    async with serving(tmp_path, pipeline_dirs=(pipelines,)) as served:
        job = await served.finished(clips.path("h264.mp4"), "eager,slow")

        assert job["outcome"] == "full", job
        assert written(served, job["id"]) == {"slow.json": "{}"}


async def test_it_runs_alone_and_after_a_failure(pipelines: Path, clips: Clips, tmp_path: Path) -> None:
    """Then without the files: captions are no condition for turns."""
    clip = clips.path("h264.mp4")
    async with serving(tmp_path, pipeline_dirs=(pipelines,)) as served:
        alone = await served.finished(clip, "eager")
        failed = await served.finished(clip, "eager,slow", config='{"slow": {"fails": true}}')

        assert (alone["outcome"], failed["outcome"]) == ("full", "partial")
        assert written(served, alone["id"]) == {}
        assert written(served, failed["id"]) == {}


async def test_a_retry_repeats_what_did_without_the_files(pipelines: Path, clips: Clips, tmp_path: Path) -> None:
    """Who said what is not known while nothing was understood; once it is, it must be told."""
    async with serving(tmp_path, pipeline_dirs=(pipelines,)) as served:
        old = await served.finished(clips.path("h264.mp4"), "eager,slow", config='{"slow": {"fails": true}}')
        (pipelines / "mended").touch()

        new = await served.workspace.retry(old["id"])

        assert (await served.ended(new.id))["outcome"] == "full"
        assert written(served, new.id) == {"slow.json": "{}"}


async def test_a_remembered_result_belongs_to_the_files_it_saw(pipelines: Path, clips: Clips, tmp_path: Path) -> None:
    """The same video and parameters with another transcript is other work."""
    clip = clips.path("h264.mp4")
    async with serving(tmp_path, pipeline_dirs=(pipelines,), cache="on") as served:
        alone = await served.finished(clip, "eager")
        beside = await served.finished(clip, "eager,slow")
        again = await served.finished(clip, "eager,slow")

        assert written(served, alone["id"]) == {}
        assert written(served, beside["id"]) == {"slow.json": "{}"}
        assert [stage["cached"] for stage in again["stages"]] == [True, True]
