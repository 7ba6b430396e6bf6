"""
Categories of facial expression, by HSEmotion's EfficientNet-B0 on onnxruntime.

Source: Savchenko 2021, arXiv:2103.17107, and its package hsemotion-onnx, whose preparation of pictures this follows:
the face's box, 224 x 224, RGB, normalised as ImageNet. Trained on AffectNet, pictures of adults from the web whose
expressions were labelled by single annotators: what it names is what a face shows, not what somebody feels.
"""

from pathlib import Path
from typing import Any

from videoannotator.annotations import BoundingBox
from videoannotator.jobs import ModelFiles

CATEGORIES = ("anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
_SIDE = 224
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


class Emotions:
    def __init__(self, model: ModelFiles, *, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        file = next(Path(model.path).glob("*.onnx"))
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self.used = model.used

    def of(self, image: Any, box: BoundingBox) -> tuple[tuple[str, float], ...]:
        """Each category with its share, the highest first; they sum to 1. Nothing where the box has no pixel."""
        import numpy

        height, width = image.shape[:2]
        left, top = max(0, int(box.x)), max(0, int(box.y))
        right, bottom = min(width, int(box.x + box.width)), min(height, int(box.y + box.height))
        if right - left < 2 or bottom - top < 2:
            return ()
        logits = self._session.run(None, {self._input: _prepared(image[top:bottom, left:right])})[0][0]
        shares = numpy.exp(logits - logits.max())
        shares /= shares.sum()
        return tuple(sorted(zip(CATEGORIES, map(float, shares), strict=True), key=lambda pair: -pair[1]))


def _prepared(face: Any) -> Any:
    import cv2
    import numpy

    small = cv2.resize(face, (_SIDE, _SIDE)) / 255
    normal = (small - numpy.array(_MEAN)) / numpy.array(_DEVIATION)
    return normal.transpose(2, 0, 1)[None].astype(numpy.float32)
