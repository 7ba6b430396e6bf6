"""The calls that a page of documentation lists in its tables, and those that the server has."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from litestar.handlers import BaseRouteHandler

from videoannotator.server.openapi.routes import routes_of

Call = tuple[str, str]
"""Method and path, its parameters all written `{}`."""

_METHOD = r"GET|HEAD|POST|PUT|PATCH|DELETE"
_WORD = re.compile(rf"\b({_METHOD})\b|`([^`]+)`")


def listed_in(page: Path) -> dict[Call, str]:
    """Each call in the tables of a page, with the scope that its row gives ('' where there is no such column)."""
    calls: dict[Call, str] = {}
    columns: list[str] = []
    for line in page.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            columns = []
        elif not columns:
            columns = cells
        elif columns[0] == "call" and not set(cells[0]) <= set("-"):
            scope = cells[1] if columns[1] == "scope" else ""
            calls |= dict.fromkeys(_calls(cells[0]), scope)
    return calls


def spoken_of_in(page: Path) -> set[Call]:
    """Calls in running text: `POST /jobs`, also "`POST //analyze` and `/analyze`"."""
    found: set[Call] = set()
    for method, path, other in re.findall(rf"`({_METHOD}) (/[^\s`]+)[^`]*`(?: and `(/[^\s`]+)`)?", page.read_text()):
        found |= {(method, _path(path)), *([(method, _path(other))] if other else [])}
    found |= {(method, _path(path)) for method, path in re.findall(rf"and `({_METHOD}) (/[^\s`]+)", page.read_text())}
    return found


def served(handlers: Iterable[BaseRouteHandler]) -> dict[Call, str]:
    """What the server has, with the scope. HEAD beside GET and OPTIONS go without saying; a websocket begins as GET."""
    there = list(routes_of(handlers))
    read = {route.path for route in there if route.method == "get"}
    routes = [r for r in there if r.method != "options" and not (r.method == "head" and r.path in read)]
    method = {"websocket": "GET"}
    return {
        (method.get(route.method, route.method.upper()), re.sub(r"\{\w+\}", "{}", route.path)): route.scope or "open"
        for route in routes
    }


def _calls(cell: str) -> Iterator[Call]:
    """`GET, PUT \\`/x/{id}\\`; POST \\`/x/{id}/a\\`, \\`/b\\`` is four calls, the last one on /x/{id}/b."""
    methods: list[str] = []
    before = ""
    for method, code in _WORD.findall(cell):
        if method:
            methods = [method] if before else [*methods, method]
            before = ""
        elif code.startswith("/"):
            path = _path(code)
            if "{}" in before and path.startswith("/api/v1/") and path.count("/") == 3 and code.count("/") == 1:
                path = before.rsplit("/", 1)[0] + code
            yield from ((method, path) for method in methods)
            before = path


def _path(code: str) -> str:
    """As the server has it: `//x` stands at the root, all others under /api/v1."""
    bare = re.sub(r"\{\w+\}", "{}", code.split("?", maxsplit=1)[0])
    if bare == "//":
        return "/"
    return bare[1:].replace("\u2026", "{}") if bare.startswith("//") else f"/api/v1{bare}"
