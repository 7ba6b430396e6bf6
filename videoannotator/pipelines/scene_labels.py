"""
Which of some words fits a picture best, by CLIP on onnxruntime.

Source: Radford et al. 2021, arXiv:2103.00020. Pictures are prepared as by OpenAI's `preprocess`: the shorter side 224
pixels, bicubic; the middle; its normalisation. Words are asked as "a photo of ...", which the authors recommend. The
shares are the softmax over the cosines times 100, the scale that training ends at: they compare the given words with
each other and sum to 1, also where none of them fits.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videoannotator.errors import StageFailed
from videoannotator.jobs import ModelFiles

MODEL = "clip-vit-base-patch32"
SIDE = 224
MOST_WORDS = 200
LONGEST_WORD = 100
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
_SCALE = 100.0


class Labels:
    """The networks, loaded, and the words, read by them."""

    libraries: tuple[str, ...] = ("onnxruntime", "tokenizers")

    def __init__(self, model: ModelFiles, words: Sequence[str], *, threads: int) -> None:
        self.used = model.used
        self._words = tuple(words)
        folder = Path(model.path)
        self._pictures = _session(folder / "onnx" / "vision_model.onnx", threads)
        self._texts = _texts(folder, self._words, threads)

    def of(self, image: Any) -> dict[str, float]:
        """Each word with its share, the best first; the picture is BGR, height x width x 3."""
        import numpy

        (name,) = (given.name for given in self._pictures.get_inputs())
        seen = _unit(self._pictures.run(["image_embeds"], {name: _prepared(image)})[0])[0]
        fits = _SCALE * (self._texts @ seen)
        shares = numpy.exp(fits - fits.max())
        shares /= shares.sum()
        return dict(sorted(zip(self._words, map(float, shares), strict=True), key=lambda pair: -pair[1]))


def words_of(text: str) -> tuple[str, ...]:
    """
    The words between the commas, each once.

    Raises:
        StageFailed: LABELS_UNUSABLE: too few, too many, or too long.
    """
    words = tuple(dict.fromkeys(word for part in text.split(",") if (word := " ".join(part.split()))))
    if not 2 <= len(words) <= MOST_WORDS or max(map(len, words)) > LONGEST_WORD:
        message = (
            f"label_words names {len(words)}; 2 to {MOST_WORDS} are compared, of {LONGEST_WORD} characters at most."
        )
        raise StageFailed(message, hint="Name them with commas between: kitchen, garden", code="LABELS_UNUSABLE")
    return words


def _texts(folder: Path, words: Sequence[str], threads: int) -> Any:
    import numpy
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    network = _session(folder / "onnx" / "text_model.onnx", threads)
    names = [given.name for given in network.get_inputs()]
    found = []
    for word in words:  # one at a time: then none is filled up, and its end is where the network looks for it
        read = tokenizer.encode(f"a photo of {word}")
        given = {"input_ids": read.ids, "attention_mask": read.attention_mask}
        feed = {name: numpy.array([given[name]], numpy.int64) for name in names}
        found.append(_unit(network.run(["text_embeds"], feed)[0])[0])
    return numpy.stack(found)


def _session(file: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _unit(vectors: Any) -> Any:
    import numpy

    return vectors / numpy.linalg.norm(vectors, axis=-1, keepdims=True)


def _prepared(image: Any) -> Any:
    import cv2
    import numpy

    height, width = image.shape[:2]
    scale = SIDE / min(height, width)
    size = max(SIDE, round(width * scale)), max(SIDE, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    left, top = (size[0] - SIDE) // 2, (size[1] - SIDE) // 2
    middle = small[top : top + SIDE, left : left + SIDE, ::-1].astype(numpy.float32) / 255
    return ((middle - numpy.array(_MEAN, numpy.float32)) / numpy.array(_DEVIATION, numpy.float32)).transpose(2, 0, 1)[
        None
    ]
