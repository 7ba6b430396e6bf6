"""kill -9 of the server in the middle of a job: what is left after a second, and how the restart goes."""

import time

from rig import Server, lives, make_clip, percentile, say, wait_until, workplace

ROUNDS = 5


def main() -> None:
    gone, healthy, finished = [], [], 0
    with workplace() as folder:
        clip = make_clip(folder / "clip.mp4", seconds=20, size="640x360")
        for number in range(ROUNDS):
            storage = folder / f"storage-{number}"
            server = Server(storage)
            job = server.submit(clip, "scene_detection", "face_analysis", "voice_activity")
            wait_until(lambda s=server, j=job: s.job(j)["progress"] > 0.1, limit_seconds=60)
            family = server.family()
            server.kill()
            gone.append(wait_until(lambda f=family: not any(lives(p) for p in f), limit_seconds=10))
            server = Server(storage)
            healthy.append(server.start_seconds)
            wait_until(lambda s=server, j=job: s.job(j)["status"] == "completed", limit_seconds=120, every_seconds=0.05)
            finished += server.job(job)["outcome"] == "full"
            server.stop()
            time.sleep(0.1)
    say("kill -9 of the server to no process left, worst", max(gone), "s", asked=1.0, rounds=ROUNDS)
    say("restart after kill -9 to healthy, p50", percentile(healthy, 0.5), "s", asked=2.0, worst=round(max(healthy), 3))
    say("jobs that finished by themselves after the restart", finished, "jobs", asked=ROUNDS, at_least=True)


if __name__ == "__main__":
    main()
