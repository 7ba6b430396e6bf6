"""
What the unmodified Video Annotation Viewer draws of a file: its rules are in `videoannotator/formats/viewer.py`, and
here a test asks for the things themselves.
"""

import json
from pathlib import Path
from typing import Any

from videoannotator.formats.viewer import Verdict, judge


def drawn_scenes(file: Path) -> list[dict[str, Any]]:
    """The scenes it would draw; raises where its schema would lose the file."""
    content = json.loads(file.read_text())
    assert judge(file) == Verdict("scene_detection")
    scenes: list[dict[str, Any]] = content["scenes"]
    for scene in scenes:
        assert None not in scene.values()
        assert isinstance(scene["id"], int)
        assert isinstance(scene["scene_type"], str)
        assert min(scene[name] for name in ("start_time", "end_time", "frame_start", "frame_end")) >= 0
        assert scene["duration"] > 0
        assert 0 <= scene.get("score", 0) <= 1
    return scenes


def drawn_faces(file: Path) -> list[dict[str, Any]]:
    """The faces it would draw."""
    assert judge(file) == Verdict("face_analysis")
    faces: list[dict[str, Any]] = json.loads(file.read_text())["annotations"]
    for face in faces:
        assert len(face["bbox"]) == 4
        assert isinstance(face["face_id"], int)
        assert isinstance(face["image_id"], str)
        assert face["timestamp"] >= 0
    return faces
