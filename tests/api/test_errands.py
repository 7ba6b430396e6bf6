"""Where a job's video comes from and where its results go, beside the server's own storage."""

import asyncio
import hashlib
import hmac
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.clips import Clips
from tests.elsewhere import Asked, Elsewhere, elsewhere, in_turn, status
from tests.server import Served, eventually, serving

SECRET = "the secret of the tests"


@pytest.fixture
async def machine() -> AsyncIterator[Elsewhere]:
    async with elsewhere() as other:
        yield other


def outside(machine: Elsewhere | None = None, **settings: Any) -> dict[str, Any]:
    allowed = () if machine is None else (machine.host,)
    given = {"outbound_allowed": allowed, "callback_secret": SECRET, "callback_retry_seconds": 0.02}
    return given | {"browser_copy": False} | settings


async def queue(server: Served, status: int = 201, **order: Any) -> dict[str, Any]:
    answer = await server.http.post("/api/v1/jobs", json={"selected_pipelines": ["behaves"]} | order)
    assert answer.status_code == status, answer.text
    said: dict[str, Any] = answer.json()
    return said


async def upload(server: Served, clip: Path) -> str:
    """The id of a finished upload."""
    tus = {"tus-resumable": "1.0.0"}
    begun = await server.http.post("/api/v1/uploads", headers=tus | {"upload-length": str(clip.stat().st_size)})
    headers = tus | {"upload-offset": "0", "content-type": "application/offset+octet-stream"}
    done = await server.http.patch(begun.headers["location"], headers=headers, content=clip.read_bytes())
    assert done.status_code == 204
    return str(begun.headers["location"].rpartition("/")[2])


# -- from a URL


async def test_a_video_at_a_url_is_fetched_when_its_turn_comes(tmp_path: Path, machine: Elsewhere, clip: Path) -> None:
    """The answer does not wait for it; until it is there nothing is invented about it."""
    held = asyncio.Event()

    async def waits(writer: asyncio.StreamWriter, asked: Asked) -> None:
        await held.wait()
        await status(200, clip.read_bytes())(writer, asked)

    machine.answers["/my clip.mp4".replace(" ", "%20")] = waits
    async with serving(tmp_path, **outside(machine)) as server:
        job = await queue(server, video_url=f"{machine.url}/my%20clip.mp4?signature=geheim", tags=["a"])
        waiting = await server.job(job["id"])
        others = await server.finished(clip)
        held.set()
        ended = await server.ended(job["id"])
        log = (await server.http.get(f"/api/v1/jobs/{job['id']}/logs")).text

    assert (job["status"], job["video_filename"], job["video_size_bytes"]) == ("pending", "my clip.mp4", 0)
    assert "video" not in waiting
    assert others["status"] == "completed"
    assert (ended["status"], ended["tags"]) == ("completed", ["a"])
    assert (ended["video"]["size_bytes"], ended["video"]["has_audio"]) == (clip.stat().st_size, True)
    assert "my%20clip.mp4" in log
    assert "geheim" not in log


async def test_more_slow_hosts_than_places_keep_nobody_waiting(tmp_path: Path, machine: Elsewhere, clip: Path) -> None:
    """A video that is on its way holds no place among the jobs that are worked on."""
    held = asyncio.Event()

    async def waits(writer: asyncio.StreamWriter, asked: Asked) -> None:
        await held.wait()

    machine.answers["/x.mp4"] = waits
    async with serving(tmp_path, **outside(machine, max_concurrent_jobs=2)) as server:
        slow = [await queue(server, video_url=f"{machine.url}/x.mp4") for _ in range(4)]
        ended = await server.finished(clip)
        for job in slow:
            await server.http.delete(f"/api/v1/jobs/{job['id']}")
    held.set()

    assert ended["status"] == "completed"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (status(200, b"<html>please log in</html>"), "NOT_A_VIDEO"),
        pytest.param(status(404), "FETCH_FAILED", marks=pytest.mark.slow),
        pytest.param(status(200, b"#EXTM3U\n/etc/passwd\n"), "PLAYLIST_REFUSED", marks=pytest.mark.slow),
        pytest.param(status(200, content_length=str(2**50)), "FETCH_TOO_LARGE", marks=pytest.mark.slow),
    ],
)
async def test_what_is_no_video_fails_with_the_reason_and_is_not_kept(
    tmp_path: Path, machine: Elsewhere, answer: Any, code: str
) -> None:
    """A page that asks for a login is what URLs most often give."""
    machine.answers["/x.mp4"] = answer
    async with serving(tmp_path, **outside(machine)) as server:
        ended = await server.ended((await queue(server, video_url=f"{machine.url}/x.mp4"))["id"])
        left = [path for path in (server.storage / "videos").rglob("*") if path.is_file()]

    assert (ended["status"], ended["error_code"]) == ("failed", code)
    assert left == []


async def test_fetching_can_be_cancelled(tmp_path: Path, machine: Elsewhere) -> None:
    """At once, with the connection closed and nothing left."""

    async def stalls(writer: asyncio.StreamWriter, _: Asked) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n" + b"x" * 3_000_000)
        await writer.drain()
        await asyncio.sleep(60)

    machine.answers["/x.mp4"] = stalls
    async with serving(tmp_path, **outside(machine)) as server:
        job = await queue(server, video_url=f"{machine.url}/x.mp4")
        part = server.storage / "videos" / job["id"] / ".fetched.part"
        await eventually(lambda: _is(part.exists))
        await server.http.post(f"/api/v1/jobs/{job['id']}/cancel")
        ended = await server.ended(job["id"])
        there = part.exists()

    assert ended["status"] == "cancelled"
    assert ended["stopped_after_seconds"] < 2
    assert not there


async def test_fetching_survives_a_restart(tmp_path: Path, machine: Elsewhere, clip: Path) -> None:
    """It begins again with the next server, and what an audio clip has nothing for is skipped then."""

    async def stalls(writer: asyncio.StreamWriter, _: Asked) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n" + b"x" * 2_000_000)
        await asyncio.sleep(60)

    machine.answers["/x.mp4"] = in_turn(stalls, status(200, clip.read_bytes()))
    async with serving(tmp_path, **outside(machine)) as server:
        job = await queue(server, video_url=f"{machine.url}/x.mp4")
        await eventually(lambda: _is(lambda: bool(machine.asked)))

    async with serving(tmp_path, **outside(machine)) as server:
        ended = await server.ended(job["id"])

    assert ended["status"] == "completed"


@pytest.mark.slow
async def test_a_stage_without_anything_to_work_on_is_skipped_once_that_is_known(
    tmp_path: Path, machine: Elsewhere, clips: Clips
) -> None:
    """As with an upload, where it is known at once."""
    machine.answers["/x.wav"] = status(200, clips.path("sound.wav").read_bytes())
    async with serving(tmp_path, **outside(machine)) as server:
        order = {"selected_pipelines": ["scene_detection", "voice_activity"]}
        ended = await server.ended((await queue(server, video_url=f"{machine.url}/x.wav", **order))["id"])

    stages = {stage["pipeline"]: stage["status"] for stage in ended["stages"]}
    assert stages == {"scene_detection": "skipped", "voice_activity": "completed"}
    assert (ended["outcome"], ended["error_code"]) == ("partial", "NO_VIDEO")


async def test_a_fetch_that_failed_is_retried_from_the_url(tmp_path: Path, machine: Elsewhere, clip: Path) -> None:
    """There is no stored video to run again on."""
    machine.answers["/x.mp4"] = in_turn(status(404), status(200, clip.read_bytes()))
    async with serving(tmp_path, **outside(machine)) as server:
        failed = await server.ended((await queue(server, video_url=f"{machine.url}/x.mp4"))["id"])
        again = (await server.http.post(f"/api/v1/jobs/{failed['id']}/retry")).json()
        ended = await server.ended(again["id"])

    assert (failed["status"], ended["status"]) == ("failed", "completed")


@pytest.mark.parametrize("root", ["", pytest.param("/api/v1", marks=pytest.mark.slow)])
async def test_fire_and_poll(tmp_path: Path, machine: Elsewhere, clip: Path, root: str) -> None:
    """The whole of it: a URL in, an id out, then its state and its result."""
    machine.answers["/x.mp4"] = status(200, clip.read_bytes())
    async with serving(tmp_path, **outside(machine)) as server:
        await server.http.put("/api/v1/presets/mine", json={"pipelines": {"behaves": {}}})
        await server.http.put("/api/v1/preferences", json={"default_preset": "mine"})
        accepted = await server.http.post(f"{root}/analyze", json={"video_url": f"{machine.url}/x.mp4"})
        failed = (await server.http.post(f"{root}/analyze", json={"video_url": f"{machine.url}/nothing"})).json()
        task = accepted.json()
        first = (await server.http.get(task["status_endpoint"])).json()
        await server.ended(task["task_id"])
        await server.ended(failed["task_id"])
        last = (await server.http.get(task["status_endpoint"])).json()
        other = (await server.http.get(failed["status_endpoint"])).json()
        unknown = await server.http.get(f"{root}/results/nope")

    assert (accepted.status_code, task["status_endpoint"]) == (202, f"{root}/results/{task['task_id']}")
    assert first["status"] in ("PENDING", "PROCESSING", "SUCCESS")
    assert (last["task_id"], last["status"]) == (task["task_id"], "SUCCESS")
    assert last["result"]["results"]["behaves"]["files"][0]["name"] == "out.json"
    assert (other["status"], "404" in other["error_message"]) == ("FAILED", True)
    assert unknown.status_code == 404


# -- callbacks


async def test_whoever_gave_a_callback_is_told_signed_and_until_they_heard(
    tmp_path: Path, machine: Elsewhere, clip: Path
) -> None:
    """Verified as docs/api.md says; every attempt says the same, and the outcome can be read."""
    machine.answers |= {"/x.mp4": status(200, clip.read_bytes()), "/hook": in_turn(status(503), status(204))}
    async with serving(tmp_path, **outside(machine)) as server:
        order = {"video_url": f"{machine.url}/x.mp4", "callback_url": f"{machine.url}/hook"}
        job = await queue(server, **order)
        told = await eventually(lambda: _callback(server, job["id"], "delivered"))

    calls = [asked for asked in machine.asked if asked.path == "/hook"]
    assert (told["attempts"], told["last_status"]) == (2, 204)
    assert [call.method for call in calls] == ["POST", "POST"]
    assert calls[0].body == calls[1].body
    for call in calls:
        signed = call.headers["x-videoannotator-timestamp"].encode() + b"." + call.body
        expected = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
        assert call.headers["x-videoannotator-signature"] == f"sha256={expected}"
        assert call.headers["x-videoannotator-delivery"] == job["id"]
        assert b'"status":"SUCCESS"' in call.body


async def test_a_callback_is_given_up_and_the_reason_kept(tmp_path: Path, machine: Elsewhere, clip: Path) -> None:
    """After six attempts; a redirect is not followed, because the body would go to somebody else."""
    machine.answers["/hook"] = status(307, location="/other")
    async with serving(tmp_path, **outside(machine, callback_retry_seconds=0.0)) as server:
        order = {"upload_id": await upload(server, clip), "callback_url": f"{machine.url}/hook"}
        job = await queue(server, **order)
        told = await eventually(lambda: _callback(server, job["id"], "given_up"))

    assert (told["attempts"], told["last_status"]) == (6, 307)
    assert "307" in told["last_error"]
    assert {asked.path for asked in machine.asked} == {"/hook"}


async def test_a_callback_survives_a_restart_and_a_cancel(tmp_path: Path, machine: Elsewhere, clip: Path) -> None:
    """It is a row, not a task."""
    async with serving(tmp_path, **outside(machine, callback_retry_seconds=0.1)) as server:
        order = {"upload_id": await upload(server, clip), "callback_url": f"{machine.url}/hook"}
        job = await queue(server, config={"behaves": {"steps": 3000, "step_seconds": 0.02}}, **order)
        await server.http.post(f"/api/v1/jobs/{job['id']}/cancel")
        await eventually(lambda: _callback(server, job["id"], "waiting", attempts=1))

    machine.answers["/hook"] = status(200)
    async with serving(tmp_path, **outside(machine)) as server:
        told = await eventually(lambda: _callback(server, job["id"], "delivered"))

    assert told["attempts"] > 1
    assert b'"job_status":"cancelled"' in machine.asked[-1].body


async def test_without_a_secret_no_callback_is_promised(tmp_path: Path) -> None:
    """One that cannot be verified could be anybody's."""
    async with serving(tmp_path) as server:
        order = {"video_url": "http://example.org/x.mp4", "callback_url": "http://example.org/hook"}
        refused = await queue(server, 422, **order)

    assert (refused["error"]["code"], refused["error"]["field"]) == ("CALLBACKS_OFF", "callback_url")


# -- to a directory and a database


@pytest.mark.slow
async def test_results_are_published_where_the_caller_wants_them(tmp_path: Path, clip: Path) -> None:
    """In a folder of the job's, whole; and written into a database, by job, beside what is there already."""
    out = tmp_path / "out"
    out.mkdir()
    with sqlite3.connect(out / "study.sqlite") as theirs:
        theirs.execute("CREATE TABLE participants (id TEXT)")
    theirs.close()
    async with serving(tmp_path, **outside(output_roots=(out,))) as server:
        order = {"output_directory": str(out / "a" / "b"), "db_location": str(out / "study.sqlite")}
        pipelines = {"selected_pipelines": ["scene_detection", "voice_activity"]}
        first = await queue(server, upload_id=await upload(server, clip), **order, **pipelines)
        second = await queue(server, upload_id=await upload(server, clip), **order, **pipelines)
        ended = [await server.ended(job["id"]) for job in (first, second)]
        manifest = (await server.http.get(f"/api/v1/jobs/{first['id']}/manifest")).json()
        intervals = await server.workspace.store.intervals(first["id"])

    names = {file["path"] for files in manifest["outputs"].values() for file in files}
    assert [job["outcome"] for job in ended] == ["full", "full"]
    assert sorted(p.name for p in (out / "a" / "b").iterdir()) == sorted([first["id"], second["id"]])
    assert {p.name for p in (out / "a" / "b" / first["id"]).iterdir()} == names | {"manifest.json"}
    database = sqlite3.connect(out / "study.sqlite")
    rows = database.execute(
        "SELECT kind, onset, duration, label FROM videoannotator_annotations WHERE job_id = ? ORDER BY onset, rowid",
        (first["id"],),
    ).fetchall()
    (jobs,) = database.execute("SELECT count(*) FROM videoannotator_jobs").fetchone()
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    database.close()
    assert rows == [(i.kind, i.onset, i.duration, i.label) for i in intervals]
    assert jobs == 2
    assert tables == {
        "participants",
        *("videoannotator_jobs", "videoannotator_stages", "videoannotator_annotations"),
    }


async def test_the_directory_a_caller_prefers_is_used_for_forms_too(tmp_path: Path, clip: Path) -> None:
    """It was said once, so that it need not be said each time."""
    out = tmp_path / "out"
    out.mkdir()
    async with serving(tmp_path, **outside(output_roots=(out,))) as server:
        await server.http.put("/api/v1/preferences", json={"output_directory": str(out)})
        job = await server.finished(clip)

    assert (out / job["id"] / "out.json").is_file()


OUTSIDE = (
    "/etc/results",
    "{out}/../elsewhere",
    "relative/path",
    "{out}/link",
    "{out}/link/deeper",
    "{out}/file/deeper",
    "{out}/a\0b",
    "{storage}/results",
)


async def test_nothing_is_written_outside_of_the_roots(tmp_path: Path, clip: Path) -> None:
    """Refused before anything is queued; the server's own storage is no place for results either."""
    out = _hall_of_mirrors(tmp_path)
    async with serving(tmp_path, **outside(output_roots=(out, tmp_path / "storage"))) as server:
        sent = await upload(server, clip)
        for path in OUTSIDE:
            text = path.format(out=out, storage=server.storage)
            for field in ("output_directory", "db_location"):
                refused = await queue(server, 422, upload_id=sent, **{field: text})
                assert (refused["error"]["code"], refused["error"]["field"]) == ("PATH_NOT_ALLOWED", field), path
        for field, name in (("output_directory", "file"), ("db_location", "folder")):
            refused = await queue(server, 422, upload_id=sent, **{field: str(out / name)})
            assert refused["error"]["code"] == "PATH_NOT_ALLOWED"


async def test_a_link_that_is_put_there_later_is_not_followed(tmp_path: Path, clip: Path) -> None:
    """Between the check and the writing there may be hours. The job says it, and keeps its results."""
    out = _hall_of_mirrors(tmp_path)
    target = tmp_path / "target"
    async with serving(tmp_path, **outside(output_roots=(out,))) as server:
        order = {"output_directory": str(out / "new" / "x"), "db_location": str(out / "new.sqlite")}
        job = await queue(
            server,
            upload_id=await upload(server, clip),
            config={"behaves": {"steps": 20, "step_seconds": 0.05}},
            **order,
        )
        (out / "new").symlink_to(target)
        (out / "new.sqlite").symlink_to(target / "theirs.sqlite")
        ended = await server.ended(job["id"])
        results = (await server.http.get(f"/api/v1/jobs/{job['id']}/results")).json()

    assert (ended["status"], ended["outcome"], ended["error_code"]) == ("completed", "partial", "OUTPUT_NOT_WRITABLE")
    assert "output_directory" in ended["error_message"]
    assert "db_location" in ended["error_message"]
    assert str(tmp_path) not in ended["error_message"]
    assert results["results"]["behaves"]["status"] == "completed"
    assert list(target.iterdir()) == []


def _damage(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.executemany("INSERT INTO t VALUES (?)", [("x" * 1000,)] * 200)
    connection.close()
    content = bytearray(file.read_bytes())
    content[100:8000] = os.urandom(7900)
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda file: file.write_bytes(b"this is no database, it is a letter to grandmother" * 50), "UNUSABLE"),
        pytest.param(_damage, "UNUSABLE", marks=pytest.mark.slow),
        pytest.param(
            lambda file: _run(file, "CREATE TABLE videoannotator_jobs (something TEXT)"),
            "UNUSABLE",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda file: os.link(_run(file.with_name("real.sqlite"), "CREATE TABLE t (x)"), file),
            "NOT_WRITABLE",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["no database", "damaged", "other tables", "a hard link"],
)
async def test_a_database_that_cannot_be_used_is_said_and_loses_nothing(
    tmp_path: Path, clip: Path, spoil: Any, code: str
) -> None:
    """The file stays as it was, the results are in the server's storage, and a retry delivers once it is mended."""
    out = tmp_path / "out"
    out.mkdir()
    file = out / "study.sqlite"
    spoil(file)
    before = file.read_bytes()
    async with serving(tmp_path, **outside(output_roots=(out,))) as server:
        job = await queue(server, upload_id=await upload(server, clip), db_location=str(file))
        ended = await server.ended(job["id"])
        after = file.read_bytes()
        file.unlink()
        again = (await server.http.post(f"/api/v1/jobs/{job['id']}/retry")).json()
        assert "id" in again, again
        mended = await server.ended(again["id"])

    assert (ended["status"], ended["outcome"]) == ("completed", "partial")
    assert ended["error_code"].endswith(code)
    assert after == before
    assert (mended["outcome"], mended["stages"][0]["cached"], file.exists()) == ("full", True, True)


@pytest.mark.slow
async def test_a_locked_database_is_waited_for_and_then_said(tmp_path: Path, clip: Path) -> None:
    """Somebody has it open in a browser of databases, in the middle of a change."""
    out = tmp_path / "out"
    out.mkdir()
    theirs = sqlite3.connect(out / "study.sqlite", isolation_level=None)
    theirs.execute("CREATE TABLE t (x)")
    theirs.execute("BEGIN EXCLUSIVE")
    async with serving(tmp_path, **outside(output_roots=(out,))) as server:
        job = await queue(server, upload_id=await upload(server, clip), db_location=str(out / "study.sqlite"))
        ended = await server.ended(job["id"])
    theirs.close()

    assert (ended["outcome"], ended["error_code"]) == ("partial", "OUTPUT_DATABASE_LOCKED")


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("order", "field", "code"),
    [
        ({}, "dataset_id", "MISSING_FIELD"),
        ({"upload_id": "a", "video_url": "http://example.org/"}, "video_url", "DUPLICATE_FIELD"),
        ({"dataset_id": "a", "upload_id": "b", "path": "x"}, "upload_id", "DUPLICATE_FIELD"),
        ({"dataset_id": "a"}, "path", "MISSING_FIELD"),
        ({"upload_id": "a", "path": "x"}, "dataset_id", "MISSING_FIELD"),
        ({"upload_id": "a", "config": {"b": {}}, "overrides": {"b": {}}}, "overrides", "DUPLICATE_FIELD"),
        ({"upload_id": "a", "output_directory": ""}, "output_directory", "INVALID_VALUE"),
        ({"upload_id": "a", "callback_url": 5}, "callback_url", "INVALID_VALUE"),
        ({"upload_id": "a", "webhook": "x"}, "webhook", "UNKNOWN_FIELD"),
    ],
)
async def test_orders_that_contradict_themselves_are_refused(
    shared: Served, order: dict[str, Any], field: str, code: str
) -> None:
    """With the field, before anything is looked up."""
    refused = await queue(shared, 422, **order)

    assert (refused["error"]["field"], refused["error"]["code"]) == (field, code)


def _hall_of_mirrors(tmp_path: Path) -> Path:
    out, target = tmp_path / "out", tmp_path / "target"
    target.mkdir()
    (out / "folder").mkdir(parents=True)
    (out / "file").touch()
    (out / "link").symlink_to(target)
    return out


def _run(file: Path, sql: str) -> Path:
    with sqlite3.connect(file) as connection:
        connection.execute(sql)
    connection.close()
    return file


async def _callback(server: Served, job_id: str, state: str, attempts: int = 0) -> dict[str, Any] | None:
    told: dict[str, Any] = (await server.job(job_id))["callback"]
    return told if told["state"] == state and told["attempts"] >= attempts else None


async def _is(look: Any) -> bool:
    return bool(look())
