"""What a stage finds around it: an environment that keeps libraries quiet and offline, and room for scratch files."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from videoannotator.errors import StorageTrouble
from videoannotator.settings import PREFIX

_QUIET = {
    # Nothing leaves the machine: see "Privacy" in DESIGN.md.
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PYANNOTE_METRICS_ENABLED": "0",
    "DO_NOT_TRACK": "1",
    # The same input gives the same bytes.
    "PYTHONHASHSEED": "0",
    # What a stage prints before it is killed is in its log, and nothing opens a window.
    "PYTHONUNBUFFERED": "1",
    "PYTHONIOENCODING": "utf-8:backslashreplace",
    "GLOG_minloglevel": "2",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "Agg",
}
_THREADS = (
    "OMP_NUM_THREADS",  # torch, CTranslate2, ONNX Runtime built with OpenMP
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "RAYON_NUM_THREADS",
)
"""Each library would take all cores for itself, and stages that run side by side would fight over them."""

_CACHES = ("TMPDIR", "TORCH_HOME", "MPLCONFIGDIR")
"""Folders that libraries make and write into."""

_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def surroundings(environ: Mapping[str, str], threads: int, scratch: Path) -> dict[str, str]:
    """The server's environment without its settings and keys, and with what keeps libraries quiet and offline."""
    kept = {k: v for k, v in environ.items() if not k.startswith(PREFIX) and k not in _SECRETS}
    return kept | _QUIET | dict.fromkeys(_THREADS, str(threads)) | dict.fromkeys(_CACHES, str(scratch))


def make_scratch(storage_id: str) -> Path:
    """A folder for the temporary files of one stage, since what is killed does not clean up. Raises StorageTrouble."""
    try:
        return Path(tempfile.mkdtemp(prefix=_scratch_prefix(storage_id)))
    except OSError as exc:
        message = f"No temporary folder can be made in {tempfile.gettempdir()}: {exc.strerror}."
        hint = "Free some space there, or set TMPDIR."
        raise StorageTrouble(message, hint=hint, code="SCRATCH_NOT_WRITABLE") from exc


def remove_scratch(folder: Path) -> None:
    """As much of it as can be removed: a stage may have left files there that cannot, and that harms nobody."""
    shutil.rmtree(folder, ignore_errors=True)


def remove_earlier_scratch(storage_id: str) -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_scratch_prefix(storage_id)}*"):
        remove_scratch(folder)


def _scratch_prefix(storage_id: str) -> str:
    return f"videoannotator-{storage_id}-"
