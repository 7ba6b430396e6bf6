"""What the words of an `annotate` call mean."""

from pathlib import Path

import pytest

from videoannotator.cli.inputs import find_inputs, parse_settings
from videoannotator.errors import Refused

TYPES = {"min_score": "number", "detector": "enum", "landmarks": "boolean", "points": "integer", "parts": "multiselect"}


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def test_a_directory_means_every_video_below_it(tmp_path):
    """Also in folders of folders, in a stable order, and nothing that is no video."""
    touch(tmp_path / "b.MP4", tmp_path / "a" / "c.mov", tmp_path / "notes.txt")

    found = find_inputs([tmp_path], tmp_path / "out")

    assert ["a/c.mov", "b.MP4"] == [str(one.video.relative_to(tmp_path)) for one in found]


def test_a_file_is_taken_whatever_its_name(tmp_path):
    """Cameras write all kinds of suffixes; whether it is a video shows when it is opened."""
    touch(tmp_path / "clip.dat")

    (one,) = find_inputs([tmp_path / "clip.dat"], tmp_path / "out")

    assert tmp_path / "out" / "clip" == one.output


def test_videos_of_the_same_name_do_not_share_a_folder(tmp_path):
    """Two cameras call their first clip the same; also where the file system ignores case."""
    touch(tmp_path / "a" / "clip.mp4", tmp_path / "b" / "Clip.mp4")

    found = find_inputs([tmp_path], tmp_path / "out")

    assert ["clip", "Clip-2"] == [one.output.name for one in found]


def test_a_video_named_twice_is_annotated_once(tmp_path):
    """`annotate . clip.mp4` is one clip."""
    touch(tmp_path / "clip.mp4")

    assert 1 == len(find_inputs([tmp_path, tmp_path / "clip.mp4"], tmp_path / "out"))


@pytest.mark.parametrize(("path", "code"), [("nowhere.mp4", "FILE_NOT_FOUND"), ("empty", "NO_VIDEO_FOUND")])
def test_nothing_to_annotate_is_refused(path, code, tmp_path):
    """With what was looked for, not with an empty result."""
    (tmp_path / "empty").mkdir()

    with pytest.raises(Refused) as refusal:
        find_inputs([tmp_path / path], tmp_path / "out")

    assert code == refusal.value.code
    assert path in str(refusal.value)


def test_a_folder_that_is_no_earlier_result_is_never_replaced(tmp_path):
    """Somebody's own folder may have the name of a clip."""
    touch(tmp_path / "clip.mp4", tmp_path / "out" / "clip" / "thesis.docx")

    with pytest.raises(Refused, match="is in the way"):
        find_inputs([tmp_path / "clip.mp4"], tmp_path / "out")


def test_an_earlier_result_may_be_replaced(tmp_path):
    """Running the same command again is the most usual thing."""
    touch(tmp_path / "clip.mp4", tmp_path / "out" / "clip" / "manifest.json")

    assert find_inputs([tmp_path / "clip.mp4"], tmp_path / "out")


def test_assignments_take_the_declared_type():
    """The shell only knows text; the catalogue is strict."""
    given = ["face.min_score=0.5", "face.points=3", "face.landmarks=yes", "face.parts=a, b", "scenes.detector=hash"]

    config = parse_settings(given, lambda _, parameter: TYPES.get(parameter))

    assert {"min_score": 0.5, "points": 3, "landmarks": True, "parts": ["a", "b"]} == config["face"]
    assert {"detector": "hash"} == config["scenes"]


def test_a_value_that_does_not_fit_stays_text_for_the_catalogue_to_refuse():
    """So that the refusal is the same sentence that the API gives."""
    config = parse_settings(["face.points=many", "face.landmarks=perhaps"], lambda _, parameter: TYPES.get(parameter))

    assert {"points": "many", "landmarks": "perhaps"} == config["face"]


@pytest.mark.parametrize("assignment", ["face", "face=1", "face.=1", ".x=1", "face.min_score"])
def test_an_assignment_of_another_form_is_refused(assignment):
    """With the form it should have."""
    with pytest.raises(Refused, match="sets nothing"):
        parse_settings([assignment], lambda *_: None)
