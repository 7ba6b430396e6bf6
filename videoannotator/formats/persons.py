"""
People and their keypoints as COCO JSON with video fields.

Source: https://cocodataset.org/#format-data and #format-results (keypoint detection), with `videos`, `frame_number`,
`timestamp`, `track_id`, `keypoint_scores` and the person fields of the browser client added, which readers of plain
COCO ignore. `images` has a row for every frame that was looked at, also where nobody was found.

Of each keypoint v is 2 where the engine is surer than the least score and the point lies in the picture, 1 where it
only guesses the place, 0 (and x = y = 0) where it gives none. The browser client draws v = 2 alone.

Losses: pixels are rounded to 0.01, seconds to 0.000001, scores to 0.0001. A keypoint of score 0 reads back at (0, 0).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from videoannotator.annotations import BoundingBox, Build, Keypoint, Person, Sample
from videoannotator.formats.coco import image_row, partial_until, video_row
from videoannotator.formats.document import pixels, seconds, share, write_document
from videoannotator.jobs import Video

PERSON = 1
"""The only category."""

KEYPOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
"""COCO's order; left and right are those of the person."""

SKELETON = (
    (16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9), (8, 10), (9, 11),
    (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7),
)  # fmt: skip
"""COCO's, counting keypoints from 1."""

UNKNOWN = Build("unknown", 0.0)


class _Image(msgspec.Struct):
    id: str
    frame_number: int
    timestamp: float
    pts: int


class _Annotation(msgspec.Struct):
    image_id: str
    bbox: tuple[float, float, float, float]
    score: float
    keypoints: tuple[float, ...]
    keypoint_scores: tuple[float, ...]
    track_id: int | None = None


class _Document(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]


def write_persons(
    file: Path,
    video: Video,
    persons: Sequence[Person],
    samples: Iterable[Sample],
    *,
    engine: str,
    builds: Mapping[int, Build],
    build_method: str,
    min_keypoint_score: float,
    until_seconds: float | None = None,
) -> None:
    """Write `persons`, found in `samples`, both in the order of time; `builds` by track id. See `write_faces`."""
    info = {
        "description": "VideoAnnotator person tracking, COCO with video fields",
        "version": "1.0",
        "engine": engine,
        "min_keypoint_score": min_keypoint_score,
        **partial_until(until_seconds),
    }
    category = {"id": PERSON, "name": "person", "supercategory": "person", "keypoints": KEYPOINTS, "skeleton": SKELETON}
    rows = (
        {
            "id": number,
            **_row(video, person, min_keypoint_score),
            **_label(builds.get(person.track_id or 0, UNKNOWN), build_method),
        }
        for number, person in enumerate(persons, start=1)
    )
    write_document(
        file,
        {"info": info, "licenses": [], "videos": [video_row(video)], "categories": [category]},
        {"annotations": rows, "images": (image_row(video, sample) for sample in samples)},
    )


def read_persons(file: Path) -> tuple[tuple[Person, ...], tuple[Sample, ...]]:
    """What `write_persons` wrote. Raises msgspec.DecodeError for anything else."""
    document = msgspec.json.decode(file.read_bytes(), type=_Document)
    samples = {image.id: Sample(image.frame_number, image.timestamp, image.pts) for image in document.images}
    persons = tuple(
        Person(samples[a.image_id], BoundingBox(*a.bbox), a.score, tuple(_keypoints(a)), a.track_id)
        for a in document.annotations
    )
    return persons, tuple(samples.values())


def _row(video: Video, person: Person, min_keypoint_score: float) -> dict[str, Any]:
    box = [pixels(v) for v in msgspec.structs.astuple(person.bounding_box)]
    triples = [_triple(video, keypoint, min_keypoint_score) for keypoint in person.keypoints]
    return {
        "image_id": str(person.sample.frame_number),
        "video_id": 1,
        "category_id": PERSON,
        "keypoints": [value for triple in triples for value in triple],
        "num_keypoints": sum(visibility > 0 for _, _, visibility in triples),
        "keypoint_scores": [share(keypoint.score) for keypoint in person.keypoints],
        "bbox": box,
        "area": pixels(box[2] * box[3]),
        "iscrowd": 0,
        "score": share(person.score),
        "track_id": person.track_id,
        "timestamp": seconds(person.sample.timestamp),
        "frame_number": person.sample.frame_number,
        "person_id": f"person_{person.track_id}",
    }


def _label(build: Build, method: str) -> dict[str, Any]:
    return {
        "person_label": build.label,
        "label_confidence": share(build.confidence),
        "labeling_method": method,
    }


def _triple(video: Video, keypoint: Keypoint, min_score: float) -> tuple[float, float, int]:
    if keypoint.score <= 0:
        return 0.0, 0.0, 0
    inside = 0 <= keypoint.x < video.width and 0 <= keypoint.y < video.height
    return pixels(keypoint.x), pixels(keypoint.y), 2 if inside and keypoint.score >= min_score else 1


def _keypoints(annotation: _Annotation) -> Iterator[Keypoint]:
    flat = annotation.keypoints
    for x, y, score in zip(flat[::3], flat[1::3], annotation.keypoint_scores, strict=True):
        yield Keypoint(x, y, score)
