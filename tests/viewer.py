"""
How the unmodified Video Annotation Viewer takes a file of the ZIP: its rules for names and contents, written down again
from its description (`../shared/VIEWER.md`, section 8) so that the tests can ask them.
"""

import json
from pathlib import Path
from typing import Any


def detected_as(file: Path) -> str | None:
    """The Viewer's type of a file, `unknown`, or None where it ignores the file."""
    name = file.name.lower()
    if name.endswith((".mp4", ".mov", ".avi", ".mkv", ".webm")):
        return "video"
    if name.endswith((".wav", ".mp3", ".aac", ".ogg")):
        return "audio"
    if name.endswith(".vtt") or "speech_recognition" in name:
        return "speech_recognition"
    if name.endswith(".rttm") or "speaker_diarization" in name:
        return "speaker_diarization"
    return _json_type(name, file.read_text()) if name.endswith(".json") else None


def drawn_scenes(file: Path) -> list[dict[str, Any]]:
    """The scenes it would draw; raises where its schema would lose the file."""
    content = json.loads(file.read_text())
    assert detected_as(file) == "scene_detection", f"taken for {detected_as(file)}"
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
    assert detected_as(file) == "face_analysis", f"taken for {detected_as(file)}"
    faces: list[dict[str, Any]] = json.loads(file.read_text())["annotations"]
    for face in faces:
        assert len(face["bbox"]) == 4
        assert isinstance(face["face_id"], int)
        assert isinstance(face["image_id"], str)
        assert face["timestamp"] >= 0
    return faces


def _json_type(name: str, text: str) -> str:
    whole = _parsed(text)
    if isinstance(whole, dict) and all(
        whole.get(k) for k in ("video_path", "pipeline_results", "config", "start_time")
    ):
        return "complete_results"
    if _is_face(name, text[:8000]):
        return "face_analysis"
    if all(word in text[:12000] for word in ('"metadata"', '"faces"', '"pipeline"', '"model_info"')):
        return "openface3"
    if "openface3_analysis" in name or "openface3_detailed" in name:
        return "openface3"
    if _is_person(text[:10000]):
        return "person_tracking"
    if _is_scene(text[:5000]):
        return "scene_detection"
    return "unknown"


def _is_face(name: str, text: str) -> bool:
    if any(word in text for word in ('"face_id"', '"attributes"', '"emotions"')):
        return True
    return ("face" in name and '"bbox"' in text and '"score"' in text) or _parsed(text) == []


def _is_person(text: str) -> bool:
    if '"keypoints"' in text and '"bbox"' in text:
        return True
    content = _parsed(text)
    if not isinstance(content, dict):
        return False
    if "COCO" in content.get("info", {}).get("description", ""):
        return not _has_scene_words(text)
    return isinstance(content.get("annotations"), list) or isinstance(content.get("results"), list)


def _is_scene(text: str) -> bool:
    content = _parsed(text)
    return _has_scene_words(text) or (isinstance(content, dict) and isinstance(content.get("scenes"), list))


def _has_scene_words(text: str) -> bool:
    return any(word in text for word in ('"scene_type"', '"start_time"', '"end_time"'))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
