"""What the real command says of a clip, and how it is marked."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from rig import CONSOLE_COMMAND
from truth import RATE

HALF_A_FRAME = 0.5 / RATE


def annotate(clip: Path, pipelines: str, folder: Path, *settings: str, **environ: str) -> Path:
    """The folder with the results. Nothing is remembered from an earlier run."""
    command = [CONSOLE_COMMAND, "annotate", str(clip), "--no-cache", "--pipelines", pipelines, "--output", str(folder)]
    done = subprocess.run(
        [*command, *(f"--set={s}" for s in settings)],
        check=False, capture_output=True, text=True, env=os.environ | environ,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{pipelines} on {clip.name}: {done.stdout}{done.stderr}")
    return folder / clip.stem


def annotated(clip: Path, pipeline: str, folder: Path, *settings: str) -> dict[str, Any]:
    """The JSON file of one pipeline."""
    return content(annotate(clip, pipeline, folder, *settings), pipeline)


def content(results: Path, pipeline: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((results / f"{pipeline}.json").read_text())
    return found


def f1(right: int, found: int, there: int) -> float:
    return 2 * right / (found + there) if found + there else 1.0
