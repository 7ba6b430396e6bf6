"""The ZIP of a job with a 500 MB video: how soon it begins, how fast it comes, what it costs in memory."""

import time

import psutil
from rig import Server, make_clip, pad, say, wait_until, workplace

MEGABYTES = 500


def main() -> None:
    with workplace() as folder:
        clip = make_clip(folder / "clip.mp4", seconds=4)
        server = Server(folder / "storage")
        job = server.submit(pad(clip, folder / "large.mp4", MEGABYTES * 1_000_000), "voice_activity")
        wait_until(lambda: server.job(job)["status"] == "completed", limit_seconds=60)
        process = psutil.Process(server.process.pid)
        before, highest, starts = process.memory_info().rss, 0, []
        for _ in range(3):
            began = time.perf_counter()
            received = 0
            with server.http.stream("GET", f"/api/v1/jobs/{job}/artifacts") as answer:
                for chunk in answer.iter_raw(1 << 20):
                    if not received:
                        starts.append(time.perf_counter() - began)
                    received += len(chunk)
                    highest = max(highest, process.memory_info().rss)
            seconds = time.perf_counter() - began
            assert received == int(answer.headers["content-length"]), "the length was not as told"
        say(f"ZIP of a {MEGABYTES} MB video, request to the first MiB", max(starts), "s", asked=0.2)
        say(f"ZIP of a {MEGABYTES} MB video, more memory", (highest - before) / 2**20, "MiB", asked=32)
        say(f"ZIP of a {MEGABYTES} MB video", received / 1e6 / seconds, "MB/s")
        server.stop()


if __name__ == "__main__":
    main()
