"""Every answer that a test of the API gets is held against the OpenAPI document, whatever the test is about."""

import json
import re
from functools import cache
from typing import Any

import httpx
import jsonschema_rs

from videoannotator.server.app import ROUTES
from videoannotator.server.openapi.document import compose

_NO_OPERATION = {"PATH_NOT_FOUND", "METHOD_NOT_ALLOWED", "HOST_NOT_ALLOWED", "ORIGIN_NOT_ALLOWED", "MALFORMED_REQUEST"}
"""Refusals of requests that reach no operation."""


async def as_described(response: httpx.Response) -> None:
    """
    A hook for httpx. AssertionError where status, type, code or shape is not what the document says: then the document
    is wrong (videoannotator/server/openapi/*.yaml) or the server.
    """
    media = response.headers.get("content-type", "").partition(";")[0]
    said: Any = None
    whole = response.status_code != 206 and response.request.method != "HEAD"
    if media in ("application/json", "application/problem+json") and whole:
        said = json.loads(await response.aread())
    if media == "application/problem+json" and said is not None and said["error"]["code"] in _NO_OPERATION:
        return
    operation = _operation(response.request.method.lower(), response.request.url.path)
    call = f"{response.request.method} {response.request.url.path} answered {response.status_code}"
    if operation is None:
        return
    described = operation["responses"].get(str(response.status_code))
    assert described is not None, f"{call}, which is not described: {said}"
    content = described.get("content", {})
    if said is None or "*/*" in content or not content:
        return
    assert media in content, f"{call} with {media}, which is not described"
    errors = [error.message for error in _validator(json.dumps(content[media]["schema"])).iter_errors(said)]
    assert not errors, f"{call}, and it is not as described: {errors}"


def _operation(method: str, path: str) -> dict[str, Any] | None:
    path = path.rstrip("/") or "/"
    for pattern, methods in _paths():
        if pattern.fullmatch(path) and method in methods:
            operation: dict[str, Any] = methods[method]
            return operation
    return None


@cache
def _document() -> dict[str, Any]:
    return compose(ROUTES)


@cache
def _paths() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    """Those without parameters first."""
    paths = sorted(_document()["paths"].items(), key=lambda item: item[0].count("{"))
    return [(re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))), methods) for path, methods in paths]


@cache
def _validator(schema: str) -> Any:
    return jsonschema_rs.Draft202012Validator({"components": _document()["components"]} | json.loads(schema))
