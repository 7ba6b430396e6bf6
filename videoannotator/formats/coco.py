"""
Faces as COCO JSON with video fields.

Source: https://cocodataset.org/#format-data (object and keypoint detection), with `videos`, `frame_number`,
`timestamp` and `track_id` added, which readers of plain COCO ignore. `images` has a row for every frame that was looked
at, also where nobody was found; there are no picture files, `file_name` is what an export would call the frame.
The browser client takes the file for faces by `face_id`, wants `annotations` before `images`, and `image_id` a string.

Losses: pixels are rounded to 0.01, seconds to 0.000001, scores to 0.0001. A landmark outside of the frame is written as
"labelled, not visible" (v = 1). Faces without landmarks read back without them, and
without their traits, identities and names. Of a name's similarity what is below 0 is written as 0.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from videoannotator.annotations import BoundingBox, Face, Sample
from videoannotator.formats.document import pixels, seconds, share, write_document
from videoannotator.jobs import Video

FACE = 1
"""The only category."""


class _Image(msgspec.Struct):
    id: str
    frame_number: int
    timestamp: float
    pts: int


class _Annotation(msgspec.Struct):
    image_id: str
    bbox: tuple[float, float, float, float]
    score: float
    track_id: int | None = None
    keypoints: tuple[float, ...] = ()


class _Document(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]


def write_faces(
    file: Path,
    video: Video,
    faces: Iterable[Face],
    samples: Iterable[Sample],
    *,
    engine: str,
    landmark_names: Sequence[str] = (),
    until_seconds: float | None = None,
) -> None:
    """
    Write `faces`, found in `samples`. Both are in the order of time; a face's sample is among the samples. Where only a
    part of the video was looked at, `until_seconds` says up to where, and the file does too.
    """
    info = {
        "description": "VideoAnnotator face analysis, COCO with video fields",
        "version": "1.0",
        "fields": ["face_id", "track_id", "timestamp", "frame_number"],
        **partial_until(until_seconds),
    }
    write_document(
        file,
        {"info": info, "licenses": [], "videos": [video_row(video)], "categories": [_category(landmark_names)]},
        {
            "annotations": _annotations(video, faces, engine, len(landmark_names)),
            "images": (image_row(video, sample) for sample in samples),
        },
    )


def read_faces(file: Path) -> tuple[tuple[Face, ...], tuple[Sample, ...]]:
    """What `write_faces` wrote. Raises msgspec.DecodeError for anything else."""
    document = msgspec.json.decode(file.read_bytes(), type=_Document)
    samples = {image.id: Sample(image.frame_number, image.timestamp, image.pts) for image in document.images}
    faces = tuple(
        Face(samples[a.image_id], BoundingBox(*a.bbox), a.score, a.track_id, _landmarks(a.keypoints))
        for a in document.annotations
    )
    return faces, tuple(samples.values())


def partial_until(until_seconds: float | None) -> dict[str, Any]:
    """What a file says of itself that holds a part only."""
    return {} if until_seconds is None else {"partial": True, "until_seconds": seconds(until_seconds)}


def video_row(video: Video) -> dict[str, Any]:
    return {
        "id": 1,
        "name": video.filename,
        "width": video.width,
        "height": video.height,
        "duration": seconds(video.duration_seconds),
        "frame_rate": round(video.frame_rate, 4),
    }


def image_row(video: Video, sample: Sample) -> dict[str, Any]:
    return {
        "id": str(sample.frame_number),
        "video_id": 1,
        "file_name": f"frame_{sample.frame_number:08d}.png",
        "width": video.width,
        "height": video.height,
        "frame_number": sample.frame_number,
        "timestamp": seconds(sample.timestamp),
        "pts": sample.pts,
    }


def _category(landmark_names: Sequence[str]) -> dict[str, Any]:
    face: dict[str, Any] = {"id": FACE, "name": "face", "supercategory": "person"}
    return {**face, "keypoints": list(landmark_names), "skeleton": []} if landmark_names else face


def _annotations(video: Video, faces: Iterable[Face], engine: str, landmarks: int) -> Iterator[dict[str, Any]]:
    for number, face in enumerate(faces, start=1):
        box = [pixels(v) for v in msgspec.structs.astuple(face.bounding_box)]
        row: dict[str, Any] = {
            "id": number,
            "image_id": str(face.sample.frame_number),
            "video_id": 1,
            "category_id": FACE,
            "bbox": box,
            "area": pixels(box[2] * box[3]),
            "iscrowd": 0,
            "score": share(face.score),
            "timestamp": seconds(face.sample.timestamp),
            "frame_number": face.sample.frame_number,
            "backend": engine,
        }
        if face.track_id is not None:
            row |= {"face_id": face.track_id, "track_id": face.track_id}
        row |= _traits(face)
        if landmarks:
            keypoints = _keypoints(video, face, landmarks)
            row |= {"num_keypoints": sum(v > 0 for v in keypoints[2::3]), "keypoints": keypoints}
        yield row


def _traits(face: Face) -> dict[str, Any]:
    """`attributes` as the browser client reads it; what is not known is left out."""
    traits, attributes = face.traits, dict[str, Any]()
    if pose := traits.head_pose:
        attributes["head_pose"] = {name: round(value, 2) for name, value in msgspec.structs.asdict(pose).items()}
    if openness := traits.openness:
        attributes["openness"] = {name: share(value) for name, value in msgspec.structs.asdict(openness).items()}
    if traits.age is not None:
        attributes["age"] = traits.age
    if traits.gender is not None:
        attributes["gender"] = traits.gender
    if traits.emotions:
        attributes["emotions"] = {
            name: {"score": share(score), "rank": rank, "raw_score": share(score)}
            for rank, (name, score) in enumerate(traits.emotions, start=1)
        }
    row: dict[str, Any] = {} if face.identity is None else {"identity": face.identity}
    if found := face.recognised:
        row |= {
            "person_label": found.name,
            "person_label_confidence": share(max(0.0, found.similarity)),
            "person_labeling_method": found.method,
        }
    return {**row, "attributes": attributes} if attributes else row


def _keypoints(video: Video, face: Face, landmarks: int) -> list[float]:
    """Triples x, y, v; a face whose landmarks were not found has zeros, as COCO wants."""
    if not face.landmarks:
        return [0.0] * 3 * landmarks
    flat: list[float] = []
    for x, y in face.landmarks:
        inside = 0 <= x < video.width and 0 <= y < video.height
        flat += (pixels(x), pixels(y), 2 if inside else 1)
    return flat


def _landmarks(keypoints: Sequence[float]) -> tuple[tuple[float, float], ...]:
    triples = zip(keypoints[::3], keypoints[1::3], keypoints[2::3], strict=True)
    return tuple((x, y) for x, y, v in triples if v > 0)
