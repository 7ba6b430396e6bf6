"""Whether a stage that ended badly is tried again, when, and with which parameters. See `errors.ErrorKind`."""

import random
from typing import Any

import msgspec

from videoannotator.errors import ErrorKind, VideoAnnotatorError, kind_of
from videoannotator.jobs import Stage
from videoannotator.pipelines.declaration import Declaration
from videoannotator.settings import Settings

BATCH_SIZE = "batch_size"
"""The parameter that pipelines with batches declare."""


class Retry(msgspec.Struct, frozen=True):
    delay_seconds: float
    eased: dict[str, Any] | None = None
    """Parameters to change, after memory ran out; empty where there is none."""

    @property
    def told(self) -> str:
        """For the job's log."""
        changed = ", ".join(f"{name} {value}" for name, value in (self.eased or {}).items())
        return f"It is tried again in {self.delay_seconds:.1f} s" + (f" with {changed}." if changed else ".")


def next_attempt(
    error: VideoAnnotatorError, stage: Stage, declaration: Declaration, settings: Settings
) -> Retry | None:
    """None where another attempt would end the same, or there were enough."""
    delay = delay_seconds(stage.failures, settings)
    match kind_of(error):
        case ErrorKind.OUT_OF_MEMORY if stage.eased is None:
            return Retry(delay, _half_the_batch(stage, declaration))
        case ErrorKind.TEMPORARY if stage.failures + 1 < settings.retry_attempts:
            return Retry(delay)
        case ErrorKind.CRASH if stage.failures + 1 < settings.crash_attempts:
            return Retry(delay)
        case _:
            return None


def delay_seconds(failures: int, settings: Settings) -> float:
    """Doubles with each failure before, up to the longest; jitter on top of that."""
    plain = min(settings.retry_max_delay_seconds, settings.retry_base_delay_seconds * 2.0 ** min(failures, 60))
    return max(0.0, plain * (1 + settings.retry_jitter * random.uniform(-1, 1)))  # noqa: S311 (nothing to guess)


def longest_delay_seconds(settings: Settings) -> float:
    return settings.retry_max_delay_seconds * (1 + settings.retry_jitter)


def _half_the_batch(stage: Stage, declaration: Declaration) -> dict[str, Any]:
    declared = next((p for p in declaration.parameters if p.name == BATCH_SIZE and p.type == "integer"), None)
    size = stage.used_config.get(BATCH_SIZE)
    if declared is None or not isinstance(size, int):
        return {}
    half = max(size // 2, int(declared.min or 1))
    return {BATCH_SIZE: half} if half < size else {}
