"""What a submission costs: 1 MB, 100 MB, 500 MB, and the time until its job runs."""

import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import httpx
import psutil
from lean import Lean, form_of
from rig import Server, make_clip, pad, percentile, say, wait_until, workplace

SUBMISSIONS = 200
BOUNDARY = "bench-boundary"


def main() -> None:
    with workplace() as folder:
        clip = make_clip(folder / "clip.mp4", seconds=4)
        small = pad(clip, folder / "small.mp4", 1_000_000)
        server = Server(folder / "storage", max_concurrent_jobs="1", submissions_per_minute="0")
        _one_megabyte(server, small)
        server.stop()
        server = Server(folder / "storage-2")
        _submitted_to_running(server, small)
        _hundred_megabytes(server, pad(small, folder / "hundred.mp4", 100_000_000))
        _large_upload(server, pad(small, folder / "large.mp4", 500_000_000))
        server.stop()


def _one_megabyte(server: Server, clip: Path) -> None:
    """One after the other, while the worker works on those before."""
    form, seconds = form_of(clip, "voice_activity"), []
    process = psutil.Process(server.process.pid)
    with Lean(server.url) as client:
        client.submit(form)  # the first one starts the prober
        before = process.cpu_times()
        for _ in range(SUBMISSIONS):
            began = time.perf_counter()
            client.submit(form)
            seconds.append(time.perf_counter() - began)
        after = process.cpu_times()
    say("submit of 1 MB, p50", percentile(seconds, 0.5) * 1e3, "ms", asked=15)
    say("submit of 1 MB, p95", percentile(seconds, 0.95) * 1e3, "ms", asked=50, quickest=round(min(seconds) * 1e3, 1))
    cpu = (after.user + after.system - before.user - before.system) / SUBMISSIONS
    say("submit of 1 MB, the server's processor time, its work on the jobs included", cpu * 1e3, "ms")


def _submitted_to_running(server: Server, clip: Path) -> None:
    delays = []
    for _ in range(30):
        job = server.submit(clip, "voice_activity")
        wait_until(lambda job=job: server.job(job)["status"] in ("completed", "failed"), limit_seconds=60)
        told = server.job(job)
        queued, started = (datetime.fromisoformat(told[name]) for name in ("queued_at", "started_at"))
        delays.append((started - queued).total_seconds())
    say("submitted to running, p95", percentile(delays, 0.95) * 1e3, "ms", asked=100)


def _hundred_megabytes(server: Server, video: Path) -> None:
    """What is written is counted by the kernel: everything that the server gave to write(), answers included."""
    process = psutil.Process(server.process.pid)
    seconds, written = [], []
    for _ in range(9):
        before = process.io_counters().write_chars
        began = time.perf_counter()
        answer = server.http.post(
            "/api/v1/jobs",
            content=_multipart(video),
            headers={"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"},
        )
        seconds.append(time.perf_counter() - began)
        written.append((process.io_counters().write_chars - before) / video.stat().st_size)
        answer.raise_for_status()
        server.http.post(f"/api/v1/jobs/{answer.json()['id']}/cancel")
    say("submit of 100 MB, p50", percentile(seconds, 0.5), "s", asked=0.4, worst=round(max(seconds), 3))
    say("submit of 100 MB, writes of the data", max(written), "times", asked=1.1)


def _large_upload(server: Server, video: Path) -> None:
    process = psutil.Process(server.process.pid)
    before, highest, answers = process.memory_info().rss, 0, []
    done = threading.Event()

    def watch() -> None:
        nonlocal highest
        with httpx.Client(base_url=server.url) as http:
            while not done.is_set():
                began = time.perf_counter()
                http.get("/health").raise_for_status()
                answers.append(time.perf_counter() - began)
                highest = max(highest, process.memory_info().rss)
                time.sleep(0.005)

    watching = threading.Thread(target=watch)
    watching.start()
    began = time.perf_counter()
    answer = server.http.post(
        "/api/v1/jobs",
        content=_multipart(video),
        headers={"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"},
    )
    seconds = time.perf_counter() - began
    done.set()
    watching.join()
    answer.raise_for_status()
    say("500 MB upload, more memory", (highest - before) / 2**20, "MiB", asked=64)
    say("500 MB upload, /health p99 meanwhile", percentile(answers, 0.99) * 1e3, "ms", asked=100, answers=len(answers))
    say("500 MB upload", seconds, "s", megabytes_per_second=round(video.stat().st_size / 1e6 / seconds))
    server.http.post(f"/api/v1/jobs/{answer.json()['id']}/cancel")


def _multipart(video: Path) -> Iterator[bytes]:
    disposition = 'Content-Disposition: form-data; name="selected_pipelines"'
    yield f"--{BOUNDARY}\r\n{disposition}\r\n\r\nvoice_activity\r\n".encode()
    disposition = f'Content-Disposition: form-data; name="video"; filename="{video.name}"'
    yield f"--{BOUNDARY}\r\n{disposition}\r\nContent-Type: video/mp4\r\n\r\n".encode()
    with video.open("rb") as content:
        while block := content.read(1 << 18):
            yield block
    yield f"\r\n--{BOUNDARY}--\r\n".encode()


if __name__ == "__main__":
    main()
