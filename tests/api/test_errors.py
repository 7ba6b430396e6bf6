"""Every refusal in the one form of API.md, whatever refused."""

import re
from typing import Any

import pytest
import structlog

from tests.server import ADMIN, Served, answer_to
from videoannotator.server.listen import Listener, bind, url_of
from videoannotator.settings import Settings

KEY = {"authorization": f"Bearer {ADMIN}"}
JSON = KEY | {"content-type": "application/json"}
VALIDATE = "/api/v1/config/validate"

CASES: list[tuple[str, str, dict[str, str], bytes, int, str]] = [
    ("GET", "/nothing/here", {}, b"", 404, "PATH_NOT_FOUND"),
    ("GET", "/api/v1/jobs/..%2f..%2fetc%2fpasswd", KEY, b"", 404, "PATH_NOT_FOUND"),
    ("GET", "/api/v1/jobs/%2e%2e", KEY, b"", 404, "JOB_NOT_FOUND"),
    ("GET", "/api/v1/jobs/job_x", KEY, b"", 404, "JOB_NOT_FOUND"),
    ("GET", "/api/v1/jobs/job_x/artifacts", KEY, b"", 404, "JOB_NOT_FOUND"),
    ("GET", "/api/v1/pipelines/nope", {}, b"", 404, "PIPELINE_NOT_FOUND"),
    ("GET", "/api/v1/presets/nope", KEY, b"", 404, "PRESET_NOT_FOUND"),
    ("GET", "/api/v1/datasets/nope", KEY, b"", 404, "DATASET_NOT_FOUND"),
    ("GET", "/api/v1/events/stream?job_id=nope", KEY, b"", 404, "JOB_NOT_FOUND"),
    ("PUT", "/api/v1/jobs", KEY, b"", 405, "METHOD_NOT_ALLOWED"),
    ("POST", VALIDATE, JSON, b"{", 400, "MALFORMED_JSON"),
    ("POST", VALIDATE, JSON, b'{"config": NaN}', 400, "MALFORMED_JSON"),
    ("POST", VALIDATE, JSON, b'{"config": {"behaves": {"steps": 9223372036854775808}}}', 400, "MALFORMED_JSON"),
    ("POST", VALIDATE, JSON, b'{"config": {"behaves": {"steps": 1%s}}}' % (b"0" * 500), 400, "MALFORMED_JSON"),
    ("POST", VALIDATE, JSON, b"[" * 100_000, 400, "MALFORMED_JSON"),
    ("POST", VALIDATE, JSON, b"[" * 500 + b"]" * 500, 400, "MALFORMED_JSON"),
    ("POST", VALIDATE, JSON, b'"\xff\xfe"', 400, "MALFORMED_JSON"),
    ("POST", VALIDATE, JSON, b'{"config": {"a": "\\ud800"}}', 400, "MALFORMED_JSON"),
    ("POST", VALIDATE, JSON, b'{"config": "' + b"x" * 2_000_000 + b'"}', 413, "BODY_TOO_LARGE"),
    ("POST", VALIDATE, JSON, b'"text"', 422, "WRONG_TYPE"),
    ("POST", VALIDATE, JSON, b"", 422, "WRONG_TYPE"),
    ("POST", VALIDATE, JSON, b'{"config": {}, "reason": 1}', 422, "UNKNOWN_FIELD"),
    ("POST", "/api/v1/jobs/job_x/retry", JSON, b'{"from_scratch": 0}', 422, "INVALID_VALUE"),
    ("POST", "/api/v1/jobs/job_x/retry", JSON, b'{"from_scratch": "true"}', 422, "INVALID_VALUE"),
    ("POST", VALIDATE, KEY | {"content-type": "text/plain"}, b'{"config": {}}', 415, "UNSUPPORTED_MEDIA_TYPE"),
    ("POST", "/api/v1/jobs", KEY | {"content-type": "text/xml"}, b"<a/>", 415, "UNSUPPORTED_MEDIA_TYPE"),
    ("POST", "/api/v1/jobs", JSON, b"[" * 100_000, 400, "MALFORMED_JSON"),
    ("POST", "/api/v1/jobs", JSON, b'"' + b"x" * 2_000_000 + b'"', 413, "BODY_TOO_LARGE"),
    ("POST", "/api/v1/jobs", JSON, b'{"video_url": "http://169.254.169.254/"}', 422, "URL_NOT_ALLOWED"),
    ("POST", "/api/v1/jobs", JSON, b'{"dataset_id": "x", "path": "y", "video": "z"}', 422, "UNKNOWN_FIELD"),
    ("GET", "/api/v1/jobs?per_page=0", KEY, b"", 422, "INVALID_VALUE"),
    ("GET", "/api/v1/jobs?per_page=101", KEY, b"", 422, "INVALID_VALUE"),
    ("GET", "/api/v1/jobs?page=99999999999999999999", KEY, b"", 422, "INVALID_VALUE"),
    ("GET", "/api/v1/jobs?page=nan", KEY, b"", 422, "INVALID_VALUE"),
    ("GET", "/api/v1/jobs?status=queued", KEY, b"", 422, "INVALID_VALUE"),
    ("GET", "/api/v1/jobs?created_after=2026-01-01T00:00:00", KEY, b"", 422, "INVALID_VALUE"),
    ("GET", "/api/v1/jobs?sort=;drop", KEY, b"", 422, "INVALID_VALUE"),
]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("method", "path", "headers", "body", "status", "code"), CASES)
async def test_every_refusal_has_the_one_form(
    shared: Served, method: str, path: str, headers: dict[str, str], body: bytes, status: int, code: str
) -> None:
    """A client needs one reader of errors, and people a sentence that they can act on."""
    async with shared.client() as caller:
        answer = await caller.request(method, path, headers=headers, content=body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert_has_the_form(answer.json(), status, answer.headers["x-request-id"])
    assert answer.headers["content-type"] == "application/problem+json"


async def test_the_health_is_untouched_by_all_of_them(server: Served) -> None:
    """One caller's nonsense is no other caller's trouble."""
    async with server.client() as caller:
        for method, path, headers, body, *_ in CASES:
            await caller.request(method, path, headers=headers, content=body)

        assert (await caller.get("/api/v1/system/health")).json()["status"] == "healthy"


async def test_all_that_is_wrong_is_said_at_once(server: Served) -> None:
    """Whoever corrects one error to learn of the next gives up at the third."""
    config = {"scene_detection": {"nope": 1, "engine": "x"}, "behaves": {"steps": "three"}, "unknown": {}}

    answer = await server.http.put("/api/v1/presets/mine", json={"pipelines": config})
    shape = await server.http.put("/api/v1/presets/mine", json={"pipelines": 1, "version": 2, "colour": "red"})

    fields = {problem["field"] for problem in answer.json()["errors"]}
    assert answer.status_code == 422
    assert fields >= {"scene_detection.nope", "scene_detection.engine", "behaves.steps", "selected_pipelines"}
    assert {problem["field"] for problem in shape.json()["errors"]} == {"pipelines", "version", "colour"}


async def test_all_that_is_wrong_with_a_query_is_said_at_once(server: Served) -> None:
    """And what could stand there instead."""
    answer = await server.http.get("/api/v1/jobs?page=0&per_page=1000&status=queued&sort=size&created_after=soon")
    zones = await server.http.get(
        "/api/v1/jobs?created_after=2026-01-01T00:00:00&created_before=2026-02-01T00:00:00&page=1"
    )

    problems = {problem["field"]: problem for problem in answer.json()["errors"]}
    assert problems.keys() == {"page", "per_page", "status", "sort", "created_after"}
    assert "pending" in problems["status"]["allowed"]
    assert problems["sort"]["allowed"] == ["-created_at", "created_at"]
    assert [problem["field"] for problem in zones.json()["errors"]] == ["created_after", "created_before"]


async def test_a_wrong_method_is_told_the_right_ones(server: Served) -> None:
    """RFC 9110 asks for Allow."""
    answer = await server.http.put("/api/v1/jobs")

    assert {"GET", "POST"} <= set(answer.headers["allow"].split(", "))


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"NONSENSE\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_refused_in_the_same_form(server: Served, request_bytes: bytes) -> None:
    """Also below the routes; and headers end somewhere."""
    status, answer = await answer_to(server.url, request_bytes)

    assert status == 400
    assert b"application/problem+json" in answer
    assert b'"code":"MALFORMED_REQUEST"' in answer
    assert (await server.http.get("/health")).status_code == 200


async def test_a_request_id_is_made_or_taken_and_never_reflects_nonsense(server: Served) -> None:
    """It joins the caller's log with ours; a line break in it would forge a header."""
    made = await server.http.get("/health")
    taken = await server.http.get("/health", headers={"x-request-id": "study-7.run_3"})
    refused = await server.http.get("/health", headers={"x-request-id": "<script>alert(1)</script>"})

    assert re.fullmatch(r"req_[0-9A-Z]{26}", made.headers["x-request-id"])
    assert taken.headers["x-request-id"] == "study-7.run_3"
    assert refused.headers["x-request-id"].startswith("req_")


async def test_a_bug_of_ours_tells_nothing_of_the_inside(server: Served) -> None:
    """A traceback in an answer is a map for whoever looks for a way in; our log has it."""
    import asyncio

    from videoannotator.server.front import Front, Neighbours

    async def broken(*_: Any) -> None:
        raise RuntimeError("secret /etc/passwd path")

    settings = Settings(port=0)
    with structlog.testing.capture_logs() as logged, bind(settings) as sock:
        front = Front(broken, neighbours=Neighbours(settings, 1), closing=asyncio.Event())
        listener = Listener(front)
        running = asyncio.create_task(listener.run_on(sock))
        await listener.ready.wait()
        async with server.client() as caller:
            answer = await caller.get(f"{url_of(sock)}/health")
        listener.should_exit = True
        await running

    assert answer.status_code == 500
    assert_has_the_form(answer.json(), 500, answer.headers["x-request-id"])
    assert "secret" not in answer.text
    assert "RuntimeError" not in answer.text
    assert any(line["log_level"] == "error" and line.get("exc_info") for line in logged)


def assert_has_the_form(said: dict[str, Any], status: int, request_id: str) -> None:
    error = said["error"]
    assert said["type"] == f"urn:videoannotator:error:{error['code'].lower().replace('_', '-')}"
    assert said["title"]
    assert said["status"] == status
    assert said["detail"] == " ".join(part for part in (error["message"], error["hint"]) if part)
    assert set(error) == {"code", "message", "hint", "field", "detail", "timestamp", "request_id"}
    assert error["request_id"] == request_id
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", error["timestamp"])
