"""
The unmodified Video Annotation Viewer, call by call: what it sends and what it reads of the answers, from its own
origin (`../shared/VIEWER.md`, sections 1 to 6, 9 and 10). Sections 7 and 8, the ZIP and the files in it, are
test_viewer_zip.py and tests/formats/test_viewer_rules.py.
"""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.clips import Clips
from tests.server import ADMIN, LONG, Served, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORIGIN = "http://127.0.0.1:19011"
STATUSES = {"pending", "queued", "running", "processing", "completed", "failed", "cancelled", "cancelling"}
AUTH_WORDS = ("API key required", "AUTH_REQUIRED", "401", "404", "Not Found", "Unauthorized", "authentication")
"""In a message they make the job list say "Authentication Required"."""


class Viewer:
    """Its calls: Bearer, no cookies, JSON's content type only with JSON, and its own way to read answers."""

    def __init__(self, server: Served, token: str | None = ADMIN) -> None:
        key = {"authorization": f"Bearer {token}"} if token else {}
        self.http = server.client(None, origin=ORIGIN, **key)

    async def call(self, method: str, path: str, **content: Any) -> Any:
        """What its client hands on: None for 204 and for what is no JSON. Raises Failure for all but 2xx."""
        answer = await self.http.request(method, path, **content)
        assert answer.headers["access-control-allow-origin"] == ORIGIN, path
        if not answer.is_success:
            raise Failure(answer)
        if answer.status_code == 204 or "application/json" not in answer.headers.get("content-type", ""):
            return None
        return answer.json()

    async def submit(self, clip: Path, pipelines: str = "behaves", config: dict[str, Any] | None = None) -> Any:
        """Section 5: one string of pipelines; a configuration only if there is one."""
        fields = {"selected_pipelines": pipelines} | ({"config": json.dumps(config)} if config else {})
        video = {"video": (clip.name, clip.read_bytes(), "video/mp4")}
        return await self.call("POST", "/api/v1/jobs", data=fields, files=video)


class Failure(Exception):
    """Section 10: a top-level `detail`, a string or a list; anything else shows as a bare status."""

    def __init__(self, answer: httpx.Response) -> None:
        detail = answer.json().get("detail")
        listed = (
            ", ".join(d if isinstance(d, str) else d["msg"] for d in detail) if isinstance(detail, list) else detail
        )
        self.status = answer.status_code
        self.message = listed if isinstance(listed, str) else f"HTTP {self.status}: {answer.reason_phrase}"
        super().__init__(self.message)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    async with serving(tmp_path_factory.mktemp("viewed"), max_concurrent_jobs=2) as served:
        yield served


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def viewer(server: Served) -> AsyncIterator[Viewer]:
    made = Viewer(server)
    async with made.http:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def done(server: Served, clips: Clips) -> dict[str, Any]:
    """A job that ended well."""
    return await server.finished(clips.path("h264.mp4"), config=json.dumps({"behaves": {"steps": 3}}))


@pytest.fixture
def clip(clips: Clips) -> Path:
    return clips.path("h264.mp4")


# -- 1. hosting, base URL, token


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
@pytest.mark.parametrize("asked", ["authorization", "authorization,content-type"])
@pytest.mark.parametrize("origin", ["http://localhost:19011", "http://127.0.0.1:19020", "own"])
async def test_preflights_of_the_viewer_are_answered(server: Served, method: str, asked: str, origin: str) -> None:
    """Also from the server's own localhost address: a page at /viewer/ that saved the URL is another origin than it."""
    if origin == "own":
        origin = server.url.replace("127.0.0.1", "localhost")
    headers = {"origin": origin, "access-control-request-method": method, "access-control-request-headers": asked}

    async with server.client() as http:
        answer = await http.options("/api/v1/jobs", headers=headers)

    allowed = {name.strip().lower() for name in answer.headers["access-control-allow-headers"].split(",")}
    assert answer.is_success
    assert answer.headers["access-control-allow-origin"] == origin
    assert method in answer.headers["access-control-allow-methods"]
    assert set(asked.split(",")) <= allowed


async def test_a_token_of_ours_is_one_that_the_viewer_sends(server: Served, viewer: Viewer) -> None:
    """It sends only what begins with va_ or looks harmless; and its blacklist must not hit ours."""
    made = await viewer.call("POST", "/api/v1/tokens", json={"name": "viewer", "scope": "write"})

    token = made["secret"]
    other = Viewer(server, token)
    async with other.http:
        jobs = await other.call("GET", "/api/v1/jobs?per_page=1")
    assert token.startswith("va_")
    assert not any(word in token.lower() for word in ("test-token", "bearer ", "your-api-token"))
    assert isinstance(jobs["jobs"], list)


# -- 2. start-up probes and capabilities


@pytest.mark.parametrize("token", [ADMIN, None, "va_a_wrong_token_of_some_other_server"])
async def test_the_health_probe_answers_with_any_token_and_with_none(server: Served, token: str | None) -> None:
    """ "Connected" is this call; it is made before anybody has typed a token."""
    probing = Viewer(server, token)
    async with probing.http:
        said = await probing.call("GET", "/api/v1/system/health")

    assert said["status"] in ("healthy", "degraded", "unhealthy")
    assert isinstance(said["api_version"], str)
    assert isinstance(said["version"], str)
    assert said["security"]["auth_required"] is True
    assert isinstance(said["uptime_seconds"], int)
    assert isinstance(said["gpu_status"]["available"], bool)
    assert {"active_jobs", "queued_jobs", "max_concurrent_jobs"} <= said["worker_info"].keys()
    assert said["worker_info"]["worker_status"] in ("idle", "busy", "overloaded")
    assert isinstance(said["diagnostics"]["database"]["status"], str)
    assert isinstance(said["diagnostics"]["storage"]["status"], str)
    assert isinstance(said["diagnostics"]["ffmpeg"]["available"], bool)
    assert None not in said.values()


# -- 3. every call


@pytest.mark.parametrize("path", ["/api/v1/jobs?page=1&per_page=10", "/api/v1/jobs?page=1&per_page=5"])
async def test_the_job_lists_are_read(viewer: Viewer, done: dict[str, Any], path: str) -> None:
    """`jobs` must be an array and `total` a number, newest first."""
    said = await viewer.call("GET", path)

    made = [job["created_at"] for job in said["jobs"]]
    assert done["id"] in [job["id"] for job in said["jobs"]]
    assert isinstance(said["total"], int)
    assert made == sorted(made, reverse=True)


async def test_a_page_past_the_end_is_empty_and_knows_the_total(viewer: Viewer, done: dict[str, Any]) -> None:
    """After a deletion on the last page it asks for one."""
    said = await viewer.call("GET", "/api/v1/jobs?page=500&per_page=10")

    assert said["jobs"] == []
    assert said["total"] >= 1


@pytest.mark.parametrize(
    ("path", "token", "status"),
    [
        ("/api/v1/jobs?per_page=1", ADMIN, 200),
        ("/api/v1/jobs?per_page=1", "va_a_wrong_token_of_some_other_server", 401),
        ("/api/v1/jobs/?per_page=1", ADMIN, 200),
        ("/health", ADMIN, 200),
        ("/docs", None, 200),
    ],
)
async def test_its_diagnostics_are_answered(server: Served, path: str, token: str | None, status: int) -> None:
    """Without a redirect: behind one it would lose the token and the answer."""
    asking = Viewer(server, token)
    async with asking.http:
        answer = await asking.http.get(path, follow_redirects=False)

    assert answer.status_code == status


async def test_a_job_is_cancelled_with_no_body_and_no_content_type(viewer: Viewer, clip: Path) -> None:
    """That is how its button does it."""
    job = await viewer.submit(clip, config=LONG)

    said = await viewer.call("POST", f"/api/v1/jobs/{job['id']}/cancel")

    assert said["status"] in ("cancelled", "cancelling")
    assert said["job_id"] == job["id"]
    assert isinstance(said["message"], str)


async def test_a_job_is_cancelled_with_a_reason(viewer: Viewer, clip: Path) -> None:
    """Its hook could send one."""
    job = await viewer.submit(clip, config=LONG)

    said = await viewer.call("POST", f"/api/v1/jobs/{job['id']}/cancel", json={"reason": "wrong clip"})

    assert said["status"] in ("cancelled", "cancelling")


async def test_a_job_is_deleted(server: Served, viewer: Viewer, clip: Path) -> None:
    """Offered for what has ended; 204 is read as no value."""
    job = await server.finished(clip)

    said = await viewer.call("DELETE", f"/api/v1/jobs/{job['id']}")

    assert said is None
    with pytest.raises(Failure) as failure:
        await viewer.call("GET", f"/api/v1/jobs/{job['id']}")
    assert failure.value.status == 404


@pytest.mark.parametrize("path", ["/api/v1/pipelines/{}/schema", "/api/v1/pipelines/{}"])
async def test_the_parameters_of_a_pipeline_are_read(viewer: Viewer, path: str) -> None:
    """No page shows them yet; the client's code would read them in this shape."""
    said = await viewer.call("GET", path.format("scene_detection"))

    kinds = {"boolean", "string", "integer", "number", "enum", "multiselect", "object"}
    assert {parameter["type"] for parameter in said["parameters"]} <= kinds
    assert all(isinstance(parameter["name"], str) for parameter in said["parameters"])
    assert all({"value"} <= c.keys() for p in said["parameters"] for c in p.get("enum", ()))


# -- 4. the job


async def test_a_job_has_every_field_that_is_read_of_it(viewer: Viewer, done: dict[str, Any]) -> None:
    """A field of another type breaks the page; null is allowed where the page expects it."""
    said = await viewer.call("GET", f"/api/v1/jobs/{done['id']}")

    assert re.fullmatch(r"[A-Za-z0-9._-]+", said["id"])
    assert said["status"] == "completed"
    assert isinstance(said["video_filename"], str)
    assert isinstance(said["video_size_bytes"], int)
    assert isinstance(said["video_duration_seconds"], float)
    assert said["selected_pipelines"] == ["behaves"]
    assert said["config"] == {"behaves": {"steps": 3}}
    assert said["error_message"] is None
    for name in ("created_at", "completed_at"):
        assert said[name].endswith("Z"), name
    assert said["progress_pct"] == 100


# -- 5. submission


async def test_a_submission_is_answered_at_once_with_an_id(viewer: Viewer, clip: Path) -> None:
    """Its patience is 30 s, upload included; it reads `id` and nothing else."""
    said = await viewer.submit(clip, "behaves,scene_detection", {"behaves": {"steps": 2}})

    assert isinstance(said["id"], str)
    assert said["status"] in STATUSES
    assert said["selected_pipelines"] == ["behaves", "scene_detection"]


# -- 6. pipelines and validation


async def test_the_list_of_pipelines_is_one_that_can_be_ticked(viewer: Viewer) -> None:
    """Ids without commas, since they are joined by them; what cannot run is not in the list."""
    said = await viewer.call("GET", "/api/v1/pipelines")

    assert said["total"] == len(said["pipelines"])
    for pipeline in said["pipelines"]:
        name = pipeline.get("slug") or pipeline["name"]
        assert "," not in name
        assert pipeline["display_name"]
        assert pipeline["description"]
        assert pipeline["pipeline_family"]
        assert pipeline["version"]
        assert all(isinstance(format_, str) for format_ in pipeline["output_formats"])
        assert isinstance(pipeline["default_enabled"], bool)
        assert pipeline["available"] is True


@pytest.mark.parametrize("path", ["/api/v1/config/validate", "/api/v1/pipelines/behaves/validate"])
@pytest.mark.parametrize(("steps", "valid"), [(3, True), (-1, False), ("many", False)])
async def test_a_configuration_is_judged_with_status_200(viewer: Viewer, path: str, steps: Any, valid: bool) -> None:
    """Anything but 2xx is swallowed and nothing shown; a warning would put up a dialog, so there is none."""
    config = {"steps": steps}
    body = {"config": {"behaves": config} if path.endswith("config/validate") else config}

    said = await viewer.call("POST", path, json=body)

    assert said["valid"] is valid
    assert said["warnings"] == []
    assert bool(said["errors"]) is not valid
    for issue in said["errors"]:
        assert issue["field"] == "behaves.steps"
        assert issue["message"]
        assert issue["severity"] == "error"
        assert isinstance(issue["error_code"], str)


# -- 9. the event stream


async def test_the_event_stream_takes_the_token_in_its_address(server: Served, done: dict[str, Any]) -> None:
    """EventSource sends no header. Payloads are matched by `job_id` or `id`."""
    async with server.client(None, origin=ORIGIN) as http:
        address = f"/api/v1/events/stream?job_id={done['id']}&token={ADMIN}&after=0"
        async with http.stream("GET", address) as stream:
            kinds: list[str] = []
            async for line in stream.aiter_lines():
                if line.startswith("event: "):
                    kinds.append(line.removeprefix("event: "))
                if line.startswith("data: "):
                    assert json.loads(line[6:])["job_id"] == done["id"]
                if kinds[-1:] == ["job.complete"]:
                    break

    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.headers["access-control-allow-origin"] == ORIGIN
    assert set(kinds) <= {"job.update", "job.log", "job.complete", "job.error", "job.cancelled"}


@pytest.mark.parametrize("token", ["", "va_a_wrong_token_of_some_other_server"])
async def test_the_event_stream_refuses_bad_tokens(server: Served, token: str) -> None:
    """A browser that gets anything but 200 stops for good, which is right here."""
    async with server.client(None, origin=ORIGIN) as http:
        answer = await http.get(f"/api/v1/events/stream?token={token}")

    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == ORIGIN


# -- 10. errors


async def test_a_refused_token_reads_as_one(server: Served) -> None:
    """Then the job list says "Authentication Required" in place of an error."""
    for token in (None, "va_a_wrong_token_of_some_other_server", "nonsense"):
        stranger = Viewer(server, token)
        async with stranger.http:
            with pytest.raises(Failure) as failure:
                await stranger.call("GET", "/api/v1/jobs?page=1&per_page=10")
        assert failure.value.status == 401
        assert any(word in failure.value.message for word in AUTH_WORDS), failure.value.message


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/jobs/job_that_is_not_there", 404),
        ("GET", "/api/v1/jobs/job_that_is_not_there/artifacts", 404),
        ("POST", "/api/v1/jobs/{done}/cancel", 409),
        ("GET", "/api/v1/jobs?per_page=1000", 422),
        ("POST", "/api/v1/jobs", 415),
    ],
)
async def test_other_errors_are_a_sentence_that_does_not_speak_of_keys(
    viewer: Viewer, done: dict[str, Any], method: str, path: str, status: int
) -> None:
    """Hint included, since nothing but `detail` reaches the screen."""
    with pytest.raises(Failure) as failure:
        await viewer.call(method, path.format(done=done["id"]))

    assert failure.value.status == status
    assert not failure.value.message.startswith("HTTP ")
    assert not any(word in failure.value.message for word in AUTH_WORDS), failure.value.message


async def test_a_refused_video_says_why(viewer: Viewer, tmp_path: Path) -> None:
    """It is shown where another file of the same batch got through."""
    text = tmp_path / "notes.mp4"
    text.write_text("no video")

    with pytest.raises(Failure) as failure:
        await viewer.submit(text)

    assert failure.value.status == 422
    assert "notes.mp4" in failure.value.message
