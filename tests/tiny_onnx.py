"""
Networks of a few kilobytes with the inputs and outputs of real ones, so that an engine's real code path runs on them.

They find bright squares on black: what is found where is known, and says nothing of how well the real ones see.
"""

from pathlib import Path
from typing import Any

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

SIDE = 640
CELL = 160
CELLS = SIDE // CELL


def rtmo(folder: Path, *, breaks: bool = False) -> Path:
    """
    RTMO's shapes: a person in each bright cell of a 4 x 4 grid.

    The score is the cell's brightness over 255; the box is the cell less 10 pixels at each side, given twice with the
    second one shifted by 2 pixels and 0.05 less sure; the keypoints are on the box's diagonal, each 0.9 sure.
    One that `breaks` raises as soon as it sees a pixel of pure white.
    """
    folder.mkdir(parents=True, exist_ok=True)
    boxes, keypoints = _grid()
    twice = numpy.concatenate([boxes, boxes + 2.0], axis=1)
    less = numpy.concatenate([numpy.zeros((1, CELLS**2, 1)), numpy.full((1, CELLS**2, 1), 0.05)], axis=1)
    constants = {
        "boxes": twice,
        "keypoints_of": numpy.concatenate([keypoints, keypoints], axis=1),
        "less": less,
        "whole": numpy.array([1 / 255.0]),
        "nothing": numpy.zeros(1),
    }
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["grey"], axes=[1], keepdims=1),
        helper.make_node("AveragePool", ["grey"], ["cells"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        helper.make_node("Mul", ["cells", "whole"], ["bright"]),
        helper.make_node("Reshape", ["bright", "column"], ["once"]),
        helper.make_node("Concat", ["once", "once"], ["scores"], axis=1),
        helper.make_node("Sub", ["scores", "less"], ["sure"]),
        helper.make_node("Concat", ["boxes", "sure"], ["dets"], axis=2),
        helper.make_node("Identity", ["keypoints_of"], ["keypoints"]),
    ]
    if breaks:
        nodes[-1:] = [
            helper.make_node("ReduceMax", ["input"], ["brightest"], keepdims=0),
            helper.make_node("Mul", ["brightest", "whole"], ["of_white"]),
            helper.make_node("Floor", ["of_white"], ["is_white"]),
            helper.make_node("Cast", ["is_white"], ["place"], to=TensorProto.INT64),
            helper.make_node("Gather", ["nothing", "place"], ["taken"]),
            helper.make_node("Add", ["keypoints_of", "taken"], ["keypoints"]),
        ]
    number = 2 * CELLS**2
    graph = helper.make_graph(
        nodes,
        "rtmo",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [
            helper.make_tensor_value_info("dets", TensorProto.FLOAT, [1, number, 5]),
            helper.make_tensor_value_info("keypoints", TensorProto.FLOAT, [1, number, 17, 3]),
        ],
        [numpy_helper.from_array(value.astype(numpy.float32), name) for name, value in constants.items()]
        + [numpy_helper.from_array(numpy.array([1, CELLS**2, 1], numpy.int64), "column")],
    )
    _save(graph, folder / "end2end.onnx")
    return folder


def _grid() -> tuple[numpy.ndarray, numpy.ndarray]:
    """Boxes (1 x cells x 4: left, top, right, bottom) and keypoints (1 x cells x 17 x 3)."""
    across, down = numpy.meshgrid(numpy.arange(CELLS), numpy.arange(CELLS))
    corner = numpy.stack([across.ravel(), down.ravel()], axis=1) * CELL
    boxes = numpy.concatenate([corner + 10, corner + CELL - 10], axis=1)[None]
    along = numpy.linspace(20, CELL - 20, 17)
    keypoints = numpy.empty((1, CELLS**2, 17, 3))
    keypoints[0, :, :, 0] = corner[:, :1] + along
    keypoints[0, :, :, 1] = corner[:, 1:] + along
    keypoints[0, :, :, 2] = 0.9
    return boxes, keypoints


def insightface_package(folder: Path, *, turned: Any = None) -> Path:
    """
    The five networks of a buffalo package, with their shapes.

    The detector (SCRFD) finds a face of 128 x 128 pixels of its 640 around each cell of 32 that is bright. Everybody is
    male and 30. The vector is the mean colour of the aligned face, so that a red face and a green one differ. The 68
    points in space are insightface's own mean shape, turned by the matrix `turned` (3 x 3; x to the right, y down, z
    towards the camera).
    """
    folder.mkdir(parents=True, exist_ok=True)
    _scrfd(folder / "det_tiny.onnx")
    _constant(folder / "genderage_tiny.onnx", 96, numpy.array([0.0, 1.0, 0.30]))
    _constant(folder / "2d106det_tiny.onnx", 192, numpy.linspace(-0.5, 0.5, 212))
    _constant(folder / "1k3d68_tiny.onnx", 192, _points_in_space(numpy.eye(3) if turned is None else turned))
    _colours(folder / "w600k_tiny.onnx")
    return folder


def hsemotion(folder: Path) -> Path:
    """HSEmotion's shapes: happier the brighter, otherwise neutral."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = numpy.zeros((8, 3, 1, 1), numpy.float32)
    weights[4] = 1.0
    bias = numpy.zeros(8, numpy.float32)
    bias[5] = 1.0
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["input"], ["mean"]),
            helper.make_node("Conv", ["mean", "weights", "bias"], ["each"]),
            helper.make_node("Flatten", ["each"], ["output"]),
        ],
        "hsemotion",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 224, 224])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 8])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )
    _save(graph, folder / "enet_b0_8_best_vgaf.onnx")
    return folder


def clip(folder: Path) -> Path:
    """
    CLIP's files and shapes. A picture's vector is its mean colour; a text's is the sum over its words, and a word is
    red, green or blue or says nothing.
    """
    (folder / "onnx").mkdir(parents=True, exist_ok=True)
    grey = numpy.zeros((4, 3, 1, 1), numpy.float32)
    grey[:3, :, 0, 0] = numpy.eye(3)
    picture = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["pixel_values"], ["mean"]),
            helper.make_node("Conv", ["mean", "weights"], ["each"]),
            helper.make_node("Flatten", ["each"], ["image_embeds"]),
        ],
        "clip_vision",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, 224, 224])],
        [helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(grey, "weights")],
    )
    words = numpy.concatenate([numpy.full((1, 4), 0.01), numpy.eye(4)[:3]]).astype(numpy.float32)
    text = helper.make_graph(
        [
            helper.make_node("Gather", ["words", "input_ids"], ["each"]),
            helper.make_node("ReduceMean", ["each"], ["text_embeds"], axes=[1], keepdims=0),
        ],
        "clip_text",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("text_embeds", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(words, "words")],
    )
    _save(picture, folder / "onnx" / "vision_model.onnx")
    _save(text, folder / "onnx" / "text_model.onnx")
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "red": 1, "green": 2, "blue": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def _scrfd(file: Path) -> None:
    """Nine outputs without a batch: scores, boxes, five points at strides 8, 16 and 32, two anchors for each cell."""
    nodes: list[Any] = [helper.make_node("ReduceMean", ["input"], ["grey"], axes=[1], keepdims=1)]
    constants: dict[str, Any] = {}
    outputs: dict[str, list[Any]] = {"score": [], "bbox": [], "kps": []}
    points = numpy.tile(numpy.array([-0.7, -0.7, 0.7, -0.7, 0, 0, -0.5, 0.7, 0.5, 0.7]), 2)
    for stride in (8, 16, 32):
        nodes.append(
            helper.make_node("AveragePool", ["grey"], [f"at{stride}"], kernel_shape=[stride] * 2, strides=[stride] * 2)
        )
        only = stride == 32
        heads = {
            "score": (1, [20.0 if only else 0.0, 0.0], [8.0 if only else -20.0, -20.0]),
            "bbox": (4, [0.0] * 8, [2.0] * 8),
            "kps": (10, [0.0] * 20, points),
        }
        for name, (wide, weight, bias) in heads.items():
            key = f"{name}{stride}"
            constants[f"w_{key}"] = numpy.array(weight, numpy.float32).reshape(-1, 1, 1, 1)
            constants[f"b_{key}"] = numpy.array(bias, numpy.float32)
            constants[f"shape_{key}"] = numpy.array([-1, wide], numpy.int64)
            nodes.append(helper.make_node("Conv", [f"at{stride}", f"w_{key}", f"b_{key}"], [f"conv_{key}"]))
            last = f"conv_{key}"
            if name == "score":
                nodes.append(helper.make_node("Sigmoid", [last], [f"share_{key}"]))
                last = f"share_{key}"
            nodes.append(helper.make_node("Transpose", [last], [f"turned_{key}"], perm=[0, 2, 3, 1]))
            nodes.append(helper.make_node("Reshape", [f"turned_{key}", f"shape_{key}"], [key]))
            outputs[name].append(helper.make_tensor_value_info(key, TensorProto.FLOAT, [None, wide]))
    graph = helper.make_graph(
        nodes,
        "scrfd",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "height", "width"])],
        [output for each in outputs.values() for output in each],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    _save(graph, file)


def _constant(file: Path, side: int, answer: Any) -> None:
    """Says the same of every picture."""
    weights = numpy.zeros((len(answer), 3, 1, 1), numpy.float32)
    _head(file, side, weights, numpy.asarray(answer, numpy.float32))


def _colours(file: Path) -> None:
    weights = numpy.zeros((512, 3, 1, 1), numpy.float32)
    weights[:3, :, 0, 0] = numpy.eye(3)
    black = numpy.zeros(512, numpy.float32)
    black[:3] = 1.0  # the network sees -1 there
    _head(file, 112, weights, black)


def _head(file: Path, side: int, weights: Any, bias: Any) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["data"], ["mean"]),
            helper.make_node("Conv", ["mean", "weights", "bias"], ["each"]),
            helper.make_node("Flatten", ["each"], ["fc1"]),
        ],
        file.stem,
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info("fc1", TensorProto.FLOAT, [1, len(bias)])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )
    _save(graph, file)


def _points_in_space(turned: Any) -> Any:
    """1,103 points, of which the last 68 count: in shares of half the network's side, from its middle."""
    from insightface.data import get_object

    mean = numpy.asarray(get_object("meanshape_68.pkl"), numpy.float64)
    mean = (mean - mean.mean(axis=0)) / numpy.abs(mean).max() / 2
    points = numpy.zeros((1103, 3))
    points[-68:] = mean @ numpy.asarray(turned).T
    return points.ravel()


def _save(graph: Any, file: Path) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    onnx.save(model, file)
