"""Models that come when a job needs them, where the operator asked for it; and never otherwise."""

from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.clips import ffmpeg
from tests.hub import Hub, serving_hub
from tests.server import Served, eventually, serving
from tests.tiny_models import shelf_of
from videoannotator.cli.progress import PlainLines

WISH = '{"speech_recognition": {"model": "tiny", "language": "en"}}'


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """With a tiny Whisper that can be loaded."""
    made = shelf_of(tmp_path / "made", "faster-whisper-tiny").path("faster-whisper-tiny")
    files = {f.name: f.read_bytes() for f in made.iterdir() if f.name != "model.json"}
    with serving_hub() as hub:
        hub.repositories["Systran/faster-whisper-tiny"] = files
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield hub


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    made = tmp_path / "noise.mp4"
    ffmpeg("-f", "lavfi", "-i", "color=gray:s=160x120:r=10:d=2", "-f", "lavfi", "-i", "anoisesrc=d=2:a=0.02",
           "-c:v", "libx264", "-c:a", "aac", "-shortest", made)  # fmt: skip
    return made


async def told(served: Served, job_id: str) -> list[str]:
    """The lines of the job's log."""
    lines: list[str] = []
    async with aclosing(served.workspace.store.follow(after=0, job_id=job_id)) as events:
        async for event in events:
            if event.type == "job.log":
                lines.append(event.data["message"])
            if event.type in ("job.complete", "job.error"):
                return lines
    return lines


async def run(served: Served, clip: Path) -> dict[str, Any]:
    return await served.finished(clip, "speech_recognition", config=WISH)


async def test_a_missing_model_is_refused_when_the_job_is_submitted(hub: Hub, clip: Path, tmp_path: Path) -> None:
    """With the command; and nothing is fetched behind anybody's back."""
    async with serving(tmp_path) as served:
        with clip.open("rb") as video:
            answer = await served.http.post(
                "/api/v1/jobs",
                files={"video": (clip.name, video, "video/mp4")},
                data={"selected_pipelines": "speech_recognition", "config": WISH},
            )

    assert answer.status_code in (400, 409, 422)
    assert answer.json()["error"]["code"] == "PIPELINE_UNAVAILABLE"
    assert "videoannotator models pull faster-whisper-tiny" in answer.json()["detail"]
    assert hub.asked == []


async def test_a_model_comes_with_the_job_that_needs_it(hub: Hub, clip: Path, tmp_path: Path) -> None:
    """As a step that the job's log tells of; the next job finds it there."""
    async with serving(tmp_path, auto_download=True) as served:
        first = await run(served, clip)
        lines = await told(served, first["id"])
        hub.asked.clear()
        second = await served.finished(clip, "speech_recognition", config=WISH.replace("en", "de"))

    assert [first["status"], second["status"]] == ["completed", "completed"], first
    assert "The model faster-whisper-tiny is not here: it is fetched now." in lines
    assert "The model faster-whisper-tiny is here and verified." in lines
    assert hub.asked == []


async def test_a_fetch_that_fails_fails_the_stage_with_the_reason(hub: Hub, clip: Path, tmp_path: Path) -> None:
    """The network went while the job waited."""
    hub.repositories.clear()

    async with serving(tmp_path, auto_download=True) as served:
        job = await run(served, clip)

    (stage,) = job["stages"]
    assert (stage["status"], stage["error"]["code"]) == ("failed", "MODEL_FETCH_FAILED")
    assert "faster-whisper-tiny" in stage["error"]["message"]


async def test_a_model_that_was_damaged_meanwhile_fails_the_stage(hub: Hub, clip: Path, tmp_path: Path) -> None:
    """It is noticed before it is loaded, and the next submission is refused."""
    models = shelf_of(tmp_path / "models", "faster-whisper-tiny").folder
    async with serving(tmp_path, models_dir=models) as served:
        assert (await run(served, clip))["status"] == "completed"
        content = bytearray((models / "faster-whisper-tiny" / "model.bin").read_bytes())
        content[1000] ^= 1
        (models / "faster-whisper-tiny" / "model.bin").write_bytes(content)

        with clip.open("rb") as video:
            answer = await served.http.post(
                "/api/v1/jobs",
                files={"video": (clip.name, video, "video/mp4")},
                data={"selected_pipelines": "speech_recognition", "config": WISH},
            )

    assert answer.json()["error"]["code"] in ("MODEL_DAMAGED", "PIPELINE_UNAVAILABLE")
    assert "damaged" in answer.json()["detail"]
    assert "models pull faster-whisper-tiny" in answer.json()["detail"]


async def test_a_cancel_ends_a_fetch_at_once(hub: Hub, clip: Path, tmp_path: Path) -> None:
    """Three gigabytes that nobody waits for any more; no process of it is left."""
    hub.stalls.add("model.bin")
    async with serving(tmp_path, auto_download=True) as served:
        job = await served.submit(clip, "speech_recognition", config=WISH)
        await eventually(lambda: _asked_for(hub, "model.bin"))
        (fetch,) = [p for p in psutil.Process().children(recursive=True) if "pull" in p.cmdline()]

        await served.http.post(f"/api/v1/jobs/{job['id']}/cancel")
        ended = await served.ended(job["id"])

        assert ended["status"] == "cancelled"
        assert not fetch.is_running()


async def _asked_for(hub: Hub, path: str) -> bool:
    return any(method == "GET" and asked.endswith(path) for method, asked, _ in hub.asked)


def test_annotate_shows_that_a_model_is_fetched(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is downloaded behind anybody's back, and nobody stares at a bar that stands still for minutes."""
    line = {"stage": "speech_recognition", "message": "Fetching faster-whisper-tiny: 9 of 78 MB (12%)."}

    PlainLines().log(line | {"level": "info"})
    PlainLines().log({"stage": "speech_recognition", "message": "for the log only", "level": "debug"})

    assert capsys.readouterr().out == "[...] speech_recognition: Fetching faster-whisper-tiny: 9 of 78 MB (12%).\n"
