"""
Networks of a few kilobytes with the inputs and outputs of real ones, so that an engine's real code path runs on them.

They find bright squares on black: what is found where is known, and says nothing of how well the real ones see.
"""

from pathlib import Path

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 640
CELL = 160
CELLS = SIDE // CELL


def rtmo(folder: Path) -> Path:
    """
    RTMO's shapes: a person in each bright cell of a 4 x 4 grid.

    The score is the cell's brightness over 255; the box is the cell less 10 pixels at each side, given twice with the
    second one shifted by 2 pixels and 0.05 less sure; the keypoints are on the box's diagonal, each 0.9 sure.
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
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    onnx.save(model, folder / "end2end.onnx")
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
