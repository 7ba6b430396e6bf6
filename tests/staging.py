"""Runs one pipeline the way a stage process does, without the process: its real function on a real file."""

import atexit
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tests.tiny_models import ENVIRONMENTS, shelf_of
from videoannotator.environments import DEFAULT, Environments
from videoannotator.media.probe import probe
from videoannotator.pipelines.catalogue import Catalogue
from videoannotator.pipelines.contract import Result, Stage
from videoannotator.pipelines.supplies import Supplies


def _supplied() -> Catalogue:
    """All pipelines, with tiny random models for those that need some, and the environments that are installed."""
    folder = Path(tempfile.mkdtemp(prefix="videoannotator-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shelf = shelf_of(folder, "faster-whisper-small", "faster-whisper-tiny")
    return Catalogue.load(supplies=Supplies(shelf, Environments(ENVIRONMENTS)))


CATALOGUE = _supplied()
HERE = tuple(d.name for d in CATALOGUE if d.engine(d.defaults).environment == DEFAULT)
"""The pipelines that run in the environment of the tests."""


class Recorder:
    """A Report that keeps what it is told."""

    def __init__(self) -> None:
        self.progressed: list[float] = []
        self.logged: list[str] = []

    def progress(self, done_seconds: float) -> None:
        self.progressed.append(done_seconds)

    def log(self, level: str, message: str) -> None:
        self.logged.append(f"{level}: {message}")


class Ran(msgspec.Struct):
    result: Result
    folder: Path
    report: Recorder
    duration_seconds: float

    @property
    def files(self) -> dict[str, bytes]:
        return files_in(self.folder)


def files_in(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def run(
    pipeline: str,
    clip: Path,
    folder: Path,
    config: Mapping[str, Any] | None = None,
    report: Recorder | None = None,
    *,
    chunks: Path | None = None,
    chunk_seconds: float = 60.0,
) -> Ran:
    """Run it to its end in this process; `folder` is made. `chunks` is the folder of an attempt that is continued."""
    folder.mkdir(parents=True)
    video = probe(clip)
    automatic = CATALOGUE.get(pipeline).automatic
    complete = {pipeline: {}} if automatic else CATALOGUE.require([pipeline], {pipeline: dict(config or {})})
    report = report or Recorder()
    module, function = CATALOGUE.code_of(pipeline).split(":")
    result = getattr(importlib.import_module(module), function)(
        Stage(
            video_path=clip,
            video=video,
            config=complete[pipeline],
            output_folder=folder,
            threads=2,
            max_lost_frames=0.01,
            report=report,
            chunks_folder=chunks,
            chunk_seconds=chunk_seconds,
            models=CATALOGUE.supplies.models(CATALOGUE.get(pipeline), complete[pipeline]),
        )
    )
    return Ran(result, folder, report, video.duration_seconds)


def start(pipeline: str, clip: Path, folder: Path, **environ: str) -> "subprocess.Popen[str]":
    """Start it in a process of its own, which says `working` at its first progress."""
    return subprocess.Popen(
        [sys.executable, __file__, pipeline, str(clip), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[1],
        env=os.environ | environ,
    )


class _Speaking(Recorder):
    def progress(self, done_seconds: float) -> None:
        if not self.progressed:
            print("working", flush=True)
        super().progress(done_seconds)


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), report=_Speaking())
