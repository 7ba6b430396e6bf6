"""
The Video Annotation Viewer's own rules: what it takes a file of the ZIP for, and whether it then shows it.

Source: Viewer 0.6.3, as `VIEWER.md` section 8 writes its code down. It says nothing of a file that it cannot read: the
track is empty, and that is all. So every stage asks here first. Detection looks at the name and the beginning of the
text, in a fixed order, and the first rule that fits wins; what a name promises is no rule. Memory: some 100 bytes for
each record of a file, beside the record that is being looked at.
"""

import mmap
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

Track = Literal[
    "video",
    "audio",
    "speech_recognition",
    "speaker_diarization",
    "complete_results",
    "face_analysis",
    "openface3",
    "person_tracking",
    "scene_detection",
]

EXPECTED: dict[str, Track] = {
    "scene_detection.json": "scene_detection",
    "person_tracking.json": "person_tracking",
    "face_analysis.json": "face_analysis",
    "openface3_analysis.json": "openface3",
    "speech_recognition.vtt": "speech_recognition",
    "speaker_diarization.rttm": "speaker_diarization",
    "voice_activity.rttm": "speaker_diarization",
}
"""The names that promise a track."""

_LAST_WINS = frozenset({"speech_recognition", "speaker_diarization"})
_LONGEST_BEGINNING = 15_000
_SPEAKERS = "speaker_diarization.rttm"


class Verdict(msgspec.Struct, frozen=True):
    """What becomes of one file."""

    track: Track | None
    """None: the Viewer passes over it."""

    trouble: str = ""
    """Why its content is lost, or part of it; empty where all of it is shown."""


def judge(file: Path) -> Verdict:
    """Raises OSError where the file cannot be read."""
    track = detected(file)
    promised = EXPECTED.get(file.name)
    if promised is not None and track != promised:
        return Verdict(track, f"it is taken for {track}" if track else "it is not recognised")
    look = _LOOKS.get(track or "")
    return Verdict(track, look(file) if look else "")


def detected(file: Path) -> Track | None:
    """By name, then by the first thousands of characters. Raises OSError."""
    name = file.name.lower()
    for track, endings, part in _BY_NAME:
        if name.endswith(endings) or (part and part in name):
            return track
    return _json_track(file, name) if name.endswith(".json") else None


def shown_together(names: Iterable[str]) -> tuple[str, ...]:
    """
    The files of one job that its ZIP may hold. Of several RTTM files the Viewer shows the last: voice activity is shown
    where nobody tells the speakers apart, and gives way where somebody does.
    """
    given = tuple(names)
    if _SPEAKERS not in given:
        return given
    return tuple(name for name in given if name == _SPEAKERS or not name.lower().endswith(".rttm"))


def displaced(tracks: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Sentences on files that others hide; `tracks` are names and tracks in the order of the ZIP."""
    shown: dict[str, str] = {}
    for name, track in tracks:
        if track in shown and track in _LAST_WINS:
            yield f"{shown[track]} is hidden by {name}, because the Viewer shows one file as {track}"
        elif track in shown:
            yield f"{name} is hidden by {shown[track]}, because the Viewer shows one file as {track}"
            continue
        if track not in ("video", "audio"):
            shown[track] = name


# -- what it takes a file for

_BY_NAME: tuple[tuple[Track, tuple[str, ...], str], ...] = (
    ("video", (".mp4", ".mov", ".avi", ".mkv", ".webm"), ""),
    ("audio", (".wav", ".mp3", ".aac", ".ogg"), ""),
    ("speech_recognition", (".vtt",), "speech_recognition"),
    ("speaker_diarization", (".rttm",), "speaker_diarization"),
)
_NAMED: tuple[tuple[Track, tuple[str, ...]], ...] = (
    ("complete_results", ("complete_results",)),
    ("face_analysis", ("face_annotations", "laion_face", "face_analysis")),
    ("person_tracking", ("person", "tracking", "pose", "keypoints")),
    ("scene_detection", ("scene",)),
)
_SCENE_WORDS = ('"scene_type"', '"start_time"', '"end_time"')


def _json_track(file: Path, name: str) -> Track | None:
    if _is_complete(file):
        return "complete_results"
    with file.open("rb") as content:
        text = content.read(4 * _LONGEST_BEGINNING).decode("utf-8", "replace")
    rules: tuple[tuple[Track, Callable[[str, str], bool], int], ...] = (
        ("face_analysis", _is_face, 8_000),
        ("openface3", _is_openface, 12_000),
        ("openface3", _is_openface_coco, 15_000),
        ("person_tracking", _is_person, 10_000),
        ("scene_detection", _is_scene, 5_000),
    )
    for track, rule, length in rules:
        if rule(name, text[:length]):
            return track
    return next((track for track, parts in _NAMED if any(part in name for part in parts)), None)


class _Complete(msgspec.Struct):
    video_path: Any
    pipeline_results: Any
    config: Any
    start_time: Any
    total_duration: Any


def _is_complete(file: Path) -> bool:
    """The one rule about the whole file; the words are looked for first, because parsing takes memory."""
    content = _mapped(file)
    if any(content.find(b'"%s"' % word.encode()) < 0 for word in _Complete.__struct_fields__):
        return False
    try:
        whole = msgspec.json.decode(content, type=_Complete)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return bool(whole.video_path and whole.pipeline_results and whole.config and whole.start_time)


def _is_face(name: str, text: str) -> bool:
    if any(word in text for word in ('"face_id"', '"attributes"', '"emotions"')):
        return True
    return ("face" in name and '"bbox"' in text and '"score"' in text) or _parsed(text) == []


def _is_openface(_name: str, text: str) -> bool:
    words = ('"metadata"', '"faces"', '"pipeline"', '"model_info"')
    return all(word in text for word in words) and _parsed(text) is not None


def _is_openface_coco(name: str, text: str) -> bool:
    if all(word in text for word in ('"info"', '"images"', '"annotations"', '"openface3"', "VideoAnnotator")):
        return _parsed(text) is not None
    return "openface3_analysis" in name or "openface3_detailed" in name


def _is_person(_name: str, text: str) -> bool:
    if '"keypoints"' in text and '"bbox"' in text:
        return True
    content = _parsed(text)
    if not isinstance(content, dict):
        return False
    info = content.get("info")
    if isinstance(info, dict) and "COCO" in str(info.get("description", "")):
        return not any(word in text for word in _SCENE_WORDS)
    return isinstance(content.get("annotations"), list) or isinstance(content.get("results"), list)


def _is_scene(_name: str, text: str) -> bool:
    if any(word in text for word in _SCENE_WORDS):
        return True
    content = _parsed(text)
    return isinstance(content, dict) and any(isinstance(content.get(key), list) for key in ("results", "scenes"))


def _parsed(text: str) -> Any:
    """None where the text, often cut off in the middle, is no JSON."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return None


# -- whether it shows it

Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Box = tuple[float, float, float, float]


class _Scene(msgspec.Struct, frozen=True, kw_only=True):
    """One that breaks this loses the whole file. The first three may be missing in the schema; then it is not drawn."""

    start_time: NotNegative
    end_time: NotNegative
    scene_type: str
    id: float | UnsetType = UNSET
    image_id: str | UnsetType = UNSET
    video_id: str | UnsetType = UNSET
    category_id: float | UnsetType = UNSET
    bbox: Box | UnsetType = UNSET
    area: NotNegative | UnsetType = UNSET
    timestamp: NotNegative | UnsetType = UNSET
    frame_start: NotNegative | UnsetType = UNSET
    frame_end: NotNegative | UnsetType = UNSET
    duration: Positive | UnsetType = UNSET
    iscrowd: Literal[0, 1] | UnsetType = UNSET
    score: Share | UnsetType = UNSET
    all_scores: dict[str, float] | UnsetType = UNSET


class _Person(msgspec.Struct, frozen=True, kw_only=True):
    """One that breaks this loses the whole file."""

    id: float
    image_id: str
    category_id: float
    keypoints: Annotated[list[float], Meta(min_length=51, max_length=51)]
    num_keypoints: Annotated[float, Meta(ge=0, le=17)]
    bbox: Box
    area: NotNegative
    iscrowd: Literal[0, 1]
    score: Share
    timestamp: NotNegative
    frame_number: NotNegative
    person_id: str
    person_label: str
    labeling_method: str
    label_confidence: float
    track_id: float | None = None


class _Face(msgspec.Struct, frozen=True, kw_only=True):
    """Not checked by the Viewer; without these it draws nothing, or in the wrong place."""

    bbox: Box
    timestamp: NotNegative
    face_id: float | UnsetType = UNSET


class _OpenFace(msgspec.Struct, frozen=True, kw_only=True):
    bbox: Box


class _Lists(msgspec.Struct, frozen=True):
    annotations: list[Raw] | UnsetType = UNSET
    results: list[Raw] | UnsetType = UNSET
    scenes: list[Raw] | UnsetType = UNSET
    faces: list[Raw] | UnsetType = UNSET


def _records(*lists: str, kind: type[msgspec.Struct], what: str) -> Callable[[Path], str]:
    """Looks at each record of the first of these lists that the file has; a bare array is a list too."""
    decoder = msgspec.json.Decoder(kind)

    def look(file: Path) -> str:
        try:
            return _first_bad(_list_of(_mapped(file), lists), decoder, what)
        except (msgspec.MsgspecError, RecursionError) as exc:
            return f"it cannot be read: {exc}"

    return look


def _list_of(content: mmap.mmap | bytes, lists: Sequence[str]) -> list[Raw]:
    if bytes(content[:1024]).lstrip().startswith(b"["):
        return msgspec.json.decode(content, type=list[Raw])
    document = msgspec.json.decode(content, type=_Lists)
    for name in lists:
        found: list[Raw] | UnsetType = getattr(document, name)
        if found is not UNSET:
            return found
    raise msgspec.ValidationError(f"it has no list of {' or '.join(lists)}")


def _first_bad(records: list[Raw], decoder: "msgspec.json.Decoder[Any]", what: str) -> str:
    for number, record in enumerate(records, start=1):
        try:
            decoder.decode(record)
        except msgspec.MsgspecError as exc:
            return f"{what} {number} of {len(records)} is not as the Viewer wants it ({exc})"
    return ""


_CUE = re.compile(r"\s*\d{2,}:\d{2}:\d{2}\.\d{3}\s+-->\s+\d{2,}:\d{2}:\d{2}\.\d{3}(\s.*)?")


def _captions(file: Path) -> str:
    with file.open(encoding="utf-8-sig", errors="replace", newline=None) as lines:
        if lines.readline(1000).rstrip("\n") != "WEBVTT":
            return "its first line is not WEBVTT"
        times = [bool(_CUE.fullmatch(line.rstrip("\n"))) for line in lines if "-->" in line]
    skipped = times.count(False)
    return f"{skipped} of {len(times)} cues are left out: their times are not HH:MM:SS.mmm" if skipped else ""


def _turns(file: Path) -> str:
    with file.open(encoding="utf-8", errors="replace") as lines:
        good = [_is_turn(line.split()) for line in lines if line.startswith("SPEAKER")]
    if not any(good):
        return "it has no line with a turn"
    skipped = good.count(False)
    return f"{skipped} of {len(good)} lines are left out: they are no turns" if skipped else ""


def _is_turn(fields: Sequence[str]) -> bool:
    if len(fields) < 9 or fields[5] != "<NA>":  # with a blank in the file's name all that follows is shifted
        return False
    try:
        return float(fields[3]) >= 0 and float(fields[4]) > 0
    except ValueError:
        return False


def _mapped(file: Path) -> "mmap.mmap | bytes":
    """The bytes of a file without a copy of them in memory, for as long as something points into them."""
    with file.open("rb") as opened:
        is_empty = not opened.seek(0, 2)
        return b"" if is_empty else mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)


_LOOKS: dict[str, Callable[[Path], str]] = {
    "speech_recognition": _captions,
    "speaker_diarization": _turns,
    "scene_detection": _records("results", "scenes", kind=_Scene, what="scene"),
    "person_tracking": _records("annotations", "results", kind=_Person, what="annotation"),
    "face_analysis": _records("annotations", "results", kind=_Face, what="annotation"),
    "openface3": _records("faces", "annotations", kind=_OpenFace, what="face"),
}
