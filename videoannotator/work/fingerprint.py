"""
What a stage's result depends on beside the bytes of its video, as one hash: two runs with the same fingerprint on the
same bytes give the same files.

In it: all that a probe says of the video and its name (files carry it), pipeline, version and parameters, the hashes of
the models, of pictures that it compares with and of the files of pipelines before it, our own code and that of a
pipeline from elsewhere, every installed distribution with its version, Python, the kind of machine and its GPUs. Rather
too much than too little: a needless miss costs a run, a wrong hit a wrong result.
"""

import hashlib
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from videoannotator.jobs import Artifact, ModelFiles, NamedPicture, Video

_GPUS = Path("/proc/driver/nvidia/gpus")


def fingerprint(
    *,
    video: Video,
    pipeline: str,
    version: str,
    code: str,
    config: Mapping[str, Any],
    models: Sequence[ModelFiles],
    pictures: Sequence[NamedPicture] = (),
    earlier: Sequence[Artifact] = (),
    max_lost_frames: float,
    interpreter: Path,
) -> str:
    """Hex. Reads some files the first time, and folders every time: call it in a thread."""
    parts = {
        "video": msgspec.structs.replace(video, sha256=None),
        "pipeline": [pipeline, version, dict(config), max_lost_frames],
        "models": [model.used for model in models],
        "pictures": [(picture.parameter, picture.used) for picture in pictures],
        "earlier": sorted((artifact.name, artifact.sha256) for artifact in earlier),
        "code": [_own_code(), _code_from_elsewhere(code)],
        "environment": [sorted(_distributions(interpreter)), sys.version, platform.machine(), sorted(_gpus())],
    }
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()


@cache
def _own_code() -> str:
    """Of this package as it was when it was first asked for."""
    return _hash_of(own_files())


def own_files() -> list[Path]:
    """The whole package, in a fixed order: a result depends on how frames are read and files are written, too."""
    top = Path(__file__).parents[1]
    return sorted(file for file in top.rglob("*") if file.suffix in (".py", ".yaml"))


def _code_from_elsewhere(code: str) -> str:
    """`code` is `module:function`, whose file belongs to us, or `/path/file.py:function`."""
    file = Path(code.rpartition(":")[0])
    return _hash_of([file]) if file.suffix == ".py" else ""


def _hash_of(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _distributions(interpreter: Path) -> list[str]:
    """`numpy-1.26.4.dist-info` and its kind: names and versions without opening a file."""
    if interpreter == Path(sys.executable):
        folders = {Path(folder) for folder in sys.path if folder.endswith(("site-packages", "dist-packages"))}
    else:
        folders = set(interpreter.parent.parent.glob("lib/python*/site-packages"))
    return [entry.name for folder in folders if folder.is_dir() for entry in folder.glob("*-info")]


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    return [visible, *(gpu.name for gpu in _GPUS.iterdir())] if _GPUS.is_dir() else []
