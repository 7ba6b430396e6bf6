"""
What a GPU does for each engine that can use one: load, throughput, and memory while it works and after it has gone.

Each engine runs twice in a real server on a clip of a minute: in a new process, and in the same one kept warm; the
difference is the load. Memory is the driver's own count (NVML) of what all cards have in use, over what they had
before, so the cards must be idle otherwise. Models that are here are used, else tiny random ones, and the line says so.
Without a GPU it says so and ends well. Where an engine ran is what its manifest says.
"""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rig import Server, left_out, say, wait_until, workplace
from truth import RATE, STEADY, person, write
from truth_sound import speech

from tests.tiny_models import ENVIRONMENTS, shelf_of
from tests.tiny_onnx import insightface_package, rtmo
from videoannotator.environments import Environments
from videoannotator.machine.devices import Nvml
from videoannotator.models.catalogue import Models
from videoannotator.models.shelf import Shelf
from videoannotator.settings import load_settings

SECONDS = 60
LEFT_BYTES = 64 * 2**20
"""Of the driver's own, that may stay in use when a process has gone."""


class Engine(NamedTuple):
    pipeline: str
    name: str
    models: tuple[str, ...]
    config: dict[str, Any]
    environment: str = "default"


WORDS = {"model": "tiny", "language": "en", "device": "cuda"}
ENGINES = (
    Engine("speech_recognition", "faster-whisper", ("faster-whisper-tiny",), WORDS),
    Engine("speech_recognition", "whisperx", ("faster-whisper-tiny", "align-en"), WORDS, "speech"),
    Engine("speaker_diarization", "pyannote", ("pyannote-community-1",), {"device": "cuda"}, "speech"),
    Engine("face_analysis", "insightface", ("buffalo_s",), {"package": "buffalo_s"}),
    Engine("person_tracking", "rtmo", ("rtmo-s",), {"model": "rtmo-s"}),
)


def main() -> None:
    nvml = Nvml()
    if not nvml.cards():
        print(f"There is no GPU to measure with: {nvml.why_none or 'the driver knows of none'}.")
        for engine in ENGINES:
            left_out(f"{engine.name} on a GPU", "no GPU")
        return
    for card in nvml.cards():
        say(f"card {card.name}: memory", card.total_bytes / 2**20, "MiB", driver_free=round(card.free_bytes / 2**20))
    with workplace() as folder:
        clip = _clip(folder)
        for engine in ENGINES:
            _measure(engine, clip, folder, nvml)
    nvml.close()


def _measure(engine: Engine, clip: Path, folder: Path, nvml: Nvml) -> None:
    environments = _environments(engine)
    if environments is None:
        left_out(f"{engine.name} on a GPU", f"needs the environment {engine.environment}")
        return
    models, is_real = _models(engine, folder)
    before = _used(nvml)
    server = Server(
        folder / f"{engine.pipeline}-{engine.name}", warm_seconds="600", browser_copy="false",
        models_dir=str(models), environments_dir=str(environments),
    )  # fmt: skip
    with _watched(nvml) as peak:
        cold, warm = (_stage(server, engine, clip) for _ in range(2))
    device = _device(server, warm["job"])
    more: dict[str, Any] = {} if is_real else {"note": "a tiny random model: no figure of a real one"}
    say(f"{engine.name}: load, a new process over a warm one", cold["seconds"] - warm["seconds"], "s", device=device)
    say(f"{engine.name}: throughput in a warm process", SECONDS / warm["seconds"], "x real time", device=device, **more)
    say(f"{engine.name}: memory while it works", (max(peak) - before) / 2**20, "MiB", device=device, **more)
    server.stop()
    _wait_for(nvml, before + LEFT_BYTES)
    left = max(0, _used(nvml) - before)
    say(f"{engine.name}: memory after exit", left / 2**20, "MiB", asked=LEFT_BYTES / 2**20)


def _stage(server: Server, engine: Engine, clip: Path) -> dict[str, Any]:
    config = {engine.pipeline: {"engine": engine.name, **engine.config}}
    job = server.submit(clip, engine.pipeline, config=config)
    wait_until(lambda: server.job(job)["status"] in ("completed", "failed"), limit_seconds=600, every_seconds=0.05)
    found = server.job(job)
    if found["status"] != "completed":
        raise RuntimeError(f"{engine.name}: {found['error_message']}")
    return {"job": job, "seconds": found["stages"][0]["seconds"]}


def _device(server: Server, job: str) -> str:
    manifest = server.http.get(f"/api/v1/jobs/{job}/manifest").raise_for_status()
    stages = manifest.json()["provenance"]["stages"]
    return str(stages[0]["device"])


def _models(engine: Engine, folder: Path) -> tuple[Path, bool]:
    """Where they lie, and whether they are real."""
    shelf = Shelf(load_settings().models_folder, Models.load())
    if all(shelf.state(name) == "ready" for name in engine.models):
        return shelf.folder, True
    made = folder / f"models-{engine.name}"
    if engine.name == "insightface":
        Shelf(made, Models.load()).bring_in(insightface_package(folder / "package"), engine.models[0])
    elif engine.name == "rtmo":
        Shelf(made, Models.load()).bring_in(rtmo(folder / "network"), engine.models[0])
    else:
        shelf_of(made, *engine.models)
    return made, False


def _environments(engine: Engine) -> Path | None:
    if engine.environment == "default":
        return ENVIRONMENTS
    places = (load_settings().environments_folder, ENVIRONMENTS)
    return next((p for p in places if Environments(p).state(engine.environment) == "ready"), None)


@contextmanager
def _watched(nvml: Nvml) -> Iterator[list[int]]:
    """What the cards have in use, ten times a second."""
    seen, over = [_used(nvml)], threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            seen.append(_used(nvml))

    thread = threading.Thread(target=watch, name="memory")
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def _wait_for(nvml: Nvml, least: int) -> None:
    try:
        wait_until(lambda: _used(nvml) <= least, limit_seconds=5, every_seconds=0.05)
    except TimeoutError:
        return  # what is left is told


def _used(nvml: Nvml) -> int:
    return sum(card.total_bytes - card.free_bytes for card in nvml.cards())


def _clip(folder: Path) -> Path:
    """A person who moves, and ten sentences."""
    speech(folder / "said.wav")
    short, clip = folder / "short.mp4", folder / "clip.mp4"
    write(short, list(person(10 * RATE)), STEADY)
    inputs = ["-stream_loop", "-1", "-i", str(short), "-stream_loop", "-1", "-i", str(folder / "said.wav")]
    coding = ["-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "aac", "-t", str(SECONDS), str(clip)]
    subprocess.run(["ffmpeg", "-y", "-loglevel", "error", *inputs, *coding], check=True)
    return clip


if __name__ == "__main__":
    main()
