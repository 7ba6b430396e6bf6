"""
What reading costs with 10,000 jobs in the database: the list, one job, a validation.

A route of a bare Litestar on the same uvicorn is measured in between: machines differ and are shared, the ratio is not.
"""

import asyncio
import json
import multiprocessing
import socket

from filled import fill
from load import hammer, http_request
from rig import KEY, Server, say, workplace

from videoannotator.server.listen import Listener

JOBS = 10_000
SECONDS = 5.0


def main() -> None:
    with workplace() as folder, _bare() as bare:
        storage = folder / "storage"
        say(f"making {JOBS} jobs", fill(storage, JOBS), "s")
        server = Server(storage)
        some = server.http.get("/api/v1/jobs?page=500").json()["jobs"][0]["id"]
        page, job = (
            http_request("GET", "/api/v1/jobs?per_page=10", KEY),
            http_request("GET", f"/api/v1/jobs/{some}", KEY),
        )
        plain = http_request("GET", "/bare", KEY)
        hammer(server.url, page, clients=16, seconds=1)  # warm
        one = hammer(server.url, page, clients=1, seconds=SECONDS)
        _say("GET /jobs, p95 with one client", one["p95"], "ms", asked=10, of=one)
        for name, request, asked in (("GET /jobs", page, 500), ("GET /jobs/{id}", job, 1000)):
            before = _rate(hammer(bare, plain, clients=16, seconds=2))
            many = hammer(server.url, request, clients=16, seconds=SECONDS)
            rate, beside = _rate(many), (before + _rate(hammer(bare, plain, clients=16, seconds=2))) / 2
            _say(f"{name}, 16 clients", rate, "requests/s", asked=asked, at_least=True, of=many)
            say(f"{name}, share of what a bare Litestar route does", rate / beside, "", bare=round(beside))
        body = json.dumps({"config": {"scene_detection": {"adaptive_threshold": 900, "nope": 1}}}).encode()
        checked = hammer(
            server.url, http_request("POST", "/api/v1/config/validate", KEY, body), clients=1, seconds=SECONDS
        )
        _say("validation, p95 with one client", checked["p95"], "ms", asked=5, of=checked)
        server.stop()


def _rate(found: dict[str, float]) -> float:
    return found["requests"] / found["seconds"]


def _say(figure: str, value: float, unit: str, *, asked: float, of: dict[str, float], at_least: bool = False) -> None:
    assert not of["wrong"], f"{of['wrong']} answers were no success"
    say(figure, value, unit, asked=asked, at_least=at_least, p50=of["p50"], p99=of["p99"], requests=of["requests"])


class _bare:  # noqa: N801 (read as a function)
    """A Litestar with one route that answers a small object, in a process of its own; its address."""

    def __enter__(self) -> str:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(2048)
        self._process = multiprocessing.get_context("fork").Process(
            target=_serve_bare, args=(self._socket,), daemon=True
        )
        self._process.start()
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()
        self._socket.close()


def _serve_bare(sock: socket.socket) -> None:
    from litestar import Litestar, get

    @get("/bare")
    async def bare() -> dict[str, str]:
        return {"status": "healthy"}

    asyncio.run(Listener(Litestar([bare], openapi_config=None, logging_config=None)).run_on(sock))


if __name__ == "__main__":
    main()
