"""
What an exception of a pipeline means to whoever decides on another attempt.

Libraries are told by the names and words of their exceptions: none of them may be imported here.
"""

import errno

from videoannotator.runner.entry import plain
from videoannotator.runner.messages import Failed

_MEMORY_TYPES = frozenset({"MemoryError", "OutOfMemoryError"})
"""Python's and numpy's; torch's and CuPy's."""

_MEMORY_WORDS = ("out of memory", "failed to allocate memory", "cuda_error_out_of_memory", "cublas_status_alloc_failed")
"""CTranslate2 and onnxruntime raise a RuntimeError for it."""

_DRIVER_WORDS = ("cuda error", "cuda failed", "cuda failure", "cudnn error", "cudnn_status_", "cublas_status_", "nvml")

_PASSING_ERRNOS = frozenset(
    {
        *(errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH),
        *(errno.ECONNRESET, errno.ECONNREFUSED, errno.ENETDOWN, errno.EHOSTDOWN, errno.EMFILE, errno.ENFILE),
    }
)
"""Of disks and network drives."""


def failed(pipeline: str, exc: Exception) -> Failed:
    """The last word of a stage whose pipeline raised `exc` without meaning to tell anybody."""
    if _is_about_memory(exc):
        hint = "Run fewer stages at once, or choose a smaller model."
        return Failed(code="STAGE_OUT_OF_MEMORY", message=f"{pipeline} ran out of memory.", hint=hint, retryable=True)
    told = plain(f"{type(exc).__name__}: {exc}")
    if _is_about_the_driver(exc):
        return Failed(code="GPU_FAILED", message=told, hint="Look at the driver: nvidia-smi.", retryable=True)
    if isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return Failed(code="STORAGE_FULL", message=told, hint="Free some space.", retryable=True)
    if isinstance(exc, OSError) and exc.errno in _PASSING_ERRNOS:
        return Failed(code="FILE_NOT_READ", message=told, hint="Look at the disk or the network drive.", retryable=True)
    return Failed(code="STAGE_FAILED", message=told)


def _is_about_memory(exc: Exception) -> bool:
    if any(kind.__name__ in _MEMORY_TYPES for kind in type(exc).__mro__):
        return True
    return isinstance(exc, RuntimeError) and _says(exc, _MEMORY_WORDS)


def _is_about_the_driver(exc: Exception) -> bool:
    return isinstance(exc, RuntimeError) and _says(exc, _DRIVER_WORDS)


def _says(exc: Exception, words: tuple[str, ...]) -> bool:
    text = str(exc).lower()
    return any(word in text for word in words)
