"""Scenes as plain COCO: the Viewer knows them by their words, and then throws them away without a message."""

import json

from tests.misbehaving.behaves import result
from videoannotator.jobs import Output
from videoannotator.pipelines.contract import Result, Stage


def run(stage: Stage) -> Result:
    scenes = [{"id": 1, "image_id": "1", "category_id": 1, "start_time": 0.0, "end_time": 1.0, "scene_type": "scene"}]
    (stage.output_folder / "scene_detection.json").write_text(
        json.dumps({"info": {"description": "COCO"}, "annotations": scenes})
    )
    return result(outputs=(Output("scene_detection.json", "annotations", "application/json"),))
