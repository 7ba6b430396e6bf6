"""What the route handlers themselves say: paths, methods, parameters, bodies, answers."""

import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from litestar import Response
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.params import BodyKwarg, HeaderParameter, PathParameter, QueryParameter

from videoannotator.server.openapi.shapes import Schema, schema_of_value

_LIMITS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "min_length": "minLength",
    "max_length": "maxLength",
    "pattern": "pattern",
}


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter of a route."""

    name: str
    where: Literal["path", "query", "header"]
    required: bool
    schema: Schema


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One method at one path."""

    path: str
    """As OpenAPI writes it: `/api/v1/jobs/{job_id}`."""

    method: str
    """In small letters; `websocket` for one."""

    handler: str
    """The function's name."""

    operation_id: str
    docstring: str
    scope: str | None
    by_token: bool
    limited: bool
    status: int
    values: tuple[Value, ...]
    body: Any
    """The type of a JSON body, or None."""

    answer: Any
    """The type of what is answered as JSON; `type(None)` for nothing, Any where the annotation does not say."""


def routes_of(handlers: Iterable[BaseRouteHandler]) -> Iterator[Route]:
    """One for every method at every path, ordered by path within each handler."""
    for handler in handlers:
        hints = get_type_hints(handler.fn, include_extras=True)
        for number, path in enumerate(sorted(handler.paths, key=lambda path: (-path.startswith("/api"), path))):
            for method in _methods(handler):
                yield _route(handler, hints, path, method, number)


def _route(handler: BaseRouteHandler, hints: dict[str, Any], path: str, method: str, number: int) -> Route:
    name = handler.fn.__name__
    return Route(
        path=re.sub(r"\{(\w+):\w+\}", r"{\1}", path),
        method=method,
        handler=name,
        operation_id="_".join((name, *([str(number + 1)] if number else ()), *(["head"] if method == "head" else ()))),
        docstring=inspect.cleandoc(handler.fn.__doc__ or ""),
        scope=handler.opt.get("scope", "admin"),
        by_token=bool(handler.opt.get("token")),
        limited="limit" in handler.opt,
        status=handler.status_code if isinstance(handler, HTTPRouteHandler) else 101,
        values=tuple(_values(handler, hints, path)),
        body=next((get_args(hint)[0] for hint in hints.values() if _kind(hint) is BodyKwarg), None),
        answer=_answered(hints.get("return", Any)),
    )


def _methods(handler: BaseRouteHandler) -> list[str]:
    if isinstance(handler, HTTPRouteHandler):
        return sorted(str(method).lower() for method in handler.http_methods)
    return ["websocket"] if type(handler).__name__ == "WebsocketRouteHandler" else ["get"]


def _values(handler: BaseRouteHandler, hints: dict[str, Any], path: str) -> Iterator[Value]:
    defaults = {name: known.default for name, known in inspect.signature(handler.fn).parameters.items()}
    for name, hint in hints.items():
        kind = _kind(hint)
        if kind is PathParameter and f"{{{name}:" in path:
            yield Value(name=name, where="path", required=True, schema=schema_of_value(get_args(hint)[0]))
        elif kind in (QueryParameter, HeaderParameter):
            annotation, marker = get_args(hint)[:2]
            default = defaults[name]
            schema = schema_of_value(annotation) | _limits(marker)
            if default not in (inspect.Parameter.empty, None):
                schema["default"] = default
            yield Value(
                name=marker.name or marker.query or marker.header or name,
                where="query" if kind is QueryParameter else "header",
                required=default is inspect.Parameter.empty,
                schema=schema,
            )


def _kind(hint: Any) -> type | None:
    markers = getattr(hint, "__metadata__", ())
    return type(markers[0]) if markers else None


def _limits(marker: Any) -> Schema:
    return {told: value for name, told in _LIMITS.items() if (value := getattr(marker, name)) is not None}


def _answered(annotation: Any) -> Any:
    if get_origin(annotation) is Response:
        (annotation,) = get_args(annotation)
    if annotation is None:
        return type(None)
    described = isinstance(annotation, type) and issubclass(annotation, msgspec.Struct)
    return annotation if described or annotation is type(None) or get_origin(annotation) in (dict, tuple) else Any
