"""A line for the terminal that does what an operation does."""

import json
import shlex
from collections.abc import Container
from typing import Any
from urllib.parse import quote, urlencode

from videoannotator.server.openapi.routes import Route

_ADDRESS = "http://127.0.0.1:18011"
_KEY = '-H "Authorization: Bearer $VIDEOANNOTATOR_KEY"'

_UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)


def curl(route: Route, parameters: list[dict[str, Any]], body: dict[str, Any], shown: Container[str]) -> str:
    """
    It works as it stands against a server at the usual address that has what the examples name. Of the optional
    parameters it has those that are `shown`.
    """
    pieces = ["curl", *_method(route)]
    if route.scope is not None:
        pieces.append(_KEY)
    headers = [f"{p['name']}: {p['example']}" for p in _given(parameters, "header", shown)]
    pieces += [f"-H {shlex.quote(header)}" for header in headers]
    pieces += _content(body)
    return " ".join([*pieces, shlex.quote(_url(route, parameters, shown))])


def _method(route: Route) -> list[str]:
    match route.method:
        case "head":
            return ["--head"]
        case "get":
            return ["-fsS", "-N"] if "stream" in route.path else ["-fsS"]
        case "websocket":
            return ["-N --http1.1", *(f"-H '{line}'" for line in _UPGRADE)]
        case method:
            return ["-fsS", f"-X {method.upper()}"]


def _content(body: dict[str, Any]) -> list[str]:
    for media, told in body.get("content", {}).items():
        if "example" not in told:
            continue
        if media == "multipart/form-data":
            return [f"-F {shlex.quote(f'{name}={value}')}" for name, value in told["example"].items()]
        if media == "application/json":
            return ["-H 'Content-Type: application/json'", f"-d {shlex.quote(json.dumps(told['example']))}"]
        return [f"-H 'Content-Type: {media}'", "--data-binary @clip.mp4"]
    return []


def _url(route: Route, parameters: list[dict[str, Any]], shown: Container[str]) -> str:
    path = route.path
    for parameter in _given(parameters, "path", shown):
        path = path.replace(f"{{{parameter['name']}}}", quote(str(parameter["example"])))
    query = urlencode({p["name"]: p["example"] for p in _given(parameters, "query", shown)})
    return f"{_ADDRESS}{path}{'?' if query else ''}{query}"


def _given(parameters: list[dict[str, Any]], where: str, shown: Container[str]) -> list[dict[str, Any]]:
    return [
        parameter
        for parameter in parameters
        if parameter["in"] == where and "example" in parameter and (parameter["required"] or parameter["name"] in shown)
    ]
