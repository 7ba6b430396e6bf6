"""Promises about the shape of the project that no single module can keep alone."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
MODEL_LIBRARIES = ("av", "ctranslate2", "cv2", "decord", "mediapipe", "numpy", "onnxruntime", "scenedetect", "torch")
NO_CODES = set(
    """
    BROWSER_COPY CUDA_VISIBLE_DEVICES DO_NOT_TRACK HF_ENDPOINT HF_HUB_DISABLE_TELEMETRY HF_HUB_OFFLINE HF_TOKEN
    HUGGING_FACE_HUB_TOKEN MKL_NUM_THREADS NUMEXPR_NUM_THREADS OMP_NUM_THREADS OPENBLAS_NUM_THREADS
    OPENCV_FOR_THREADS_NUM PYANNOTE_METRICS_ENABLED RAYON_NUM_THREADS SAMPLE_RATE SC_CLK_TCK SC_PAGE_SIZE SC_PHYS_PAGES
    TF_CPP_MIN_LOG_LEVEL TF_NUM_INTEROP_THREADS TF_NUM_INTRAOP_THREADS VECLIB_MAXIMUM_THREADS
    TOKENIZERS_PARALLELISM TORCH_HOME TRANSFORMERS_OFFLINE UV_PROJECT_ENVIRONMENT VIDEOANNOTATOR_API_KEY
    VIDEOANNOTATOR_FAULT VIDEOANNOTATOR_STAGE_ID VIDEOANNOTATOR_STORAGE_ID VIRTUAL_ENV
    """.split()  # noqa: SIM905
)
"""Environment variables, constants and the like that look like codes in the source."""


@pytest.mark.parametrize(
    "module",
    [
        "videoannotator.server.app",
        "videoannotator.workspace",
        "videoannotator.cli.run",
        "videoannotator.runner.process",
    ],
)
def test_the_server_side_imports_no_model_library(module):
    """A server that imports torch is slow to start and gigabytes heavier; only stage processes may."""
    code = f"import sys, {module}; print(*sys.modules)"

    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert module in told
    assert [] == [library for library in MODEL_LIBRARIES if library in told]


def test_a_command_loads_nothing_that_only_others_need():
    """What is loaded before anything begins is time in which one core rests: each of these is 10 to 30 ms."""
    code = "import sys, videoannotator.cli.run; print(*sys.modules)"

    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert [] == [m for m in ("anyio", "httpcore", "psutil", "pynvml", "rich", "typing_extensions") if m in told]


def test_help_loads_nothing_that_it_does_not_need():
    """`videoannotator --help` answers in 0.3 s because it imports argparse and little else."""
    code = "import sys, videoannotator.cli as c; c._parser().format_help(); print(*sys.modules)"

    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert [] == [m for m in ("asyncio", "litestar", "rich", "structlog", "uvicorn", "yaml") if m in told]


def test_every_error_code_that_a_user_can_see_stands_in_the_docs():
    """A code in an answer that no page explains is a riddle."""
    source = "".join(file.read_text() for file in (TOP / "videoannotator").rglob("*.py"))
    codes = set(re.findall(r'"([A-Z]{2,}(?:_[A-Z0-9]+)+)"', source)) - NO_CODES
    codes |= {f"{kind.upper()}_NOT_FOUND" for kind in re.findall(r'NotFound\.of\("(\w+)"', source)}

    page = (TOP / "docs" / "errors.md").read_text()
    told = set(re.findall(r"`([A-Z_]+)`", page))

    assert [] == sorted(codes - told)


def test_there_is_no_room_for_what_belongs_nowhere():
    """A file called utils is where design goes to die."""
    names = {file.stem for file in (TOP / "videoannotator").rglob("*.py")}

    assert names.isdisjoint({"utils", "util", "helpers", "common", "misc", "manager", "base", "services"})


def test_no_path_of_a_machine_and_no_registry_is_committed():
    """What only works on the author's machine does not work."""
    listed = subprocess.run(["git", "ls-files"], cwd=TOP, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    files = [TOP / name for name in listed.stdout.split() if name != "uv.lock"]

    traces = [str(file) for file in files if re.search(rb"/(root|home)/\w|/work/(main|shared)", file.read_bytes())]

    assert [] == traces
