"""
RTMO on onnxruntime: all people of a picture and their 17 keypoints in one pass.

Source: Lu et al. 2024, arXiv:2312.07526. What goes in and comes out is that of the authors' ONNX export (and of rtmlib,
with which a test compares): a square of BGR values 0 to 255, the picture at its top left and 114 elsewhere; `dets`
(1 x n x 5: left, top, right, bottom, score) and `keypoints` (1 x n x 17 x 3: x, y, score), in pixels of that square.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from videoannotator.annotations import BoundingBox, Keypoint, Person, Sample
from videoannotator.errors import StageFailed
from videoannotator.jobs import ModelFiles, ModelUsed

SAME_PERSON = 0.45
"""Overlap (IoU) from which two finds are one person."""

FILE = "end2end.onnx"
_EDGE = 114


class Rtmo:
    """The network, loaded. `device` is where it runs."""

    libraries: tuple[str, ...] = ("onnxruntime", "opencv-python-headless")

    def __init__(self, model: ModelFiles, *, min_score: float, threads: int) -> None:
        self._session, device = _loaded(_network(model), threads)
        self._input = self._session.get_inputs()[0].name
        self._side = _side(self._session.get_inputs()[0].shape)
        self._min_score = min_score
        self.device = device
        self.models: tuple[ModelUsed, ...] = (model.used,)

    def close(self) -> None:
        """The networks stay for the next stage."""

    def find(self, image: Any, sample: Sample) -> Sequence[Person]:
        """People of one RGB picture (height x width x 3, uint8), the surest first, in its pixels."""
        import cv2

        square, scale = _into_square(image, self._side)
        boxes, keypoints = self._session.run(None, {self._input: square})
        sure = boxes[0, :, 4] >= self._min_score
        boxes, keypoints = boxes[0, sure], keypoints[0, sure]
        corners = [[float(x), float(y), float(right - x), float(bottom - y)] for x, y, right, bottom, _ in boxes]
        kept = cv2.dnn.NMSBoxes(corners, [float(box[4]) for box in boxes], self._min_score, SAME_PERSON)
        return [
            Person(
                sample,
                BoundingBox(*(value / scale for value in corners[place])),
                min(1.0, float(boxes[place, 4])),
                tuple(
                    Keypoint(float(x) / scale, float(y) / scale, max(0.0, min(1.0, float(score))))
                    for x, y, score in keypoints[place]
                ),
            )
            for place in kept
        ]


@lru_cache(maxsize=1)
def _loaded(network: Path, threads: int) -> tuple[Any, str]:
    """The session and where it runs; once in the life of a process that stays warm."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    wanted = {"CUDAExecutionProvider": "cuda", "CPUExecutionProvider": "cpu"}
    there = [provider for provider in wanted if provider in onnxruntime.get_available_providers()]
    session = onnxruntime.InferenceSession(str(network), options, providers=there)
    return session, wanted[session.get_providers()[0]]


def _network(model: ModelFiles) -> Path:
    found = sorted(Path(model.path).rglob(FILE))
    if not found:
        message = f"The model {model.name} holds no {FILE}."
        raise StageFailed(message, hint=f"Run: videoannotator models pull {model.name}", code="MODEL_DAMAGED")
    return found[0]


def _side(shape: Sequence[Any]) -> int:
    """Of the square that the network takes; 640, as published, where it takes any."""
    return shape[-1] if isinstance(shape[-1], int) else 640


def _into_square(image: Any, side: int) -> tuple[Any, float]:
    """1 x 3 x side x side, and by how much the picture was made smaller or larger."""
    import cv2
    import numpy

    height, width = image.shape[:2]
    scale = min(side / height, side / width)
    size = int(width * scale), int(height * scale)
    square = numpy.full((side, side, 3), _EDGE, dtype=numpy.uint8)
    square[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)[:, :, ::-1]
    return numpy.ascontiguousarray(square.transpose(2, 0, 1)[None], dtype=numpy.float32), scale
