"""A stage that breaks off half-way: what it found is kept, marked as a part, and never taken for the whole."""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests import tiny_onnx
from tests.clips import Clips, ffmpeg
from tests.declared import declare
from tests.server import serving
from tests.staging import Recorder
from videoannotator.formats.persons import read_persons
from videoannotator.jobs import Output
from videoannotator.media.probe import probe
from videoannotator.pipelines.catalogue import Catalogue
from videoannotator.pipelines.contract import Stage
from videoannotator.pipelines.person_tracking import run
from videoannotator.settings import Settings

# a bright square until 2 s, where the picture becomes so white that the tiny network fails
UNTIL_TWO = (
    "color=black:s=640x640:r=10:d=3,format=rgb24,"
    "drawbox=x=0:y=160:w=160:h=160:c=0xd0d0d0:t=fill,drawbox=w=640:h=640:c=white:t=fill:enable='gte(t,1.95)'"
)


def test_an_engine_that_raises_half_way_leaves_what_it_found(tmp_path: Path) -> None:
    """Hours of work, and the last minute was bad. The file says that it is a part and up to where."""
    catalogue = Catalogue.of(Settings(storage_dir=tmp_path / "storage"))
    catalogue.supplies.shelf.bring_in(tiny_onnx.rtmo(tmp_path / "made" / "rtmo", breaks=True), "rtmo-s")
    clip, folder = tmp_path / "clip.mp4", tmp_path / "out"
    ffmpeg("-f", "lavfi", "-i", UNTIL_TWO, "-c:v", "libx264rgb", "-qp", "0", clip)
    values = catalogue.require(["person_tracking"], {"person_tracking": {"engine": "rtmo"}})["person_tracking"]
    folder.mkdir()

    with pytest.raises(Exception, match="indices element out of data bounds"):
        run(
            Stage(
                video_path=clip, video=probe(clip), config=values, output_folder=folder, threads=1,
                max_lost_frames=0.01, report=Recorder(),
                models=catalogue.supplies.models(catalogue.get("person_tracking"), values),
            )
        )  # fmt: skip

    assert {file.name for file in folder.iterdir()} == {"person_tracking.partial.json", "person_tracking.partial.csv"}
    persons, samples = read_persons(folder / "person_tracking.partial.json")
    info = json.loads((folder / "person_tracking.partial.json").read_text())["info"]
    assert (info["partial"], info["until_seconds"]) == (True, 1.9)
    assert (len(samples), len(persons)) == (20, 20)


async def test_a_part_is_listed_and_marked_and_shown_to_nobody_as_the_whole(clips: Clips, tmp_path: Path) -> None:
    """The stage failed all the same; the other one's result is there; the ZIP for the Viewer does not have the part."""
    folder = declare(tmp_path / "pipelines", "behaves", "breaks_off")
    async with serving(tmp_path, pipeline_dirs=(folder,)) as served:
        job = await served.finished(clips.path("h264.mp4"), "behaves,breaks_off")
        manifest = (await served.http.get(f"/api/v1/jobs/{job['id']}/manifest")).json()
        part = await served.http.get(f"/api/v1/jobs/{job['id']}/files/out.partial.json")
        archive = await served.http.get(f"/api/v1/jobs/{job['id']}/artifacts")

    failed = next(stage for stage in job["stages"] if stage["pipeline"] == "breaks_off")
    assert (job["status"], job["outcome"], failed["status"]) == ("completed", "partial", "failed")
    assert failed["error"]["message"].endswith("What was found until then: out.partial.json.")
    entries = {entry["path"]: entry["meta"] for entry in manifest["outputs"]["h264.mp4"]}
    assert entries["out.partial.json"] == {"pipeline": "breaks_off", "partial": True}
    assert part.json() == {"found": 1}
    assert "out.partial.json" not in zipfile.ZipFile(io.BytesIO(archive.content)).namelist()


def test_annotate_delivers_a_part_unless_an_earlier_whole_is_there(clips: Clips, tmp_path: Path) -> None:
    """It would go with the scratch folder; and what was good yesterday must not make room for it."""
    folder = declare(tmp_path / "pipelines", "breaks_off")
    words = [sys.executable, "-m", "videoannotator", "annotate", clips.path("h264.mp4"), "--json", "--pipelines"]
    environ = os.environ | {"VIDEOANNOTATOR_PIPELINE_DIRS": str(folder)}

    def annotate(output: str) -> dict[str, Any]:
        done = subprocess.run(
            [*words, "breaks_off", "--output", output],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        return dict(json.loads(done.stdout))

    earlier = tmp_path / "two" / "h264" / "manifest.json"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("{}")

    broken, again = annotate("one"), annotate("two")

    assert [done["status"] for done in (broken, again)] == ["failed", "failed"]
    assert {file.name for file in (tmp_path / "one" / "h264").iterdir()} == {"manifest.json", "out.partial.json"}
    assert [file.name for file in earlier.parent.iterdir()] == ["manifest.json"]
    assert ("output" in broken, "output" in again) == (True, False)


@pytest.mark.parametrize(("name", "partial"), [("a.json", "a.partial.json"), ("a.b.csv", "a.b.partial.csv")])
def test_a_part_has_the_ending_of_the_whole(name: str, partial: str) -> None:
    """So that programs open it."""
    assert Output(name, "table", "text/csv").partial == Output(partial, "table", "text/csv", in_zip=False)
