"""Older results come in as they are, or are named as what they are not: nothing half-read, nothing made up."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.server import serving
from videoannotator.artifacts import sha256
from videoannotator.errors import Refused
from videoannotator.upkeep import older_results
from videoannotator.upkeep.older_results import OlderFile

SCENES = [{"id": 1, "start_time": 0.0, "end_time": 2.5, "scene_type": "living_room", "score": 0.9}]
FACES = {
    "annotations": [
        {"id": 1, "bbox": [1, 2, 30, 40], "timestamp": 0.5, "face_id": 0, "attributes": {"emotions": {}}},
        {"id": 2, "bbox": [2, 2, 30, 40], "timestamp": 1.5, "face_id": 0},
        {"id": 3, "bbox": [90, 2, 30, 40], "timestamp": 1.5, "face_id": 1},
    ]
}
PERSONS = [{"id": 1, "image_id": "0", "bbox": [0, 0, 9, 9], "keypoints": [0] * 51, "timestamp": 3.0, "track_id": 4}]
VTT = "WEBVTT\n\n1\n00:00:01.000 --> 00:00:02.500\nkuckuck\n"
RTTM = "SPEAKER visit 1 0.500 1.250 <NA> <NA> child 0.9 <NA>\n"
OPENFACE = {"faces": [{"annotation_id": 1, "bbox": [0, 0, 9, 9], "timestamp": 1.0, "features": {"confidence": 1}}]}


def write(folder: Path, **files: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        file = folder / name.replace("__", ".").replace("SLASH", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


@pytest.fixture
def older(tmp_path: Path, clips: Any) -> Path:
    """Two videos in the two usual layouts, one of them with its video file."""
    folder = write(
        tmp_path / "older",
        visit1_scene_detection__json=SCENES,
        visit1_laion_face_annotations__json=FACES,
        visit1_speech_recognition__vtt=VTT,
        visit1_speaker_diarization__rttm=RTTM,
        visit2SLASHperson_tracking__json=PERSONS,
        visit2SLASHopenface3_analysis__json=OPENFACE,
        notes__txt="not a result",
    )
    shutil.copy(clips.path("h264.mp4"), folder / "visit1.mp4")
    return folder


def run_import(folder: Path, cwd: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "videoannotator", "import", str(folder), "--storage-dir", str(cwd / "storage")]
    return subprocess.run([*command, *more], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


async def test_a_folder_becomes_completed_jobs_that_say_they_were_imported(older: Path, tmp_path: Path) -> None:
    """Byte for byte, visible over HTTP like every other result; and a second import adds nothing."""
    first = run_import(older, tmp_path, "--tag", "pilot")
    second = run_import(older, tmp_path)

    async with serving(tmp_path) as server:
        jobs = {job["video_filename"]: job for job in (await server.http.get("/api/v1/jobs?tag=pilot")).json()["jobs"]}
        one = jobs["visit1.mp4"]
        results = (await server.http.get(f"/api/v1/jobs/{one['id']}/results")).json()["results"]
        scenes = await server.http.get(f"/api/v1/jobs/{one['id']}/files/scene_detection.json")
        manifest = (await server.http.get(f"/api/v1/jobs/{one['id']}/manifest")).json()
        archive = await server.http.get(f"/api/v1/jobs/{one['id']}/artifacts")
        video = await server.http.get(f"/api/v1/jobs/{one['id']}/video")
        gone = await server.http.get(f"/api/v1/jobs/{jobs['visit2']['id']}/video")
        intervals = await server.workspace.store.intervals(one["id"])

    assert (0, True) == (first.returncode, "2 imported, 0 known, 0 refused" in first.stdout), (
        first.stdout + first.stderr
    )
    assert (0, True) == (second.returncode, "0 imported, 2 known, 0 refused" in second.stdout)
    assert {"visit1.mp4", "visit2"} == jobs.keys()
    assert ("completed", "full", ["imported", "pilot"]) == (one["status"], one["outcome"], one["tags"])
    assert {"scene_detection", "face_analysis", "speech_recognition", "speaker_diarization"} == results.keys()
    assert 3 == results["face_analysis"]["annotations"]
    assert scenes.content == (older / "visit1_scene_detection.json").read_bytes()
    stages = {stage["pipeline"]: stage for stage in manifest["provenance"]["stages"]}
    assert ("imported", "unknown") == (stages["face_analysis"]["engine"], stages["face_analysis"]["pipeline_version"])
    assert "not made by this program" in stages["face_analysis"]["known_limits"][0]
    assert "laion_face_annotations" in stages["face_analysis"]["warnings"][0]
    assert sha256(older / "visit1.mp4") == manifest["provenance"]["input"]["sha256"]
    assert (200, 200, 404) == (archive.status_code, video.status_code, gone.status_code)
    assert {("scene", 0.0, 2.5), ("face_track", 0.5, 1.0), ("utterance", 1.0, 1.5), ("speaker", 0.5, 1.25)} <= {
        (i.kind, i.onset, i.duration) for i in intervals
    }


BAD: list[tuple[str, Any, str]] = [
    ("a_scene_detection.json", [{"start_time": 3.0, "end_time": 1.0}], "ends before it begins"),
    ("b_scene_detection.json", [{"start_time": "soon", "end_time": 1.0}], "Expected `float`"),
    ("c_face_analysis.json", {"annotations": [{"bbox": [1, 2, 3]}]}, "bbox"),
    ("d_face_analysis.json", {"nothing": 1}, "neither a list"),
    ("e_person_tracking.json", "{", "truncated"),
    ("f_speech_recognition.vtt", "00:00:01.000 --> 00:00:02.000\nhi", "WEBVTT"),
    ("g_speaker_diarization.rttm", "SPEAKER visit 1 0.5\n", "line 1"),
    ("h.json", {"annotations": [{"colour": "red"}]}, "nothing in it says which pipeline"),
    ("i_scene_detection.json", "[" * 100_000, "is no scene_detection"),
    ("j_scene_detection.json", [{"start_time": float("1e300"), "end_time": 1e301}], "start_time"),
]


@pytest.mark.parametrize(("name", "content", "says"), BAD)
def test_what_is_no_result_is_refused_with_the_reason(name: str, content: Any, says: str, tmp_path: Path) -> None:
    """One bad row is one too many: a silently shorter result would be a wrong one."""
    (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    ((file,), left) = older_results.find(tmp_path)

    with pytest.raises(Refused) as refused:
        older_results.read(file)

    assert () == left
    assert "NOT_A_RESULT" == refused.value.code
    assert says in refused.value.message


def test_links_and_huge_files_are_left_out_by_name(tmp_path: Path) -> None:
    """A link could lead to any file of the machine, and gigabytes of JSON into memory."""
    folder = write(tmp_path / "older", secret_scene_detection__json=SCENES)
    (folder / "link_scene_detection.json").symlink_to("/etc/passwd")
    (folder / "linked").symlink_to(tmp_path)
    with (folder / "huge_scene_detection.json").open("wb") as huge:
        huge.truncate(older_results.MOST_BYTES + 1)
    (folder / "empty_scene_detection.json").touch()

    found, left = older_results.find(folder)

    assert ["secret"] == [file.video for file in found]
    assert {"link_scene_detection.json", "huge_scene_detection.json", "empty_scene_detection.json"} == {
        path.name for path, _ in left
    }


@pytest.mark.parametrize(
    ("path", "video", "pipeline"),
    [
        ("v_scene_detection.json", "v", "scene_detection"),
        ("my.video.2019-scene_detection.json", "my.video.2019", "scene_detection"),
        ("child_face_person_tracking.json", "child_face", "person_tracking"),
        ("v/face_analysis.json", "v", "face_analysis"),
        ("day1/v_pose.json", "v", "person_tracking"),
        ("face_analysis.json", "face_analysis", ""),
        ("v/unknown.json", "v", ""),
    ],
)
def test_names_say_video_and_pipeline(path: str, video: str, pipeline: str, tmp_path: Path) -> None:
    """The longest name of a pipeline wins; a name alone at the top says nothing of the video."""
    write(tmp_path, **{path.replace("/", "SLASH"): "[]"})

    (found,) = older_results.find(tmp_path)[0]

    assert OlderFile(tmp_path / path, video, pipeline) == found


def test_a_refused_file_keeps_nothing_else_out(older: Path, tmp_path: Path) -> None:
    """The good ones come in, the bad one is named, and the exit code says that there was one."""
    (older / "visit1_person_tracking.json").write_text("{}")

    done = run_import(older, tmp_path)

    assert 1 == done.returncode
    assert "[REFUSED]" in done.stdout
    assert "visit1_person_tracking.json" in done.stdout
    assert "2 imported, 0 known, 1 refused" in done.stdout
