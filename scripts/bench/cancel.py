"""How soon a cancelled job's processes are gone: a stage that listens to SIGTERM, and one that does not."""

import time
from pathlib import Path

from rig import Server, declare, lives, make_clip, percentile, say, wait_until, workplace

ROUNDS = 20


def main() -> None:
    with workplace() as folder:
        clip = make_clip(folder / "clip.mp4", seconds=2)
        server = Server(
            folder / "storage", pipeline_dirs=str(declare(folder / "pipelines", "hangs", "ignores_sigterm"))
        )
        _warm_up(server, clip)
        for pipeline, asked in (("hangs", 200), ("ignores_sigterm", 1500)):
            gone = [_cancel(server, clip, pipeline) for _ in range(ROUNDS)]
            say(f"cancel of {pipeline}: request to all processes gone, p50", percentile(gone, 0.5) * 1e3, "ms")
            say(
                f"cancel of {pipeline}: request to all processes gone, p95",
                percentile(gone, 0.95) * 1e3,
                "ms",
                asked=asked,
            )
        server.stop()


def _warm_up(server: Server, clip: Path) -> None:
    """The first submission starts the prober, which must not be taken for a stage."""
    job = server.submit(clip, "hangs")
    server.http.post(f"/api/v1/jobs/{job}/cancel").raise_for_status()
    wait_until(lambda: server.job(job)["status"] == "cancelled", limit_seconds=10)


def _cancel(server: Server, clip: Path, pipeline: str) -> float:
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


if __name__ == "__main__":
    main()
