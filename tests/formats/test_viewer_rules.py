"""What the Viewer takes a file for, and whether it shows it: a table of samples with the answers of VIEWER.md, 8."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videoannotator.formats.viewer import detected, displaced, judge, shown_together

SCENE = {"id": 1, "start_time": 0.0, "end_time": 2.0, "scene_type": "scene", "duration": 2.0}
PERSON = {
    "id": 1,
    "image_id": "1",
    "category_id": 1,
    "keypoints": [0.0] * 51,
    "num_keypoints": 0,
    "bbox": [1, 2, 3, 4],
    "area": 12,
    "iscrowd": 0,
    "score": 0.5,
    "timestamp": 0.0,
    "frame_number": 0,
    "person_id": "p1",
    "person_label": "adult",
    "labeling_method": "none",
    "label_confidence": 0.0,
}
FACE = {"id": 1, "bbox": [1, 2, 3, 4], "score": 0.9, "timestamp": 0.0, "face_id": 1}
COCO = {"description": "made as COCO"}
FILLING = {"images": [{"id": str(number), "file_name": "x" * 40} for number in range(400)]}
"""More than any rule reads."""


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(name: str, content: object) -> Path:
        file = tmp_path / name
        text = content if isinstance(content, str) else json.dumps(content)
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
        return file

    return write


@pytest.mark.parametrize(
    ("name", "content", "track"),
    [
        ("clip.MP4", "", "video"),
        ("clip.m4v", "", None),
        ("sound.wav", "", "audio"),
        ("x.vtt", "", "speech_recognition"),
        ("speech_recognition.csv", "", "speech_recognition"),
        ("x.rttm", "", "speaker_diarization"),
        ("speaker_diarization.json", [], "speaker_diarization"),
        ("scene_detection.csv", "", None),
        ("manifest.yaml", "{}", None),
        ("x.json", {"video_path": "v", "pipeline_results": {"a": 1}, "config": {"a": 1}, "start_time": "t",
                    "total_duration": 0}, "complete_results"),
        ("x.json", {"video_path": "", "pipeline_results": {"a": 1}, "config": {"a": 1}, "start_time": "t",
                    "total_duration": 0}, "scene_detection"),
        ("x.json", [FACE], "face_analysis"),
        ("x.json", [], "face_analysis"),
        ("myface_person_tracking.json", {"annotations": [PERSON]}, "face_analysis"),
        ("person_tracking.json", {"annotations": [PERSON]}, "person_tracking"),
        ("out.json", {"info": COCO} | FILLING | {"annotations": [PERSON]}, None),
        ("person_tracking.json", {"info": COCO} | FILLING | {"annotations": [PERSON]}, "person_tracking"),
        ("x.json", {"annotations": [1]}, "person_tracking"),
        ("x.json", {"info": COCO, "annotations": [1]}, "person_tracking"),
        ("x.json", {"info": COCO, "scenes": [SCENE]}, "scene_detection"),
        ("x.json", {"results": [SCENE]}, "person_tracking"),
        ("x.json", {"results": [SCENE], "more": "x" * 20_000}, "scene_detection"),
        ("x.json", {"scenes": []}, "scene_detection"),
        ("x.json", {"faces": [], "metadata": {"pipeline": 1, "model_info": 1}}, "openface3"),
        ("x.json", {"faces": ["x" * 13_000], "metadata": {"pipeline": 1, "model_info": 1}}, None),
        ("openface3_analysis.json", {"faces": ["x" * 13_000], "metadata": {}}, "openface3"),
        ("my_scenes.json", {"a": 1}, "scene_detection"),
        ("pose.json", {"a": 1}, "person_tracking"),
        ("x.json", {"a": 1}, None),
        ("x.json", "no json", None),
        ("x.json", "", None),
        ("x.json", "[" * 100_000, None),
        ("x.json", '{"start_time": "\udcff"}', "scene_detection"),
    ],
)  # fmt: skip
def test_a_file_is_taken_for_what_its_name_and_beginning_say(
    written: Any, name: str, content: object, track: str | None
) -> None:
    """In the Viewer's order of rules, with its lengths: that is where results get lost."""
    assert detected(written(name, content)) == track


@pytest.mark.parametrize(
    ("name", "content", "trouble"),
    [
        ("scene_detection.json", {"info": COCO, "scenes": [SCENE], "images": [], "annotations": []}, ""),
        ("scene_detection.json", {"info": COCO, "images": [], "annotations": [SCENE]}, "no list of results or scenes"),
        ("scene_detection.json", {"scenes": [SCENE]}, ""),
        ("scene_detection.json", {"info": COCO, "annotations": []}, "taken for person_tracking"),
        ("scene_detection.json", {"info": COCO, "scenes": [SCENE | {"score": None}]}, "scene 1 of 1"),
        ("scene_detection.json", {"info": COCO, "scenes": [SCENE, SCENE | {"duration": 0}]}, "scene 2 of 2"),
        ("scene_detection.json", {"info": COCO, "scenes": [SCENE | {"iscrowd": False}]}, "iscrowd"),
        ("scene_detection.json", {"info": COCO, "scenes": [SCENE | {"image_id": 1}]}, "image_id"),
        ("scene_detection.json", {"info": COCO, "scenes": [SCENE | {"extra": {"a": [None]}}]}, ""),
        ("scene_detection.json", '{"scenes": [{"start_time": 0', "cannot be read"),
        ("person_tracking.json", {"annotations": [PERSON] * 3}, ""),
        ("person_tracking.json", {"annotations": [PERSON | {"track_id": None}]}, ""),
        ("person_tracking.json", {"annotations": [PERSON, PERSON | {"image_id": 7}]}, "annotation 2 of 2"),
        ("person_tracking.json", {"annotations": [PERSON | {"keypoints": [0] * 50}]}, "keypoints"),
        ("person_tracking.json", {"annotations": [PERSON | {"score": 1.01}]}, "score"),
        ("person_tracking.json", {"annotations": [{k: v for k, v in PERSON.items() if k != "person_id"}]}, "person_id"),
        ("face_analysis.json", {"annotations": [FACE]}, ""),
        ("face_analysis.json", {"annotations": [FACE | {"bbox": [1, 2]}]}, "bbox"),
        ("face_analysis.json", {"faces": [FACE]}, "no list of annotations or results"),
        ("speech_recognition.vtt", "WEBVTT\n\n1\n00:00:01.000 --> 00:00:02.500\nHello\n", ""),
        ("speech_recognition.vtt", "\ufeffWEBVTT\r\n\r\n00:00:01.000 --> 00:00:02.500\r\nHello\r\n", ""),
        ("speech_recognition.vtt", "WEBVTT a title\n", "first line"),
        ("speech_recognition.vtt", "WEBVTT\n\n00:01.000 --> 00:02.500\nHello\n", "1 of 1 cues"),
        ("speaker_diarization.rttm", "SPEAKER f 1 0.5 1.2 <NA> <NA> A <NA> <NA>\n", ""),
        ("voice_activity.rttm", "SPEAKER f 1 0.5 1.2 <NA> <NA> SPEECH 0.9 <NA>\n", ""),
        ("speaker_diarization.rttm", "", "no line with a turn"),
        ("speaker_diarization.rttm", "SPEAKER a b 1 0.5 1.2 <NA> <NA> A <NA>\n", "no line with a turn"),
        ("speaker_diarization.rttm", "SPEAKER f 1 0 1 <NA> <NA> A <NA>\nSPEAKER f 1 2 0 <NA> <NA> A <NA>\n", "1 of 2"),
        ("notes.json", {"a": 1}, ""),
        ("table.csv", "a,b\n", ""),
    ],
)
def test_what_would_be_lost_is_said(written: Any, name: str, content: object, trouble: str) -> None:
    """Which file, which record, why; and nothing of what is shown."""
    said = judge(written(name, content)).trouble

    assert trouble in said
    assert bool(said) == bool(trouble)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*PERSON, *SCENE, "scenes", "info"]), inner),
        max_leaves=30,
    ),
    st.sampled_from(["scene_detection.json", "person_tracking.json", "face_analysis.json", "x.json"]),
)
def test_no_json_breaks_the_rules(tmp_path_factory: pytest.TempPathFactory, content: object, name: str) -> None:
    """They run over what strangers' pipelines write: an answer, never an exception."""
    file = tmp_path_factory.getbasetemp() / name
    file.write_text(json.dumps(content))

    verdict = judge(file)

    assert verdict.trouble == "" or len(verdict.trouble) > 10


def test_voice_is_shown_unless_somebody_tells_the_speakers_apart() -> None:
    """The last RTTM wins in the Viewer: a diarization must not be hidden by a plainer file, nor voice by nothing."""
    assert shown_together(["voice_activity.csv", "voice_activity.rttm"]) == (
        "voice_activity.csv",
        "voice_activity.rttm",
    )
    assert shown_together(["speaker_diarization.rttm", "voice_activity.csv", "voice_activity.rttm"]) == (
        "speaker_diarization.rttm",
        "voice_activity.csv",
    )


def test_a_file_that_another_hides_is_named() -> None:
    """The first of its kind is shown, but the last WebVTT and RTTM."""
    tracks = [
        ("a.vtt", "speech_recognition"),
        ("faces.json", "face_analysis"),
        ("more_faces.json", "face_analysis"),
        ("speech_recognition.csv", "speech_recognition"),
    ]

    said = list(displaced(tracks))

    assert [sentence.split(" is hidden by ")[0] for sentence in said] == ["more_faces.json", "a.vtt"]
    assert list(displaced(tracks[:2])) == []


@pytest.mark.slow
def test_a_file_of_hundreds_of_megabytes_takes_little_memory(tmp_path: Path) -> None:
    """Three people for an hour. The stage's memory is for its own work."""
    file, row = tmp_path / "person_tracking.json", json.dumps(PERSON)
    with file.open("w") as out:
        out.write('{"annotations": [' + f"{row},\n" * 400_000 + row + "]}")
    code = f"""
from pathlib import Path
from videoannotator.formats.viewer import judge
own = lambda: int(next(l for l in open("/proc/self/status") if l.startswith("RssAnon")).split()[1])
before = own()
assert judge(Path({str(file)!r})).trouble == ""
print(own() - before)
"""

    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert file.stat().st_size > 150_000_000
    assert int(told.stdout) < 64 * 1024  # KiB
