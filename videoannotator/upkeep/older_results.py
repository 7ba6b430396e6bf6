"""
What a folder of older results holds: which file is of which video and pipeline, and whether it is what it says.

    FOLDER/session1/scene_detection.json        a folder for each video
    FOLDER/session1_scene_detection.json        or the video's name before the pipeline's, with `_`, `.` or `-` between

JSON in the shapes that earlier programs wrote and the Video Annotation Viewer reads: a list, or an object with
`annotations`, `results` or `scenes`; WebVTT; RTTM. A file whose name says no pipeline is told by its content. Links are
not followed, nothing is executed, and a file is read only up to MOST_BYTES.
"""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from videoannotator.errors import Refused
from videoannotator.formats.rttm import read_rttm
from videoannotator.jobs import Interval, Output

MOST_BYTES = 512 * 1024**2
MOST_FILES = 100_000

S = TypeVar("S", bound=msgspec.Struct)
Number = Annotated[float, msgspec.Meta(ge=0, le=1e9)]

_KINDS = {
    "scene_detection": (".json",),
    "person_tracking": (".json",),
    "face_analysis": (".json",),
    "openface3_analysis": (".json",),
    "voice_activity": (".json", ".rttm"),
    "speech_recognition": (".json", ".vtt"),
    "speaker_diarization": (".json", ".rttm"),
}
_OTHER_NAMES = {
    "scenes": "scene_detection",
    "scene": "scene_detection",
    "laion_face_annotations": "face_analysis",
    "face_annotations": "face_analysis",
    "laion_face": "face_analysis",
    "faces": "face_analysis",
    "pose": "person_tracking",
    "persons": "person_tracking",
    "tracking": "person_tracking",
    "openface3": "openface3_analysis",
    "transcript": "speech_recognition",
    "diarization": "speaker_diarization",
}
_MEDIA_TYPES = {".json": "application/json", ".vtt": "text/vtt", ".rttm": "text/plain"}
_CUE = re.compile(r"(\d+):(\d\d):(\d\d)\.(\d{3}) --> (\d+):(\d\d):(\d\d)\.(\d{3})")


class OlderFile(msgspec.Struct, frozen=True):
    """One file, and what its place and name say of it."""

    path: Path
    video: str
    pipeline: str


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What is in it."""

    annotations: int
    intervals: tuple[Interval, ...]
    until_seconds: float
    """The latest moment that it speaks of."""

    output: Output


class _Scene(msgspec.Struct):
    start_time: Number
    end_time: Number
    scene_type: str = ""


class _Box(msgspec.Struct):
    bbox: tuple[float, float, float, float]
    timestamp: Number | None = None
    track_id: float | None = None
    face_id: float | None = None
    person_label: str = ""


class _Spoken(msgspec.Struct):
    start: Number
    end: Number
    text: str = ""
    speaker: str = ""


def find(folder: Path) -> tuple[tuple[OlderFile, ...], tuple[tuple[Path, str], ...]]:
    """
    The files that may be results, by name, and those that are left out with the reason.

    Raises:
        Refused: FILE_NOT_FOUND, TOO_MANY_FILES.
    """
    if not folder.is_dir():
        raise Refused(f"There is no folder {folder}.", hint="Check the path.", code="FILE_NOT_FOUND")
    found: list[OlderFile] = []
    left: list[tuple[Path, str]] = []
    for number, path in enumerate(_files(folder)):
        if number >= MOST_FILES:
            message = f"{folder} holds more than {MOST_FILES} files."
            raise Refused(message, hint="Import it part by part.", code="TOO_MANY_FILES")
        why = _unfit(path)
        if why is None:
            found.append(_named(path, folder))
        elif why:
            left.append((path, why))
    return tuple(found), tuple(left)


def read(file: OlderFile) -> Reading:
    """
    Raises:
        Refused: NOT_A_RESULT, with what is wrong and where.
    """
    try:
        match file.path.suffix.lower():
            case ".json":
                return _read_json(file)
            case ".vtt":
                return _read_vtt(file)
            case _:
                return _read_rttm(file)
    except (msgspec.MsgspecError, ValueError, OSError, RecursionError) as exc:
        hint = "Only whole results are imported; mend it or take it away."
        raise Refused(f"{file.path.name} is no {file.pipeline}: {exc}.", hint=hint, code="NOT_A_RESULT") from exc


def _files(folder: Path) -> Iterable[Path]:
    for place, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place) / name for name in sorted(names) if not name.startswith("."))


def _unfit(path: Path) -> str | None:
    """None where it may be a result, "" where nobody would take it for one."""
    if path.suffix.lower() not in _MEDIA_TYPES or path.name in ("manifest.json", "batch_results.json"):
        return ""
    if path.is_symlink():
        return "a link, which is not followed"
    if not path.is_file():
        return "no file"
    size = path.stat().st_size
    if size > MOST_BYTES:
        return f"larger than {MOST_BYTES // 2**20} MiB"
    return None if size else "empty"


def _named(path: Path, folder: Path) -> OlderFile:
    stem = path.stem
    names = {**{name: name for name in _KINDS}, **_OTHER_NAMES}
    for said in sorted(names, key=len, reverse=True):
        if stem.lower() == said and path.parent != folder:
            return OlderFile(path, path.parent.name, names[said])
        if (before := stem[: -len(said) - 1]) and stem.lower().endswith((f"_{said}", f".{said}", f"-{said}")):
            return OlderFile(path, before, names[said])
    return OlderFile(path, stem if path.parent == folder else path.parent.name, "")


# -- JSON


def _read_json(file: OlderFile) -> Reading:
    document = msgspec.json.decode(file.path.read_bytes())
    pipeline = file.pipeline or _told_by_content(document)
    if ".json" not in _KINDS.get(pipeline, ()):
        raise ValueError("nothing in it says which pipeline made it")
    match pipeline:
        case "scene_detection":
            return _scenes(document)
        case "person_tracking":
            return _boxes(document, pipeline, "person_track")
        case "face_analysis":
            return _boxes(document, pipeline, "face_track")
        case "openface3_analysis":
            return _boxes(document, pipeline, "face_track")
        case _:
            return _speech(document, pipeline)


def _told_by_content(document: Any) -> str:
    """The first row decides. The order is that of the Viewer: faces before persons before scenes."""
    rows = _rows(document, "annotations", "results", "faces", "scenes")
    first = rows[0] if rows and isinstance(rows[0], dict) else {}
    if "face_id" in first or "attributes" in first or "emotions" in first:
        return "face_analysis"
    if "features" in first or "openface3" in first:
        return "openface3_analysis"
    if "keypoints" in first and "bbox" in first:
        return "person_tracking"
    if "start_time" in first and "end_time" in first:
        return "scene_detection"
    return ""


def _rows(document: Any, *names: str) -> list[Any]:
    """The list itself, or the first of these that an object has."""
    if isinstance(document, list):
        return document
    if isinstance(document, dict):
        for name in names:
            if isinstance(document.get(name), list):
                return list(document[name])
    raise ValueError(f"neither a list nor an object with {', '.join(names)}")


def _scenes(document: Any) -> Reading:
    scenes = _converted(_rows(document, "scenes", "results", "annotations"), _Scene)
    for number, scene in enumerate(scenes):
        if scene.end_time < scene.start_time:
            raise ValueError(f"scene {number} ends before it begins")
    intervals = [Interval("scene", s.start_time, s.end_time - s.start_time, s.scene_type) for s in scenes]
    until = max((s.end_time for s in scenes), default=0.0)
    return _reading("scene_detection", ".json", len(scenes), intervals, until)


def _boxes(document: Any, pipeline: str, kind: Any) -> Reading:
    boxes = _converted(_rows(document, "annotations", "results", "faces"), _Box)
    seen: dict[int, list[float]] = {}
    for box in boxes:
        track = box.track_id if box.face_id is None else box.face_id
        if track is not None and box.timestamp is not None:
            seen.setdefault(int(track), []).append(box.timestamp)
    intervals = [Interval(kind, min(at), max(at) - min(at), "", track) for track, at in sorted(seen.items())]
    until = max((box.timestamp for box in boxes if box.timestamp is not None), default=0.0)
    return _reading(pipeline, ".json", len(boxes), intervals, until)


def _speech(document: Any, pipeline: str) -> Reading:
    spoken = _converted(_rows(document, "segments", "results", "annotations"), _Spoken)
    kind: Any = {"speech_recognition": "utterance", "speaker_diarization": "speaker"}.get(pipeline, "voice")
    intervals = [Interval(kind, s.start, max(0.0, s.end - s.start), s.speaker or s.text[:200]) for s in spoken]
    return _reading(pipeline, ".json", len(spoken), intervals, max((s.end for s in spoken), default=0.0))


def _converted(rows: list[Any], kind: type[S]) -> list[S]:
    """One bad row is one too many: nobody could say later which were left out."""
    return msgspec.convert(rows, list[kind])  # type: ignore[valid-type]


# -- text


def _read_vtt(file: OlderFile) -> Reading:
    lines = file.path.read_text(encoding="utf-8-sig").splitlines()
    if not lines or not lines[0].startswith("WEBVTT"):
        raise ValueError("it does not begin with WEBVTT")
    intervals = []
    for number, line in enumerate(lines):
        if (cue := _CUE.match(line)) is not None:
            onset, end = _clock(cue.groups()[:4]), _clock(cue.groups()[4:])
            text = lines[number + 1] if number + 1 < len(lines) else ""
            intervals.append(Interval("utterance", onset, max(0.0, end - onset), text[:200]))
    until = max((i.onset + i.duration for i in intervals), default=0.0)
    return _reading("speech_recognition", ".vtt", len(intervals), intervals, until)


def _clock(parts: Sequence[str]) -> float:
    hours, minutes, seconds, thousandths = map(int, parts)
    return hours * 3600 + minutes * 60 + seconds + thousandths / 1000


def _read_rttm(file: OlderFile) -> Reading:
    turns = read_rttm(file.path)
    if not turns:
        raise ValueError("it has no SPEAKER line")
    pipeline = file.pipeline if ".rttm" in _KINDS.get(file.pipeline, ()) else "speaker_diarization"
    kind: Any = "speaker" if pipeline == "speaker_diarization" else "voice"
    intervals = [Interval(kind, turn.onset, turn.end - turn.onset, turn.label) for turn in turns]
    return _reading(pipeline, ".rttm", len(turns), intervals, max(turn.end for turn in turns))


def _reading(pipeline: str, suffix: str, number: int, intervals: Sequence[Interval], until: float) -> Reading:
    role: Any = {".json": "annotations", ".vtt": "captions", ".rttm": "audio_regions"}[suffix]
    output = Output(f"{pipeline}{suffix}", role, _MEDIA_TYPES[suffix])
    return Reading(annotations=number, intervals=tuple(intervals), until_seconds=until, output=output)
