"""
Every error raised on purpose. `code` is part of the HTTP API and never changes; the message is for people and may.

* VideoAnnotatorError
  + NotFound              what was asked for does not exist: job, pipeline, preset, artifact, dataset, batch
  + Conflict              the thing exists, and its state forbids the request
  + Refused               the request is understood and cannot be done: unknown parameter, unreadable video
    - InvalidConfig       carries every problem found, not the first
    - UnreadableVideo     not a video, a playlist, empty, cut, or of a kind that is not opened
  + Forbidden             no key, a wrong key, or a key without the scope
  + TooManyRequests       one caller asks too often; `retry_after_seconds` says when to come back
  + StorageTrouble        the storage directory cannot be used: in use, full, not writable, of a newer program
  + Unreachable           another machine that a request named cannot be reached, or does not answer as it should
  + Undelivered           results are here, and could not be brought where the caller wanted them too
  + StageEnded            a stage did not end well; `retryable` says whether another attempt may help
    - StageFailed         the pipeline said so
    - StageDied           the process ended without a word
    - StageTooSlow        it ran past its time limit
      . StageStalled      it reported no progress for too long
    - StageTooLarge       it used more memory than it may
    - StageBroke          it sent something that is no message
  + LeaseLost             another worker, or nobody, holds the job now: stop, and write nothing
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Self

import msgspec


def there_are(wanted: str, known: Iterable[str], lead: str = "There are") -> str:
    """A hint for who named what is not there: the nearest name, where one is near, and all of them."""
    from difflib import get_close_matches  # only who errs waits for it

    names = tuple(known)
    near = get_close_matches(wanted.casefold(), names, n=1, cutoff=0.75)
    meant = f"Did you mean {near[0]}? " if near else ""
    return f"{meant}{lead}: {', '.join(names)}."


class FieldProblem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing wrong with one field of a request."""

    field: str
    """`pipeline.parameter`, or the name of the request's field."""

    message: str
    code: str
    hint: str = ""
    allowed: tuple[str, ...] = ()


class VideoAnnotatorError(Exception):
    """
    What went wrong, to what, and what to do about it.

    `str(error)` is message and hint in one line, fit for a terminal and for the `detail` of an answer.
    """

    code = "INTERNAL_ERROR"

    def __init__(self, message: str, *, hint: str = "", code: str | None = None, field: str | None = None) -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint
        self.field = field
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class NotFound(VideoAnnotatorError):
    code = "NOT_FOUND"

    @classmethod
    def of(cls, kind: str, name: str, hint: str = "") -> Self:
        """The usual sentence: `NotFound.of("job", "job_x")` has the code JOB_NOT_FOUND."""
        return cls(f"No {kind} is called {name!r}.", hint=hint, code=f"{kind.upper().replace(' ', '_')}_NOT_FOUND")


class Conflict(VideoAnnotatorError):
    code = "CONFLICT"


class Refused(VideoAnnotatorError):
    code = "REFUSED"


class InvalidConfig(Refused):
    code = "INVALID_CONFIG"

    def __init__(self, problems: tuple[FieldProblem, ...]) -> None:
        first, *rest = problems
        more = f" ({len(rest)} more)" if rest else ""
        super().__init__(f"{first.message}{more}", hint=first.hint, code=first.code, field=first.field)
        self.problems = problems


class UnreadableVideo(Refused):
    code = "UNREADABLE_VIDEO"


class Forbidden(VideoAnnotatorError):
    code = "FORBIDDEN"


class TooManyRequests(VideoAnnotatorError):
    code = "TOO_MANY_REQUESTS"

    def __init__(self, message: str, *, hint: str, retry_after_seconds: int) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_seconds = retry_after_seconds


class StorageTrouble(VideoAnnotatorError):
    code = "STORAGE_TROUBLE"


class Unreachable(VideoAnnotatorError):
    code = "FETCH_FAILED"


class Undelivered(VideoAnnotatorError):
    code = "OUTPUT_NOT_WRITABLE"


class LeaseLost(VideoAnnotatorError):
    code = "LEASE_LOST"


class StageEnded(VideoAnnotatorError):
    code = "STAGE_ENDED"
    retryable = False


class StageFailed(StageEnded):
    code = "STAGE_FAILED"

    def __init__(self, message: str, *, code: str | None = None, hint: str = "", retryable: bool = False) -> None:
        super().__init__(message, code=code, hint=hint)
        self.retryable = retryable


class StageDied(StageEnded):
    code = "STAGE_DIED"
    retryable = True


class StageTooSlow(StageEnded):
    code = "STAGE_TOO_SLOW"


class StageStalled(StageTooSlow):
    code = "STAGE_STALLED"


class StageTooLarge(StageEnded):
    code = "STAGE_OUT_OF_MEMORY"


class StageBroke(StageEnded):
    code = "STAGE_BROKE_PROTOCOL"


class ErrorKind(StrEnum):
    """What ended a stage, told by whether another attempt may help."""

    PERMANENT = "permanent"  #: bad input, bad configuration, a bug: the same again would end the same
    TEMPORARY = "temporary"  #: disk, network, driver: it may have passed when the stage is tried again
    OUT_OF_MEMORY = "out_of_memory"  #: tried once more, with half the batch where there is a batch
    CRASH = "crash"  #: it died, hung or spoke nonsense: an accident, or a poisonous video


_KINDS = {
    "STORAGE_FULL": ErrorKind.TEMPORARY,
    "STORAGE_NOT_WRITABLE": ErrorKind.TEMPORARY,
    "SCRATCH_NOT_WRITABLE": ErrorKind.TEMPORARY,
    "LOG_NOT_WRITABLE": ErrorKind.TEMPORARY,
    "GPU_FAILED": ErrorKind.TEMPORARY,
    "FILE_NOT_READ": ErrorKind.TEMPORARY,
    "STAGE_OUT_OF_MEMORY": ErrorKind.OUT_OF_MEMORY,
    "STAGE_DIED": ErrorKind.CRASH,
    "STAGE_STALLED": ErrorKind.CRASH,
    "STAGE_BROKE_PROTOCOL": ErrorKind.CRASH,
}


def kind_of(error: VideoAnnotatorError) -> ErrorKind:
    """By its code; any other is temporary where the pipeline said that another attempt may help, else permanent."""
    if (kind := _KINDS.get(error.code)) is not None:
        return kind
    retryable = isinstance(error, StageEnded) and error.retryable
    return ErrorKind.TEMPORARY if retryable else ErrorKind.PERMANENT
