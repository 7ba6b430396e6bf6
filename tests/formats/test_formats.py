"""The formats: read back what was written, by ourselves, by readers that others wrote, and by the Viewer's rules."""

import contextlib
import csv
import io
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyannote.core import Annotation, Segment, Timeline
from pycocotools.coco import COCO

from tests.clips import ffmpeg
from tests.viewer import drawn_faces, drawn_scenes
from videoannotator.annotations import BoundingBox, Face, LeftOut, Sample, Scene, Transition, Turn, Utterance, Word
from videoannotator.formats.captions import read_srt, read_webvtt, write_srt, write_text, write_webvtt
from videoannotator.formats.coco import read_faces, write_faces
from videoannotator.formats.rttm import read_rttm, word, write_rttm
from videoannotator.formats.scenes import read_scenes, write_scenes
from videoannotator.formats.table import (
    read_table,
    write_face_table,
    write_scene_table,
    write_table,
    write_turn_table,
)
from videoannotator.formats.uem import read_uem, write_uem
from videoannotator.formats.viewer import detected
from videoannotator.formats.words import Transcript, read_words, write_word_table, write_words
from videoannotator.jobs import Video

VIDEO = Video(
    filename="my face.mp4",
    size_bytes=1,
    container="mp4",
    duration_seconds=4.0,
    width=640,
    height=480,
    frame_rate=25.0,
    video_codec="h264",
)
SAMPLES = tuple(Sample(n, n / 25, n * 512) for n in range(0, 100, 2))
POINTS = ((10.0, 20.0), (30.5, 40.25))
FACES = (
    Face(SAMPLES[0], BoundingBox(1.0, 2.0, 30.0, 40.0), 0.75, 1, POINTS),
    Face(SAMPLES[0], BoundingBox(100.5, 2.0, 30.0, 40.0), 0.5, 2, ()),
    Face(SAMPLES[3], BoundingBox(3.0, 2.0, 30.0, 40.0), 0.9, 1, POINTS),
)
SCENES = (
    Scene(0.5, 1.0, 0, 12, None),
    Scene(1.0, 4.0, 12, 87, 0.8, Transition("cut", 1.0, 1.0)),
    Scene(
        4.0, 5.0, 87, 112, 0.6, Transition("dissolve", 3.8, 4.24), (("a room", 0.9), ("a car", 0.1)), "scene_0003.jpg"
    ),
)
TURNS = (Turn(0.7, 0.8, score=0.91), Turn(2.4, 1.1, score=None))


def write_some_faces(file: Path, faces: tuple[Face, ...] = FACES) -> Path:
    write_faces(file, VIDEO, faces, SAMPLES, engine="mediapipe", landmark_names=("left_eye", "nose_tip"))
    return file


TRAITS = (
    "identity", "pitch", "yaw", "roll", "right_eye_openness", "left_eye_openness", "mouth_openness", "age", "gender",
    "expression", "expression_score", "name", "name_similarity", "naming_method",
)  # fmt: skip


def read_by_pycocotools(file: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(file))


def rows_of(file: Path) -> list[list[str]]:
    """The cells as any other program sees them."""
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.reader(lines))


def test_faces_read_back_as_they_were(tmp_path: Path) -> None:
    """Whoever corrects annotations and hands them back must not lose any."""
    file = write_some_faces(tmp_path / "face_analysis.json")

    faces, samples = read_faces(file)

    assert faces == FACES
    assert samples == SAMPLES


def test_pycocotools_finds_the_faces_of_a_frame(tmp_path: Path) -> None:
    """COCO is what its own reader loads."""
    coco = read_by_pycocotools(write_some_faces(tmp_path / "face_analysis.json"))

    first = coco.loadAnns(coco.getAnnIds(imgIds=["0"], catIds=[1]))

    assert [a["bbox"] for a in first] == [[1.0, 2.0, 30.0, 40.0], [100.5, 2.0, 30.0, 40.0]]
    assert [a["area"] for a in first] == [1200.0, 1200.0]
    assert [a["num_keypoints"] for a in first] == [2, 0]
    assert coco.getAnnIds(imgIds=["2"]) == []
    assert len(coco.imgs) == len(SAMPLES)


def test_a_landmark_outside_of_the_frame_is_not_visible(tmp_path: Path) -> None:
    """COCO's v says whether a point can be seen; the Viewer draws those with 2 only."""
    face = Face(SAMPLES[0], BoundingBox(600, 2, 40, 40), 0.9, 1, ((639.0, 10.0), (645.0, 10.0)))

    coco = read_by_pycocotools(write_some_faces(tmp_path / "face_analysis.json", (face,)))

    assert coco.anns[1]["keypoints"] == [639.0, 10.0, 2, 645.0, 10.0, 1]


@pytest.mark.parametrize("faces", [FACES, (), FACES[:1] * 400], ids=["some", "none", "a large file"])
def test_the_viewer_takes_the_faces_for_faces(tmp_path: Path, faces: tuple[Face, ...]) -> None:
    """It guesses types from the first kilobytes; a COCO file without faces would pass for persons."""
    file = write_some_faces(tmp_path / "face_analysis.json", faces)

    drawn = drawn_faces(file)

    assert len(drawn) == len(faces)


def test_annotations_come_before_images(tmp_path: Path) -> None:
    """The Viewer looks at the beginning only, and an hour of images would hide what it looks for."""
    text = write_some_faces(tmp_path / "face_analysis.json").read_text()

    assert text.index('"annotations"') < text.index('"images"')


def test_scenes_read_back_as_they_were(tmp_path: Path) -> None:
    """See test_faces_read_back_as_they_were."""
    write_scenes(tmp_path / "scene_detection.json", VIDEO, SCENES)

    assert read_scenes(tmp_path / "scene_detection.json") == SCENES


@pytest.mark.parametrize("times", [1, 200], ids=["small", "above 10 kB"])
def test_the_viewer_draws_the_scenes(tmp_path: Path, times: int) -> None:
    """COCO scenes without the list `scenes` are recognised and thrown away without a word."""
    write_scenes(tmp_path / "scene_detection.json", VIDEO, SCENES * times)

    drawn = drawn_scenes(tmp_path / "scene_detection.json")

    assert [(s["start_time"], s["end_time"]) for s in drawn[:2]] == [(0.5, 1.0), (1.0, 4.0)]


def test_pycocotools_loads_the_scenes(tmp_path: Path) -> None:
    """The same file is COCO for everybody else, and tells time and frame of each annotation as the others do."""
    write_scenes(tmp_path / "scene_detection.json", VIDEO, SCENES)

    coco = read_by_pycocotools(tmp_path / "scene_detection.json")

    assert [a["start_time"] for a in coco.loadAnns(coco.getAnnIds(imgIds=["12"]))] == [1.0]
    for annotation in coco.anns.values():
        image = coco.imgs[annotation["image_id"]]
        assert (annotation["frame_number"], annotation["timestamp"]) == (image["frame_number"], image["timestamp"])


def test_rttm_has_ten_fields_and_reads_back(tmp_path: Path) -> None:
    """Scoring tools split at blanks and count."""
    file = tmp_path / "voice_activity.rttm"

    write_rttm(file, TURNS, uri="my clip")

    assert [len(line.split()) for line in file.read_text().splitlines()] == [10, 10]
    assert read_rttm(file) == TURNS


def test_pyannote_sees_the_turns(tmp_path: Path) -> None:
    """RTTM is what the field's own library makes of it."""
    file = tmp_path / "voice_activity.rttm"
    write_rttm(file, TURNS, uri="my clip")

    annotation = Annotation()
    for line in file.read_text().splitlines():
        kind, uri, _, onset, duration, _, _, label, _, _ = line.split()
        assert (kind, uri) == ("SPEAKER", "my_clip")
        annotation[Segment(float(onset), float(onset) + float(duration))] = label

    assert annotation.get_timeline() == Timeline([Segment(0.7, 1.5), Segment(2.4, 3.5)])
    assert annotation.labels() == ["SPEECH"]


@given(st.floats(0, 1e5), st.floats(1e-6, 1e4), st.text(max_size=20))
def test_any_turn_makes_a_line_that_reads_back(onset: float, duration: float, label: str) -> None:
    """The Viewer skips a line without a duration; a blank in a name would shift the fields."""
    turn = Turn(onset, duration, label)

    with TemporaryDirectory() as folder:
        write_rttm(Path(folder) / "a.rttm", [turn], uri="a")
        (back,) = read_rttm(Path(folder) / "a.rttm")

    assert back.onset == pytest.approx(onset, abs=0.0006)
    assert back.duration == pytest.approx(duration, abs=0.0016)
    assert back.duration > 0
    assert back.label == word(label)


def test_a_broken_rttm_names_its_line(tmp_path: Path) -> None:
    """Somebody has to find it."""
    (tmp_path / "a.rttm").write_text("SPEAKER a 1 0.0 1.0 <NA> <NA> A <NA> <NA>\nSPEAKER a 1 0.0\n")

    with pytest.raises(ValueError, match="line 2"):
        read_rttm(tmp_path / "a.rttm")


def test_uem_reads_back(tmp_path: Path) -> None:
    """Without it nobody knows whether silence was heard or not listened to."""
    write_uem(tmp_path / "a.uem", [(0.0, 10.5), (12.0, 13.25)], uri="my clip")

    assert (tmp_path / "a.uem").read_text().splitlines()[0] == "my_clip 1 0.000 10.500"
    assert read_uem(tmp_path / "a.uem") == ((0.0, 10.5), (12.0, 13.25))


def test_tables_begin_with_the_same_columns(tmp_path: Path) -> None:
    """So that tables of several pipelines can be stacked."""
    write_scene_table(tmp_path / "scenes.csv", SCENES)
    write_face_table(tmp_path / "faces.csv", FACES)
    write_turn_table(tmp_path / "turns.csv", TURNS)

    heads = [rows_of(tmp_path / name)[0][:5] for name in ("scenes.csv", "faces.csv", "turns.csv")]

    assert heads == [["onset", "duration", "timestamp", "frame_number", "track_id"]] * 3
    assert read_table(tmp_path / "faces.csv")[2] == {
        "onset": "0.24", "duration": "0", "timestamp": "0.24", "frame_number": "6", "track_id": "1",
        "x": "3.0", "y": "2.0", "width": "30.0", "height": "40.0", "score": "0.9",
        **dict.fromkeys(TRAITS, ""),
    }  # fmt: skip


CELLS = st.builds(
    str.__add__,
    st.sampled_from(["", "=", "+", "-", "@", "\t", "'"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=10),
)


@given(st.lists(CELLS, min_size=1, max_size=5))
def test_no_cell_runs_as_a_formula(cells: list[str]) -> None:
    """A label typed by a stranger must not become code in a colleague's spreadsheet; and must come back as it was."""
    names = [f"c{n}" for n in range(len(cells))]

    with TemporaryDirectory() as folder:
        write_table(Path(folder) / "a.csv", names, [cells])
        raw = rows_of(Path(folder) / "a.csv")[1:]
        back = read_table(Path(folder) / "a.csv")

    assert not any(cell.startswith(("=", "+", "-", "@", "\t")) for row in raw for cell in row)
    assert [list(row.values()) for row in back] == [cells]


def test_the_viewer_ignores_what_is_not_for_it(tmp_path: Path) -> None:
    """A side file that it takes for annotations would displace them."""
    assert detected(tmp_path / "voice_activity.uem") is None
    assert detected(tmp_path / "face_analysis.csv") is None


# What was said

SAID = (
    Utterance(0.7, 1.3, "Where is <the> baby & co?", (Word("Where", 0.7, 0.2, 0.91), Word("is", 0.9, 0.1, 0.25, True))),
    Utterance(3725.0, 2.0, "Da --> ist es!", (), -0.4, "SPEAKER_01"),
)
TRANSCRIPT = Transcript(SAID, (LeftOut(9.0, 1.0, "thanks for watching", "no voice there"),), "de", 0.8125)


def times(utterances: tuple[Utterance, ...]) -> list[tuple[float, float]]:
    return [(u.onset, pytest.approx(u.end)) for u in utterances]


@pytest.mark.parametrize(("write", "read"), [(write_webvtt, read_webvtt), (write_srt, read_srt)], ids=["vtt", "srt"])
def test_captions_read_back_as_they_were(write, read, tmp_path: Path) -> None:
    """Markup and arrows in a text are text."""
    write(tmp_path / "captions", SAID)

    found = read(tmp_path / "captions")

    assert times(found) == times(SAID)
    assert [u.text for u in found] == ["Where is <the> baby & co?", "Da -> ist es!"]
    assert [u.speaker for u in found] == [None, None]


@pytest.mark.parametrize(("name", "write"), [("a.vtt", write_webvtt), ("a.srt", write_srt)], ids=["vtt", "srt"])
def test_ffmpeg_reads_the_captions(name: str, write, tmp_path: Path) -> None:
    """A reader that others wrote."""
    write(tmp_path / name, SAID)

    ffmpeg("-i", tmp_path / name, "-f", "srt", tmp_path / "out.srt")

    assert times(read_srt(tmp_path / "out.srt")) == times(SAID)


def test_webvtt_is_what_the_viewer_draws(tmp_path: Path) -> None:
    """First line exactly WEBVTT, hours in every time, no tags: it prints them."""
    write_webvtt(tmp_path / "a.vtt", SAID)

    lines = (tmp_path / "a.vtt").read_text().split("\n")
    assert lines[:4] == ["WEBVTT", "", "1", "00:00:00.700 --> 00:00:02.000"]
    assert "01:02:05.000 --> 01:02:07.000" in lines
    assert "Where is &lt;the&gt; baby &amp; co?" in lines


def test_speakers_stand_in_their_own_webvtt(tmp_path: Path) -> None:
    """As voice tags, where somebody is known."""
    write_webvtt(tmp_path / "a.vtt", SAID, speakers=True)

    assert "<v SPEAKER_01>Da -&gt; ist es!" in (tmp_path / "a.vtt").read_text()
    assert [u.speaker for u in read_webvtt(tmp_path / "a.vtt")] == [None, "SPEAKER_01"]


def test_nothing_said_gives_valid_empty_files(tmp_path: Path) -> None:
    """Hours of play without a word."""
    write_webvtt(tmp_path / "a.vtt", ())
    write_srt(tmp_path / "a.srt", ())
    write_text(tmp_path / "a.txt", ())
    write_words(tmp_path / "a.json", Transcript())

    assert (tmp_path / "a.vtt").read_text() == "WEBVTT\n"
    assert (tmp_path / "a.srt").read_bytes() == (tmp_path / "a.txt").read_bytes() == b""
    assert (read_webvtt(tmp_path / "a.vtt"), read_srt(tmp_path / "a.srt")) == ((), ())
    assert read_words(tmp_path / "a.json") == Transcript()


@given(text=st.text(), onset=st.floats(0, 1e5), seconds=st.floats(0, 100))
def test_no_text_breaks_a_caption(text: str, onset: float, seconds: float) -> None:
    """Whatever a model says: one caption, or none where there is nothing to read, and the next one is still there."""
    after = Utterance(onset + seconds, 1.0, "after")
    with TemporaryDirectory() as folder:
        for write, read in ((write_webvtt, read_webvtt), (write_srt, read_srt)):
            file = Path(folder) / "captions"
            write(file, (Utterance(onset, seconds, text), after))

            found = read(file)

            assert found[-1].text == "after"
            assert len(found) <= 2
            assert all(u.duration > 0 for u in found)


def test_words_read_back_as_they_were(tmp_path: Path) -> None:
    """With what was not believed."""
    write_words(tmp_path / "speech_words.json", TRANSCRIPT)

    assert read_words(tmp_path / "speech_words.json") == TRANSCRIPT


def test_the_viewer_takes_words_for_nothing_else(tmp_path: Path) -> None:
    """It guesses by keys, and what it guesses wrong displaces what is right."""
    write_words(tmp_path / "speech_words.json", TRANSCRIPT)

    assert detected(tmp_path / "speech_words.json") is None


def test_the_table_has_a_row_for_each_word(tmp_path: Path) -> None:
    """And one for an utterance whose words have no times."""
    write_word_table(tmp_path / "speech_words.csv", SAID)

    rows = read_table(tmp_path / "speech_words.csv")
    assert [(r["utterance"], r["word"], r["unsure"], r["speaker"]) for r in rows] == [
        ("1", "Where", "0", ""),
        ("1", "is", "1", ""),
        ("2", "Da --> ist es!", "0", "SPEAKER_01"),
    ]
