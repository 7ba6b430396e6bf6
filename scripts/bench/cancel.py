"""
How soon a cancelled job's processes are gone.

First a stage that listens to SIGTERM and one that does not, cancelled at work. Then 200 cancels at random moments, from
before the first process to after the last word, half of them of our own pipelines (those of speech with tiny models,
where their environment is there), half of all that misbehave; none may leave a process, and no cancelled job may ever
be anything else, also after the server was killed and has started again. At last, where there is a GPU, stages that
hold 1, 8 and 40 GB of its memory: how soon it is back. Takes some eight minutes.
"""

import argparse
import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
from rig import Others, Server, declare, make_clip, percentile, say, wait_until, workplace

from tests.tiny_models import ENVIRONMENTS, shelf_of
from videoannotator.environments import Environments
from videoannotator.machine.devices import Nvml
from videoannotator.runner.guardian import carrying
from videoannotator.runner.leftovers import STORAGE_MARK, family, needle
from videoannotator.runner.standby import FRESH_SECONDS
from videoannotator.workspace import storage_id

MISBEHAVING = Path(__file__).parents[2] / "tests" / "misbehaving"
ROUNDS = 20
CANCELS = 200
LATEST_SECONDS = 3.0
SOONEST_LATEST_SECONDS = 0.05
TOGETHER = ("scene_detection", "face_analysis", "voice_activity")
SPEECH = {
    "speech_recognition": ("default", "faster-whisper-small"),
    "speaker_diarization": ("speech", "pyannote-community-1"),
}
NOT_FOR_THIS = ("probes", "calls_home", "holds_gpu", "names_its_file_badly")
"""They want something of their test: a port, a GPU, a name."""

GIGABYTES = (1, 8, 40)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cancels", type=int, default=CANCELS)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with workplace() as folder:
        clip = make_clip(folder / "clip.mp4", seconds=20)
        others = Others()
        _on_the_processor(folder, clip, given.cancels, random.Random(given.seed))
        say("processor taken by others meanwhile", others.share(), "of all cores")
        _cancels_on_a_gpu(folder, clip)


def _on_the_processor(folder: Path, clip: Path, cancels: int, chance: random.Random) -> None:
    names = sorted(file.stem for file in MISBEHAVING.glob("*.py") if file.stem not in NOT_FOR_THIS)
    pipelines = declare(folder / "pipelines", *names)
    speech = [name for name, (environment, _) in SPEECH.items() if _is_there(environment)]
    models = shelf_of(folder / "models", *(SPEECH[name][1] for name in speech)).folder
    settings = {
        "pipeline_dirs": str(pipelines),
        "models_dir": str(models),
        "environments_dir": str(ENVIRONMENTS),
        "browser_copy": "false",
        "warm_seconds": "0",
        "stage_memory_bytes": str(2 * 1024**3),
    }
    server = Server(folder / "storage", **settings)
    _cancels_at_work(server, clip)
    own = [(name,) for name in ("scene_detection", "face_analysis", "person_tracking", "voice_activity", *speech)]
    found = _cancels_at_random(server, clip, cancels, ([*own, TOGETHER], [(name,) for name in names]), chance)
    _what_is_left(server, pipelines / "pids")
    server.kill()
    _are_still_cancelled(Server(folder / "storage", **settings), found)


def _is_there(environment: str) -> bool:
    return environment == "default" or Environments(ENVIRONMENTS).state(environment) == "ready"


def _cancels_at_work(server: Server, clip: Path) -> None:
    eyes = Eyes(server)
    for pipeline, asked in (("hangs", 200), ("ignores_sigterm", 1500)):
        gone = [_cancel_at_work(server, eyes, clip, pipeline) for _ in range(ROUNDS)]
        say(f"cancel of {pipeline}: request to all processes gone, p50", percentile(gone, 0.5) * 1e3, "ms")
        p95 = percentile(gone, 0.95) * 1e3
        say(f"cancel of {pipeline}: request to all processes gone, p95", p95, "ms", asked=asked)


def _cancel_at_work(server: Server, eyes: "Eyes", clip: Path, pipeline: str) -> float:
    job = server.submit(clip, pipeline)
    wait_until(lambda: _started(server, job), limit_seconds=20)
    assert eyes.at_work(), "blind eyes would find nothing left"
    return _cancel(server, eyes, job).gone_seconds


def _started(server: Server, job: str) -> bool:
    """The stage has reported: its code runs."""
    return bool(server.job(job)["stages"][0]["progress"] > 0)


class Cancelled(msgspec.Struct, frozen=True):
    job: str
    gone_seconds: float
    """From the request until the job says `cancelled` and nothing of it is at work."""

    too_soon: bool
    """It said `cancelled` while something was still at work."""


def _cancels_at_random(
    server: Server,
    clip: Path,
    number: int,
    kinds: tuple[list[tuple[str, ...]], list[tuple[str, ...]]],
    chance: random.Random,
) -> list[Cancelled]:
    eyes, found, too_late, turn = Eyes(server), list[Cancelled](), 0, 0
    latest: dict[tuple[str, ...], float] = {}
    while len(found) < number:
        kind = kinds[turn % 2]
        pipelines = kind[turn // 2 % len(kind)]
        turn += 1
        job = server.submit(clip, *pipelines)
        moment = chance.uniform(0, latest.get(pipelines, LATEST_SECONDS))
        time.sleep(moment)
        try:
            found.append(_cancel(server, eyes, job))
        except httpx.HTTPStatusError as refusal:
            if refusal.response.status_code != httpx.codes.CONFLICT:
                raise
            too_late += 1  # it had ended by itself: the next of its kind is cancelled before this moment of its life
            latest[pipelines] = max(SOONEST_LATEST_SECONDS, moment)
    gone = [one.gone_seconds * 1e3 for one in found]
    told: dict[str, Any] = {"own_pipelines": [",".join(one) for one in kinds[0]], "misbehaving": len(kinds[1])}
    what = f"{number} cancels at random: request to all processes gone"
    say(f"{what}, p50", percentile(gone, 0.5), "ms", **told)
    say(f"{what}, p95", percentile(gone, 0.95), "ms", asked=1500)
    say(f"{what}, max", max(gone), "ms", asked=5000)
    say("jobs that ended before they were cancelled, not counted", too_late, "jobs")
    say("jobs that said cancelled while a process worked", sum(one.too_soon for one in found), "jobs", asked=0)
    return found


def _cancel(server: Server, eyes: "Eyes", job: str) -> Cancelled:
    """Raises HTTPStatusError where the job has ended before."""
    began = time.perf_counter()
    server.http.post(f"/api/v1/jobs/{job}/cancel").raise_for_status()
    wait_until(lambda: server.job(job)["status"] == "cancelled", limit_seconds=30)
    too_soon = bool(eyes.at_work())
    wait_until(lambda: not eyes.at_work(), limit_seconds=30)
    return Cancelled(job, time.perf_counter() - began, too_soon)


class Eyes:
    """Which processes of a server are at work on a stage."""

    def __init__(self, server: Server) -> None:
        self._pid = server.process.pid
        self._mark = needle(STORAGE_MARK, storage_id(server.storage))
        self._idle = {self._pid}
        """Those that were seen to be something else, by number."""

    def at_work(self) -> set[int]:
        """Below the server or with its mark, whatever session they are in."""
        found = {seen.pid for seen in family(self._pid)} | set(carrying(self._mark))
        return {pid for pid in found - self._idle if self._works(pid)}

    def _works(self, pid: int) -> bool:
        """
        Not the guardian, not a prober, not the nursery, and no process that waits for a stage: one at work has a thread
        for its orders, one that waits for its first does not have it yet.
        """
        try:
            process = psutil.Process(pid)
            command = " ".join(process.cmdline())
            if "guardian.py" in command or "runner.probe" in command:
                self._idle.add(pid)
                return False
            if "runner.nursery" in command and process.ppid() == self._pid:
                return False  # what it bears is called so too, for a moment
            waits = "runner.child" in command and process.num_threads() == 1
            return not waits and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def _what_is_left(server: Server, told: Path) -> None:
    """When also those have left that had been started for a stage which never came."""
    eyes = Eyes(server)
    eyes.at_work()  # tells guardian and probers from others
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: not _stages(server), limit_seconds=FRESH_SECONDS + 2, every_seconds=0.1)
    hidden = [pid for pid in map(int, told.read_text().split()) if _sleeps_for_us(pid)]
    say("processes left after all cancels", len(_stages(server)) + len(hidden), "processes", asked=0)


def _stages(server: Server) -> list[int]:
    mark = needle(STORAGE_MARK, storage_id(server.storage))
    return [pid for pid in carrying(mark) if "runner.child" in _command(pid) or "3600" in _command(pid)]


def _sleeps_for_us(pid: int) -> bool:
    """A stage wrote this number down; it may be somebody else's by now."""
    return "3600" in _command(pid) or "runner.child" in _command(pid)


def _command(pid: int) -> str:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return " ".join(psutil.Process(pid).cmdline())
    return ""


def _are_still_cancelled(server: Server, cancelled: list[Cancelled]) -> None:
    """In the life after a `kill -9`."""
    others = sum(server.job(one.job)["status"] != "cancelled" for one in cancelled)
    say("cancelled jobs that are not cancelled any more", others, "jobs", asked=0, after="kill -9 and restart")
    server.stop()


def _cancels_on_a_gpu(folder: Path, clip: Path) -> None:
    nvml = Nvml()
    cards = nvml.cards()
    if not cards:
        say("GPUs to measure with", 0, "cards", reason=nvml.why_none)
        return
    for gigabytes in GIGABYTES:
        if gigabytes * 1.1e9 > max(card.free_bytes for card in cards):
            say(f"cancel with {gigabytes} GB of GPU memory held", 0, "cancels", reason="no card has so much free")
            continue
        pipelines = _declare_on_gpu(folder / f"pipelines-{gigabytes}", gigabytes)
        server = Server(folder / f"storage-{gigabytes}", pipeline_dirs=str(pipelines), cache="off")
        seconds = [_until_memory_is_back(server, clip, gigabytes, lambda: _free(nvml)) for _ in range(ROUNDS)]
        server.stop()
        what = f"cancel with {gigabytes} GB of GPU memory held: request to memory back"
        say(f"{what}, p50", percentile(seconds, 0.5), "s")
        say(f"{what}, p95", percentile(seconds, 0.95), "s", asked=1.5)
        say(f"{what}, max", max(seconds), "s", asked=5)
    nvml.close()


def _until_memory_is_back(server: Server, clip: Path, gigabytes: int, free: Callable[[], int]) -> float:
    before = free()
    job = server.submit(clip, "holds_gpu", config={"holds_gpu": {"gigabytes": gigabytes}})
    wait_until(lambda: free() < before - gigabytes * 0.95e9 and _started(server, job), limit_seconds=60)
    began = time.perf_counter()
    server.http.post(f"/api/v1/jobs/{job}/cancel").raise_for_status()
    wait_until(lambda: free() > before - 64 * 1024**2, limit_seconds=30)
    seconds = time.perf_counter() - began
    wait_until(lambda: server.job(job)["status"] == "cancelled", limit_seconds=10)
    return seconds


def _free(nvml: Nvml) -> int:
    return sum(card.free_bytes for card in nvml.cards())


def _declare_on_gpu(folder: Path, gigabytes: int) -> Path:
    file = declare(folder, "holds_gpu") / "holds_gpu.yaml"
    needs = f"resources: {{device: gpu, gpu_memory_bytes: {gigabytes * 1024**3 + 2**29}, "
    parameter = f"""parameters:
  - {{name: gigabytes, type: integer, label: GB, description: memory it takes, default: {gigabytes}, min: 1}}
"""
    text = file.read_text().replace("resources: {", needs).replace("parameters:\n", parameter)
    file.write_text(text)
    return folder


if __name__ == "__main__":
    main()
