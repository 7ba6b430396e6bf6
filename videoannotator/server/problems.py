"""Every error as `application/problem+json` (RFC 9457), in the one form that API.md shows, wherever it was raised."""

import traceback
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, get_args

import msgspec
from litestar import Request, Response
from litestar.exceptions import (
    HTTPException,
    ImproperlyConfiguredException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)
from litestar.types import Scope

from videoannotator.errors import (
    Conflict,
    FieldProblem,
    Forbidden,
    InvalidConfig,
    NotFound,
    Refused,
    StorageTrouble,
    TooManyRequests,
    VideoAnnotatorError,
)
from videoannotator.logs import get_logger, redacted
from videoannotator.server.decoding import choices, problems_of

MEDIA_TYPE = "application/problem+json"

_BY_KIND: tuple[tuple[type[VideoAnnotatorError], int], ...] = (
    (NotFound, 404),
    (Conflict, 409),
    (Refused, 422),
    (Forbidden, 403),
    (TooManyRequests, 429),
    (StorageTrouble, 503),
)

_BY_CODE = {
    "MALFORMED_REQUEST": 400,
    "MALFORMED_JSON": 400,
    "MALFORMED_MULTIPART": 400,
    "HOST_NOT_ALLOWED": 400,
    "CLIENT_LEFT": 400,
    "KEY_MISSING": 401,
    "KEY_MALFORMED": 401,
    "KEY_UNKNOWN": 401,
    "KEY_EXPIRED": 401,
    "KEY_REVOKED": 401,
    "TICKET_INVALID": 401,
    "TICKET_EXPIRED": 401,
    "METHOD_NOT_ALLOWED": 405,
    "UPLOAD_STALLED": 408,
    "TUS_VERSION_NOT_SUPPORTED": 412,
    "UPLOAD_TOO_LONG": 413,
    "UPLOAD_BUSY": 423,
    "BODY_TOO_LARGE": 413,
    "VIDEO_TOO_LARGE": 413,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "RANGE_NOT_SATISFIABLE": 416,
    "SHUTTING_DOWN": 503,
}

_MOST_PROBLEMS = 100
_LONGEST_SENTENCE = 2000

_RETRY_AFTER_SECONDS = {"SHUTTING_DOWN": 5, "STORAGE_FULL": 60}

log = get_logger(__name__)


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """`error` of a problem: the same again for programs, with what they need to tell one failure from another."""

    code: str
    message: str
    hint: str | None
    field: str | None
    detail: str | None
    timestamp: datetime
    request_id: str | None


class Problem(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    type: str
    title: str
    status: int
    detail: str
    error: Envelope
    errors: tuple[FieldProblem, ...] = ()


def status_of(exc: VideoAnnotatorError) -> int:
    if exc.code in _BY_CODE:
        return _BY_CODE[exc.code]
    return next((status for kind, status in _BY_KIND if isinstance(exc, kind)), 500)


def answer(exc: Exception, scope: Scope) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body for whatever was raised while this request was served."""
    error = _understood(exc, scope)
    status = status_of(error)
    told = error if status != 500 else _bug(scope)
    if isinstance(told, StorageTrouble) and not _is_admin(scope):
        told = _without_paths(told)
    headers = {"content-type": MEDIA_TYPE, "cache-control": "no-store"} | _headers(exc, error)
    return status, headers, msgspec.json.encode(_problem(told, status, scope))


def problem(request: Request[Any, Any, Any], exc: Exception) -> Response[bytes]:
    """Litestar's exception handler for everything."""
    status, headers, body = answer(exc, request.scope)
    media_type = headers.pop("content-type")
    return Response(body, status_code=status, headers=headers, media_type=media_type)


async def note(exc: Exception, scope: Scope) -> None:
    """
    Litestar's hook for every exception: log what is not the caller's doing, and remember what a websocket that was
    never accepted has to be told (Litestar itself would only say 4500).
    """
    error = _understood(exc, scope)
    scope["state"]["refused"] = exc
    if status_of(error) == 500:
        log.error(
            "a bug of ours in one request", path=scope["path"], exception="".join(traceback.format_exception(exc))
        )
    elif isinstance(error, StorageTrouble):
        log.error("the storage cannot be used", code=error.code, reason=str(error))


def malformed(message: str, hint: str = "") -> Refused:
    return Refused(message, hint=hint, code="MALFORMED_REQUEST")


def _problem(error: VideoAnnotatorError, status: int, scope: Scope) -> Problem:
    return Problem(
        type=f"urn:videoannotator:error:{error.code.lower().replace('_', '-')}",
        title=error.code.replace("_", " ").capitalize(),
        status=status,
        detail=_short(redacted(str(error))),
        error=Envelope(
            code=error.code,
            message=_short(redacted(error.message)),
            hint=_short(redacted(error.hint)) or None,
            field=None if error.field is None else _short(error.field),
            detail=None,
            timestamp=datetime.now(UTC),
            request_id=scope["state"].get("request_id"),
        ),
        errors=tuple(map(_short_problem, error.problems[:_MOST_PROBLEMS])) if isinstance(error, InvalidConfig) else (),
    )


def _short_problem(problem: FieldProblem) -> FieldProblem:
    return FieldProblem(
        _short(problem.field), _short(problem.message), problem.code, _short(problem.hint), problem.allowed
    )


def _short(text: str) -> str:
    """What a caller sent stands in messages; a megabyte of it is not sent back, and least of all five times."""
    return text if len(text) <= _LONGEST_SENTENCE else f"{text[:_LONGEST_SENTENCE]}..."


def _headers(exc: Exception, error: VideoAnnotatorError) -> dict[str, str]:
    headers: dict[str, str] = {}
    if isinstance(exc, HTTPException) and exc.headers:  # Allow, of a method that a path does not have
        headers |= exc.headers
    status = status_of(error)
    if status == 401:
        name = "" if error.code == "KEY_MISSING" else f', error="invalid_token", error_description="{error.message}"'
        headers["www-authenticate"] = f'Bearer realm="videoannotator"{name}'
    if isinstance(error, TooManyRequests):
        headers["retry-after"] = str(error.retry_after_seconds)
    if status == 503:
        headers["retry-after"] = str(_RETRY_AFTER_SECONDS.get(error.code, 10))
    return headers


def _understood(exc: Exception, scope: Scope) -> VideoAnnotatorError:  # noqa: PLR0911 (a table)
    """What Litestar raises, in our words; what nobody raised on purpose has the code INTERNAL_ERROR."""
    match exc:
        case VideoAnnotatorError():
            return exc
        case NotFoundException():
            return NotFound(
                "There is nothing at this path.", hint="The API stands under /api/v1.", code="PATH_NOT_FOUND"
            )
        case MethodNotAllowedException():
            return Refused("This path does not answer to this method.", code="METHOD_NOT_ALLOWED")
        case HTTPException(status_code=413):
            return Refused("The request's body is too large.", code="BODY_TOO_LARGE")
        case ValidationException():
            return InvalidConfig(
                tuple(_problems_of_body(scope)) or tuple(_field_problem(entry, scope) for entry in _entries(exc))
            )
        case ImproperlyConfiguredException():
            return VideoAnnotatorError("", code="INTERNAL_ERROR")
        case HTTPException() if 400 <= exc.status_code < 500:
            return malformed(f"The request cannot be read: {exc.detail}.")
        case HTTPException() if exc.detail == "client disconnected prematurely":
            return Refused("The client left before its request was complete.", code="CLIENT_LEFT")
        case _:
            return VideoAnnotatorError(type(exc).__name__, code="INTERNAL_ERROR")


def _problems_of_body(scope: Scope) -> Iterable[FieldProblem]:
    """Litestar names the first thing that is wrong with a body; a caller wants all of them."""
    handler: Any = scope.get("route_handler")
    field = handler.parsed_data_field if handler is not None else None
    if field is None:
        return ()
    kinds = (field.annotation, *get_args(field.annotation))
    if "json" not in scope["state"] and type(None) in kinds:
        return ()
    struct = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, msgspec.Struct)), None)
    return problems_of(scope["state"].get("json"), struct) if struct is not None else ()


def _entries(exc: ValidationException) -> list[dict[str, Any]]:
    extra = exc.extra if isinstance(exc.extra, list) else []
    return [entry for entry in extra if isinstance(entry, dict)] or [{"key": "request", "message": exc.detail}]


def _field_problem(entry: dict[str, Any], scope: Scope) -> FieldProblem:
    key = str(entry.get("key", "")) or "request"
    handler: Any = scope.get("route_handler")
    known = handler.parsed_fn_signature.parameters if handler is not None else {}
    allowed = choices(known[key].annotation) if key in known else ()
    hint = f"Choose one of: {', '.join(allowed)}." if allowed else ""
    return FieldProblem(key, f"{key}: {entry.get('message', 'not valid')}.", "INVALID_VALUE", hint, allowed)


def _bug(scope: Scope) -> VideoAnnotatorError:
    hint = f"Report it with the request id {scope['state'].get('request_id')}; the server's log says more."
    return VideoAnnotatorError("The server failed on this request.", hint=hint, code="INTERNAL_ERROR")


def _without_paths(trouble: StorageTrouble) -> StorageTrouble:
    if trouble.code == "STORAGE_FULL":
        return StorageTrouble("The server's disk is full.", hint="Free some space, then try again.", code=trouble.code)
    return StorageTrouble("The server's storage cannot be used.", hint="Its log says why.", code=trouble.code)


def _is_admin(scope: Scope) -> bool:
    caller = scope["state"].get("caller")
    return caller is not None and caller.scope == "admin"
