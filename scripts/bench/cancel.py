"""
How soon a cancelled job's processes are gone.

First a stage that listens to SIGTERM and one that does not, cancelled at work. Then 200 cancels at random moments, from
before the first process to after the last word, over our own pipelines and those that misbehave; none may leave a
process, and no cancelled job may ever be anything else. At last, where there is a GPU, stages that hold 1, 8 and 40 GB
of its memory: how soon it is back.
"""

import argparse
import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
from rig import Server, declare, lives, make_clip, percentile, say, wait_until, workplace

from videoannotator.machine.devices import Nvml
from videoannotator.runner.guardian import carrying
from videoannotator.runner.leftovers import STORAGE_MARK

ROUNDS = 20
CANCELS = 200
LATEST_SECONDS = 1.5
OUR_OWN = ("scene_detection", "face_analysis", "person_tracking", "voice_activity")
MISBEHAVING = (
    "behaves",
    "eats_memory",
    "family",
    "fills_stderr",
    "floods",
    "hangs",
    "holds_the_gil",
    "ignores_sigterm",
    "prints_100_mb",
    "reports_a_million_times",
    "starts_daemon",
    "starts_setsid",
    "starts_sleep",
    "talks_after_done",
)
GIGABYTES = (1, 8, 40)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cancels", type=int, default=CANCELS)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with workplace() as folder:
        clip = make_clip(folder / "clip.mp4", seconds=20)
        pipelines = str(declare(folder / "pipelines", *MISBEHAVING))
        server = Server(
            folder / "storage",
            pipeline_dirs=pipelines,
            cache="off",
            browser_copy="false",
            warm_seconds="0",
            stage_memory_bytes=str(2 * 1024**3),
        )
        _cancels_at_work(server, clip)
        _cancels_at_random(server, clip, given.cancels, random.Random(given.seed))
        _stop_and_count(server)
        _cancels_on_a_gpu(folder, clip)


def _cancels_at_work(server: Server, clip: Path) -> None:
    _warm_up(server, clip)
    for pipeline, asked in (("hangs", 200), ("ignores_sigterm", 1500)):
        gone = [_cancel_at_work(server, clip, pipeline) for _ in range(ROUNDS)]
        say(f"cancel of {pipeline}: request to all processes gone, p50", percentile(gone, 0.5) * 1e3, "ms")
        p95 = percentile(gone, 0.95) * 1e3
        say(f"cancel of {pipeline}: request to all processes gone, p95", p95, "ms", asked=asked)


def _cancels_at_random(server: Server, clip: Path, number: int, chance: random.Random) -> None:
    before = {process.pid for process in server.family()}
    gone, cancelled, left, too_late = [], [], 0, 0
    for turn in range(number):
        pipeline = (*OUR_OWN, *MISBEHAVING)[turn % (len(OUR_OWN) + len(MISBEHAVING))]
        job = server.submit(clip, pipeline)
        time.sleep(chance.uniform(0, LATEST_SECONDS))
        began = time.perf_counter()
        if server.http.post(f"/api/v1/jobs/{job}/cancel").status_code == httpx.codes.CONFLICT:
            too_late += 1  # it had ended on its own
            continue
        wait_until(lambda job=job: server.job(job)["status"] == "cancelled", limit_seconds=30)
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: not _at_work(server, before), limit_seconds=5)
        gone.append(time.perf_counter() - began)
        left += len(_at_work(server, before))
        cancelled.append(job)
    what = f"{number} cancels at random: request to all processes gone"
    say(f"{what}, p50", percentile(gone, 0.5) * 1e3, "ms")
    say(f"{what}, p95", percentile(gone, 0.95) * 1e3, "ms", asked=1500)
    say(f"{what}, max", max(gone) * 1e3, "ms")
    say("cancels that came after the end", too_late, "jobs", cancelled=len(cancelled))
    say("processes left after a cancel", left, "processes", asked=0)
    others = sum(server.job(job)["status"] != "cancelled" for job in cancelled)
    say("cancelled jobs that are not cancelled any more", others, "jobs", asked=0)


def _at_work(server: Server, before: set[int]) -> list[psutil.Process]:
    """
    New processes, without those that wait for a stage and the probers: a process at work has a thread for its orders,
    one that waits for its first does not have it yet.
    """
    found = []
    for process in server.family():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if process.pid in before or not lives(process):
                continue
            command = " ".join(process.cmdline())
            waits = "runner.probe" in command or ("runner.child" in command and process.num_threads() == 1)
            if not waits:
                found.append(process)
    return found


def _stop_and_count(server: Server) -> None:
    marked = STORAGE_MARK.encode() + b"="
    ours = {process.pid for process in server.family()}
    server.stop()
    left = [pid for pid in carrying(marked) if pid in ours]
    say("processes left when the server has stopped", len(left), "processes", asked=0)


def _warm_up(server: Server, clip: Path) -> None:
    """The first submission starts the prober, which must not be taken for a stage."""
    job = server.submit(clip, "hangs")
    server.http.post(f"/api/v1/jobs/{job}/cancel").raise_for_status()
    wait_until(lambda: server.job(job)["status"] == "cancelled", limit_seconds=10)


def _cancel_at_work(server: Server, clip: Path, pipeline: str) -> float:
    before = {process.pid for process in server.family()}
    job = server.submit(clip, pipeline)
    wait_until(lambda: _started(server, job), limit_seconds=20)
    stages = [process for process in server.family() if process.pid not in before]
    began = time.perf_counter()
    server.http.post(f"/api/v1/jobs/{job}/cancel").raise_for_status()
    wait_until(lambda: not any(lives(process) for process in stages), limit_seconds=10, every_seconds=0.001)
    seconds = time.perf_counter() - began
    wait_until(lambda: server.job(job)["status"] == "cancelled", limit_seconds=5)
    return seconds


def _started(server: Server, job: str) -> bool:
    """The stage has reported: its code runs."""
    return bool(server.job(job)["stages"][0]["progress"] > 0)


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
