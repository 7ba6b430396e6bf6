"""The document: what the routes say of themselves and what was written about them, as one OpenAPI 3.1 object."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from litestar.handlers import BaseRouteHandler

from videoannotator import __version__
from videoannotator.server.openapi.curl import curl
from videoannotator.server.openapi.routes import Route, Value, routes_of
from videoannotator.server.openapi.shapes import Schema, reference, schemas_of
from videoannotator.server.openapi.spoken import Answer, Codes, Operation, Page, Parameter, pages, shared
from videoannotator.server.problems import MEDIA_TYPE, Problem

_METHODS = ("get", "head", "post", "put", "patch", "delete", "options", "websocket")
_TITLES = {200: "As asked.", 201: "Made.", 202: "Accepted.", 204: "Done; there is nothing to say."}
_TYPES: dict[str, Schema] = {
    "text": {"type": "string"},
    "binary": {"contentMediaType": "application/octet-stream"},
}
_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer va_...`"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key."},
    "token": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "For EventSource and <video>, which cannot send headers: a key, or better a ticket.",
    },
}


def compose(handlers: Iterable[BaseRouteHandler]) -> dict[str, Any]:
    """The document of a server with these routes. The same routes give the same document, on every machine."""
    routes = sorted(routes_of(handlers), key=lambda route: (route.path, _METHODS.index(route.method)))
    written = pages()
    said = {name: (page, operation) for page in written for name, operation in page.operations.items()}
    types = _Types(route for route in routes if route.handler in said)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if route.handler in said:
            page, operation = said[route.handler]
            method = "get" if route.method == "websocket" else route.method
            paths.setdefault(route.path, {})[method] = _operation(route, operation, page, types)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": shared().title,
            "version": __version__,
            "description": shared().description.strip(),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "This server."}],
        "tags": [{"name": page.tag, "description": page.description} for page in written],
        "paths": paths,
        "components": {"schemas": types.components(written), "securitySchemes": _SECURITY},
    }


def undescribed(handlers: Iterable[BaseRouteHandler]) -> list[str]:
    """Handlers that no file of this folder speaks of, and names in those files that no handler has."""
    known = {route.handler for route in routes_of(handlers)}
    said = {name for page in pages() for name in page.operations}
    return sorted(known ^ said)


def all_codes() -> set[str]:
    """Every code that an answer or a job may carry, as far as the files say."""
    common = shared()
    tables = [common.always, common.with_key, common.by_token, common.limited, common.changing]
    tables += [common.with_json, common.with_values]
    tables += [*common.groups.values(), *(o.errors for page in pages() for o in page.operations.values())]
    return {code for table in tables for codes in table.values() for code in codes} | {*common.in_jobs}


class _Types:
    """Every type that the routes speak of, made into schemas at once, so that each has one name."""

    def __init__(self, routes: Iterable[Route]) -> None:
        types = [Problem]
        for route in routes:
            types += [kind for kind in (route.body, route.answer) if kind not in (None, Any, type(None))]
        structs = _structs()
        self._schemas, self._components = schemas_of([*types, *(structs[name] for name in _named() if name in structs)])

    def of(self, kind: Any) -> Schema:
        """Of a Python type, or of what a file calls one: `binary`, `text`, a Struct's name, or a schema."""
        if isinstance(kind, dict):
            return kind
        if not isinstance(kind, str):
            return self._schemas[kind]
        return _TYPES.get(kind) or reference(kind)

    def components(self, written: Iterable[Page]) -> dict[str, Schema]:
        found = dict(self._components)
        for page in written:
            found |= page.schemas
        return dict(sorted(found.items()))


def _named() -> Iterator[str]:
    """Every type that the files name."""
    for page in pages():
        for operation in page.operations.values():
            for content in (operation.body, *(answer.content for answer in operation.answers.values())):
                yield from (kind for kind in content.values() if isinstance(kind, str) and kind not in _TYPES)


def _structs() -> dict[str, Any]:
    """Every Struct that a module of the server names."""
    modules = [module for name, module in sorted(sys.modules.items()) if name.startswith("videoannotator.server.")]
    return {
        name: kind
        for module in modules
        for name, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    }


def _operation(route: Route, said: Operation, page: Page, types: _Types) -> dict[str, Any]:
    parameters = [_parameter(value, said) for value in (*route.values, *map(_header, said.headers))]
    body = _body(route, said, types)
    made: dict[str, Any] = {
        "operationId": route.operation_id,
        "tags": [page.tag],
        "summary": said.summary,
        "description": _description(route),
        "parameters": parameters,
        "security": _security(route),
        "x-scope": route.scope or "open",
        "responses": _answers(route, said, page, types) | _refusals(route, said),
        "x-codeSamples": [{"lang": "Shell", "label": "curl", "source": curl(route, parameters, body, said.parameters)}],
    }
    if body:
        made["requestBody"] = body
    return made | said.extra


def _description(route: Route) -> str:
    who = "Open to everybody." if route.scope is None else f"Needs a key with the scope `{route.scope}`."
    return f"{route.docstring}\n\n{who}".strip()


def _security(route: Route) -> list[dict[str, list[str]]]:
    if route.scope is None:
        return []
    return [{name: []} for name in ("bearer", "key", *(("token",) if route.by_token else ()))]


def _parameter(value: Value, said: Operation) -> dict[str, Any]:
    usual = shared().parameters.get(value.name, Parameter("", value.name))
    return {
        "name": value.name,
        "in": value.where,
        "required": value.required,
        "description": usual.description,
        "schema": value.schema,
        "example": said.parameters.get(value.name, usual.example),
    }


def _header(name: str) -> Value:
    """One that the handler reads itself."""
    usual = shared().parameters[name]
    return Value(name=name, where="header", required=usual.required, schema=usual.schema)


def _body(route: Route, said: Operation, types: _Types) -> dict[str, Any]:
    content = said.body or ({} if route.body is None else {"application/json": route.body})
    if not content or route.method in ("get", "head"):
        return {}
    described = {media: {"schema": types.of(kind)} for media, kind in content.items()}
    if said.send is not msgspec.UNSET:
        examples = said.send if len(content) > 1 else {next(iter(content)): said.send}
        for media, example in examples.items():
            described[media]["example"] = example
    optional = type(None) in getattr(route.body, "__args__", ())
    return {"required": not optional, "content": described}


def _answers(route: Route, said: Operation, page: Page, types: _Types) -> dict[str, Any]:
    answers = dict(said.answers)
    if not any(status < 400 for status in answers):
        content = {} if route.answer in (type(None), Any) else {"application/json": route.answer}
        answers[route.status] = Answer(description=_TITLES.get(route.status, "As asked."), content=content)
    usual = said.example
    examples = {s: usual if a.example is msgspec.UNSET and s < 300 else a.example for s, a in answers.items()}
    return {str(s): _answer(a, route, types, _shown(examples[s], page)) for s, a in sorted(answers.items())}


def _answer(answer: Answer, route: Route, types: _Types, example: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"description": answer.description, "headers": _headers(answer.headers)}
    if answer.content and route.method != "head":
        made["content"] = {media: {"schema": types.of(kind)} for media, kind in answer.content.items()}
        if example is not msgspec.UNSET:
            made["content"][next(iter(answer.content))]["example"] = example
    return made


def _shown(example: Any, page: Page) -> Any:
    """`$name`, wherever it stands in an example, is the shared one of that name."""
    match example:
        case str() if example.startswith("$"):
            return _shown(_example(example[1:]), page)
        case dict():
            return {name: _shown(value, page) for name, value in example.items()}
        case list():
            return [_shown(value, page) for value in example]
        case _:
            return example


def _example(name: str) -> Any:
    return next(page.examples[name] for page in pages() if name in page.examples)


def _headers(told: dict[str, str]) -> dict[str, Any]:
    named = {"X-Request-ID": shared().headers["X-Request-ID"]} | told
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in named.items()}


def _refusals(route: Route, said: Operation) -> dict[str, Any]:
    found: dict[int, list[str]] = {}
    for table in _tables(route, said):
        for status, codes in table.items():
            found.setdefault(status, []).extend(code for code in codes if code not in found.get(status, ()))
    return {str(status): _refusal(status, codes, route) for status, codes in sorted(found.items())}


def _tables(route: Route, said: Operation) -> Iterator[Codes]:
    common = shared()
    yield common.always
    if route.scope is not None:
        yield common.with_key
    if route.by_token:
        yield common.by_token
    if route.limited:
        yield common.limited
    if route.method not in ("get", "head"):
        yield common.changing
    if route.body is not None:
        yield common.with_json
    if any(value.where != "path" for value in route.values):
        yield common.with_values
    for group in said.also:
        yield common.groups[group]
    yield said.errors


def _refusal(status: int, codes: list[str], route: Route) -> dict[str, Any]:
    told = {name: text for name, text in shared().headers.items() if _goes_with(name, status)}
    made: dict[str, Any] = {"description": ", ".join(f"`{code}`" for code in codes), "headers": _headers(told)}
    if route.method == "head":
        return made
    narrowed = {"properties": {"status": {"const": status}, "error": {"properties": {"code": {"enum": codes}}}}}
    made["content"] = {MEDIA_TYPE: {"schema": {"allOf": [reference("Problem"), narrowed]}}}
    return made


def _goes_with(header: str, status: int) -> bool:
    return (header, status) in (("WWW-Authenticate", 401), ("Retry-After", 429), ("Retry-After", 503))
