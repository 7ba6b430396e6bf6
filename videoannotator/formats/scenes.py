"""
Scenes as JSON: a list `scenes`, and the same as COCO behind it.

Source: COCO as in `coco.py`; the list `scenes` is what the Video Annotation Viewer draws. It takes the file for scenes
only if the word COCO stands in `info.description` and `scenes` stands near the front, and passes over `transition`, how
the scene begins, and `thumbnail`, the file with a picture of it. `scene_type` is the best of `all_scores` where labels
were asked for. The COCO part has one image, the first frame of the scene, and one annotation, the whole frame, for
each scene.

Losses: seconds are rounded to 0.000001 and scores to 0.0001. The `pts` of a scene's first frame is not kept.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from videoannotator.annotations import Scene, Transition
from videoannotator.formats.coco import video_row
from videoannotator.formats.document import seconds, share, write_document
from videoannotator.jobs import Video

SCENE_TYPE = "scene"
"""What the Viewer prints on the bar of a scene without a label."""


class _Row(msgspec.Struct):
    start_time: float
    end_time: float
    frame_start: int
    frame_end: int
    score: float | None = None
    transition: Transition | None = None
    all_scores: dict[str, float] = {}
    thumbnail: str | None = None


class _Document(msgspec.Struct):
    scenes: list[_Row]


def write_scenes(file: Path, video: Video, scenes: Sequence[Scene]) -> None:
    info = {"description": "VideoAnnotator scene detection: scenes, and the same as COCO", "version": "1.0"}
    write_document(
        file,
        {"info": info},
        {
            "scenes": [_scene(number, scene) for number, scene in enumerate(scenes, start=1)],
            "videos": [video_row(video)],
            "categories": [{"id": 1, "name": SCENE_TYPE, "supercategory": "video"}],
            "annotations": [_annotation(number, scene, video) for number, scene in enumerate(scenes, start=1)],
            "images": [_image(scene, video) for scene in scenes],
            "licenses": [],
        },
    )


def read_scenes(file: Path) -> tuple[Scene, ...]:
    """What `write_scenes` wrote. Raises msgspec.DecodeError for anything else."""
    rows = msgspec.json.decode(file.read_bytes(), type=_Document).scenes
    return tuple(
        Scene(
            r.start_time, r.end_time, r.frame_start, r.frame_end, r.score, r.transition,
            tuple(r.all_scores.items()), r.thumbnail,
        )
        for r in rows
    )  # fmt: skip


def _scene(number: int, scene: Scene) -> dict[str, Any]:
    score = {} if scene.score is None else {"score": share(scene.score)}
    begun = {} if scene.transition is None else {"transition": _transition(scene.transition)}
    labels = {"all_scores": {word: share(value) for word, value in scene.labels}} if scene.labels else {}
    thumbnail = {} if scene.thumbnail is None else {"thumbnail": scene.thumbnail}
    return {
        "id": number,
        "start_time": seconds(scene.start_time),
        "end_time": seconds(scene.end_time),
        "duration": seconds(scene.duration),
        "frame_start": scene.frame_start,
        "frame_end": scene.frame_end,
        "scene_type": scene.labels[0][0] if scene.labels else SCENE_TYPE,
        **score,
        **begun,
        **labels,
        **thumbnail,
    }


def _transition(transition: Transition) -> dict[str, Any]:
    return {
        "kind": transition.kind,
        "start_time": seconds(transition.start_time),
        "end_time": seconds(transition.end_time),
    }


def _annotation(number: int, scene: Scene, video: Video) -> dict[str, Any]:
    frame = {
        "image_id": str(scene.frame_start),
        "video_id": 1,
        "category_id": 1,
        "bbox": [0, 0, video.width, video.height],
        "area": video.width * video.height,
        "iscrowd": 0,
        "timestamp": seconds(scene.start_time),
        "frame_number": scene.frame_start,
    }
    return _scene(number, scene) | frame


def _image(scene: Scene, video: Video) -> dict[str, Any]:
    return {
        "id": str(scene.frame_start),
        "video_id": 1,
        "file_name": f"frame_{scene.frame_start:08d}.png",
        "width": video.width,
        "height": video.height,
        "frame_number": scene.frame_start,
        "timestamp": seconds(scene.start_time),
    }
