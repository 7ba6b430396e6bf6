"""What every answer carries, and what every line of the log says."""

import json
from pathlib import Path

import httpx
import pytest
import structlog

from tests.server import ADMIN, Served
from videoannotator.logs import configure, redacted
from videoannotator.settings import Settings


async def test_every_answer_carries_the_headers_that_keep_browsers_in_order(server: Served, clip: Path) -> None:
    """Errors, streams, downloads and pages too: the one that lacks them is the one that is used."""
    job = await server.finished(clip)
    path = f"/api/v1/jobs/{job['id']}"
    async with server.client() as anybody, server.http.stream("GET", "/api/v1/events/stream") as stream:
        answers: list[httpx.Response] = [
            stream,
            await anybody.get("/health"),
            await anybody.get("/"),
            await anybody.get("/viewer/"),
            await anybody.get("/never"),
            await anybody.get("/api/v1/jobs"),
            await anybody.get("/health", headers={"host": "evil.example"}),
            await anybody.options(
                "/api/v1/jobs", headers={"origin": server.url, "access-control-request-method": "POST"}
            ),
            await server.http.get("/metrics"),
            await server.http.get(f"{path}/video"),
            await server.http.get(f"{path}/video", headers={"range": "bytes=0-1"}),
            await server.http.get(f"{path}/video", headers={"range": "bytes=99999999-"}),
            await server.http.get(f"{path}/artifacts"),
            await server.http.get(f"{path}/files/out.json"),
            await server.http.delete(path),
        ]

    statuses = [answer.status_code for answer in answers]
    assert statuses == [200, 200, 200, 404, 404, 401, 400, 204, 200, 200, 206, 416, 200, 200, 204]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff", answer.url
        assert answer.headers["referrer-policy"] == "no-referrer", answer.url
        assert answer.headers["x-frame-options"] == "DENY", answer.url
        assert "default-src 'none'" in answer.headers["content-security-policy"], answer.url
        assert answer.headers["cache-control"], answer.url
        assert answer.headers["x-request-id"], answer.url


async def test_log_lines_name_request_job_and_stage(server: Served, clip: Path) -> None:
    """So that one search finds all that happened to one video."""
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        answer = await server.http.post(
            "/api/v1/jobs",
            files={"video": clip.read_bytes()},
            data={"selected_pipelines": "behaves"},
            headers={"x-request-id": "study-7"},
        )
        await server.ended(answer.json()["id"])
        await server.http.get("/api/v1/jobs")

    job_id = answer.json()["id"]
    requests = [line for line in lines if line["event"] == "request"]
    submitted = next(line for line in requests if line["method"] == "POST")
    assert (submitted["request_id"], submitted["job_id"], submitted["status"]) == ("study-7", job_id, 201)
    assert requests[-1]["job_id"] is None
    assert [line["stage"] for line in lines if line["event"] == "stage completed"] == ["behaves"]
    assert any(line["event"] == "job ended" and line["job_id"] == job_id for line in lines)


@pytest.mark.parametrize("form", ["json", "console"])
def test_the_log_is_for_machines_or_for_people(capsys: pytest.CaptureFixture[str], form: str) -> None:
    """One line for each thing in both, and no key in either."""
    before = structlog.get_config()
    try:
        configure(Settings(log_format=form, api_key="outside-key-0123456789"))  # type: ignore[arg-type]
        structlog.get_logger().info("seen", where=[f"?token={ADMIN}"], key="outside-key-0123456789", at=Path("va_x"))
    finally:
        structlog.configure(**before)

    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert ADMIN not in said
    assert "outside-key" not in said
    assert "seen" in (json.loads(said)["event"] if form == "json" else said)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"GET /x?token={ADMIN}&y=1", "GET /x?token=***&y=1"),
        (f"Authorization: Bearer {ADMIN}", "Authorization: Bearer ***"),
        (f"No job is called '{ADMIN}'.", "No job is called 'va_***'."),
        ("vt_" + "A" * 60, "vt_***"),
        ("Send a key as 'Authorization: Bearer va_...'.", "Send a key as 'Authorization: Bearer va_...'."),
        ("va_session_3.mp4 of nova_scotia", "va_session_3.mp4 of nova_scotia"),
    ],
)
def test_what_looks_like_a_key_is_taken_out_and_nothing_else(text: str, told: str) -> None:
    """A log that hides too much helps nobody either."""
    assert redacted(text) == told
