"""Twenty clients that submit and poll for 30 seconds: no error, quick answers, and slots that never wait for a poll."""

import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from lean import Lean, Refused, form_of
from rig import Server, make_clip, percentile, say, workplace

CLIENTS = 20
SECONDS = 30.0
SLOTS = 4
STAGE_SECONDS = 0.5
FINAL = ("completed", "failed", "cancelled")


def main() -> None:
    with workplace() as folder:
        clip = make_clip(folder / "clip.mp4", seconds=1)
        pipelines = str(Path(__file__).parent / "pipelines")
        server = Server(folder / "storage", pipeline_dirs=pipelines, max_concurrent_jobs=str(SLOTS))
        server.submit(clip, "tells_time")  # the first one starts the prober
        form = form_of(clip, "tells_time", config={"tells_time": {"steps": 5, "step_seconds": STAGE_SECONDS / 5}})
        until = time.perf_counter() + SECONDS
        clients = [_Client(server.url, form, until) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        submits = [seconds for client in clients for seconds in client.submits]
        jobs = [job for client in clients for job in client.jobs]
        wrong = [error for client in clients for error in client.errors]
        say("errors of 20 clients in 30 s", len(wrong), "errors", asked=0, first=wrong[:1], submits=len(submits))
        say("submit among 20 clients, p95", percentile(submits, 0.95) * 1e3, "ms", asked=200, worst=max(submits) * 1e3)
        polls = [seconds for client in clients for seconds in client.polls]
        say("poll among 20 clients, p95", percentile(polls, 0.95) * 1e3, "ms", polls=len(polls))
        say("a free slot waits for the next job, p95", percentile(_waits(jobs), 0.95) * 1e3, "ms", asked=250)
        say("jobs finished", len(jobs) / SECONDS, "jobs/s", slots=SLOTS, stage_seconds=STAGE_SECONDS)
        server.stop()


class _Client(threading.Thread):
    """Submits a job, polls it to its end, and begins again."""

    def __init__(self, url: str, form: bytes, until: float) -> None:
        super().__init__()
        self._server = Lean(url)
        self._form = form
        self._until = until
        self.submits: list[float] = []
        self.polls: list[float] = []
        self.jobs: list[dict[str, Any]] = []
        self.errors: list[str] = []

    def run(self) -> None:
        with self._server:
            while time.perf_counter() < self._until and not self.errors:
                try:
                    self._once()
                except (OSError, Refused, AssertionError) as exc:
                    self.errors.append(repr(exc))

    def _once(self) -> None:
        began = time.perf_counter()
        job = self._server.submit(self._form)
        self.submits.append(time.perf_counter() - began)
        while job["status"] not in FINAL and time.perf_counter() < self._until:
            time.sleep(0.1)
            began = time.perf_counter()
            job = self._server.job(job["id"])
            self.polls.append(time.perf_counter() - began)
        if job["status"] in FINAL:
            assert job["status"] == "completed", job
            self.jobs.append(job)


def _waits(jobs: list[dict[str, Any]]) -> list[float]:
    """For each job that waited in the queue: from the moment when a slot became free to its own start."""
    ended = sorted(datetime.fromisoformat(job["finished_at"]).timestamp() for job in jobs)
    began = sorted(datetime.fromisoformat(job["started_at"]).timestamp() for job in jobs)
    # With all slots busy the n-th start can come no sooner than the (n - SLOTS)-th end.
    return [max(0.0, start - end) for start, end in zip(began[SLOTS:], ended, strict=False)]


if __name__ == "__main__":
    main()
