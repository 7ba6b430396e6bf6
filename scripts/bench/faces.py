"""
Faces and people by MediaPipe, by the clock: 720p at 25 frames/s, looked at five times a second. Speed end to end, what
a stage costs over the bare library on the same input, and whether memory grows with the length of a video.

Speed is told twice: frames of the clip that are covered in a second, and frames that are looked at in a second, a fifth
of that. The bare library is a plain loop of PyAV and MediaPipe over the same frames in the same size, and for faces the
same regions. Every pair is measured in turns, because the speed of a shared machine changes from minute to minute;
processor seconds are told too.
"""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from rig import CONSOLE_COMMAND, Server, left_out, medians, percentile, say, seconds_of, wait_until, workplace

from videoannotator.pipelines.faces_mediapipe import regions
from videoannotator.store.trouble import DATABASE

ROUNDS = 5
RATE = 5.0
FRAME_RATE = 25
WIDTH, HEIGHT = 960, 540
"""What is looked at: 1280 x 720 at the default `max_side`."""

SHORT, LONG = 60, 600
DEMO = Path(__file__).parents[3] / "shared" / "data" / "peekaboo_hevc.mp4"
FACES = {"engine": "mediapipe", "rate": RATE}
PEOPLE = {"engine": "mediapipe", "rate": RATE}

BARE = """
import json, math, sys, time
import av, numpy
from mediapipe.python.solutions.face_detection import FaceDetection
from mediapipe.python.solutions.pose import Pose
what, rate, width, height, threads, regions = sys.argv[1], *map(float, sys.argv[2:6]), json.loads(sys.argv[6])
if what == "faces":
    model = FaceDetection(min_detection_confidence=0.5, model_selection=0)
else:
    model = Pose(static_image_mode=True, model_complexity=1, min_detection_confidence=0.5)
    regions = [[0, 0, int(width), int(height)]]
def look(clip):
    due = 0.0
    with av.open(clip) as video:
        track = video.streams.video[0]
        track.thread_type, track.codec_context.thread_count = "AUTO", int(threads)
        for frame in video.decode(track):
            if frame.time < due - 1e-6:
                continue
            due = (math.floor(frame.time * rate + 1e-6) + 1) / rate
            image = frame.to_ndarray(format="rgb24", width=int(width), height=int(height), interpolation="AREA")
            for x, y, w, h in regions:
                model.process(numpy.ascontiguousarray(image[y : y + h, x : x + w]))
print("ready", flush=True)
for line in sys.stdin:
    began, cpu = time.perf_counter(), time.process_time()
    look(line.strip())
    print(json.dumps([time.perf_counter() - began, time.process_time() - cpu]), flush=True)
"""


class Case(NamedTuple):
    """What is measured, and where."""

    what: str
    pipeline: str
    config: dict[str, Any]
    folder: Path

    def server(self, name: str, **settings: str) -> Server:
        return Server(self.folder / f"{self.pipeline}-{name}", browser_copy="false", **settings)


def main() -> None:
    if not DEMO.exists():
        left_out("faces and people", f"no real video to measure with: {DEMO.name}")
        return
    with workplace() as folder:
        short = _real(folder / "short.mp4")
        second, long = _cut(short, folder / "second.mp4", 1), _again(short, folder / "long.mp4")
        _end_to_end(folder, second, short)
        for case in (
            Case("faces", "face_analysis", FACES, folder),
            Case("people", "person_tracking", PEOPLE, folder),
        ):
            _overhead(case, short)
            _memory(case, short, long)


def _end_to_end(folder: Path, second: Path, short: Path) -> None:
    """The command from its call to its end."""
    command = [CONSOLE_COMMAND, "annotate", "--no-cache", "--pipelines", "face_analysis", "--output", str(folder)]
    command += ["--set", f"face_analysis.rate={RATE}"]
    took: dict[Path, list[float]] = {second: [], short: []}
    for _ in range(1 + ROUNDS):
        for clip, times in took.items():
            times.append(seconds_of([*command, str(clip)]))
    start, minute = (percentile(seconds[1:], 0.5) for seconds in took.values())
    frames, load = SHORT * FRAME_RATE, os.getloadavg()[0]
    say("faces: the command on a second of video, p50", start, "s")
    say("faces: frames covered in a second, start-up included", frames / minute, "frames/s", seconds=minute)
    apart = (SHORT - 1) * FRAME_RATE / (minute - start)
    say("faces: frames covered in a second", apart, "frames/s", asked=150, at_least=True, load=load)
    say("faces: frames looked at in a second", apart * RATE / FRAME_RATE, "frames/s", load=load)


def _overhead(case: Case, clip: Path) -> None:
    """The stage in a warm process, from its start to its recorded end, against the library in a process that waits."""
    server = case.server("warm", warm_seconds="600")
    boxes = [[r.x, r.y, r.width, r.height] for r in regions(WIDTH, HEIGHT, "squares")]
    words = [case.what, RATE, WIDTH, HEIGHT, os.cpu_count(), json.dumps(boxes)]
    command = [sys.executable, "-c", BARE, *map(str, words)]
    bare = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert bare.stdin is not None
    assert bare.stdout is not None
    bare.stdout.readline()
    ours, theirs = [], []
    for _ in range(1 + ROUNDS):
        print(clip, file=bare.stdin, flush=True)
        theirs.append(json.loads(bare.stdout.readline()))
        took = _stage(server, case, clip)
        ours.append((took.seconds, took.cpu_seconds))
    bare.stdin.close()
    bare.wait(10)
    server.stop()
    # The first round loads.
    (mine, my_cpu), (other, their_cpu) = (medians(rows[1:]) for rows in (ours, theirs))
    frames = SHORT * FRAME_RATE
    say(f"{case.what}: a stage of {SHORT} s, imports apart, p50", mine, "s", cpu_seconds=my_cpu, frames_s=frames / mine)
    say(f"{case.what}: the bare library on the same, p50", other, "s", cpu_seconds=their_cpu)
    say(f"{case.what}: overhead of the stage", 100 * (mine - other) / other, "%", asked=10)
    say(f"{case.what}: overhead in processor seconds", 100 * (my_cpu - their_cpu) / their_cpu, "%")


def _memory(case: Case, short: Path, long: Path) -> None:
    """Each in a new process: a warm one keeps what it had."""
    server = case.server("cold", warm_seconds="0")
    small, large = (_stage(server, case, clip).peak_memory_bytes for clip in (short, long))
    server.stop()
    say(
        f"{case.what}: peak memory, {LONG} s over {SHORT} s", large / small, "",
        asked=1.1, short_mib=round(small / 2**20), long_mib=round(large / 2**20),
    )  # fmt: skip


class Took(NamedTuple):
    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int


def _stage(server: Server, case: Case, clip: Path) -> Took:
    """As the server keeps it."""
    job = server.submit(clip, case.pipeline, config={case.pipeline: case.config})
    wait_until(lambda: server.job(job)["status"] in ("completed", "failed"), limit_seconds=900, every_seconds=0.02)
    with closing(sqlite3.connect(f"file:{server.storage / DATABASE}?mode=ro", uri=True)) as database:
        asked = """SELECT s.status, s.seconds, s.cpu_seconds, s.peak_memory_bytes FROM stages AS s
            JOIN jobs AS j ON j.seq = s.job WHERE j.id = ? AND s.pipeline = ?"""
        status, *took = database.execute(asked, (job, case.pipeline)).fetchone()
    if status != "completed":
        raise RuntimeError(f"{case.pipeline} ended as {status}")
    return Took(*took)


def _real(target: Path) -> Path:
    """A parent and a baby, enlarged."""
    look = ["-vf", f"scale=1280:720:flags=bicubic,fps={FRAME_RATE}", "-t", str(SHORT), "-an", "-c:v", "libx264"]
    return _ffmpeg(["-stream_loop", "-1", "-i", str(DEMO), *look, "-preset", "medium"], target)


def _cut(clip: Path, target: Path, seconds: int) -> Path:
    return _ffmpeg(["-i", str(clip), "-t", str(seconds), "-c", "copy"], target)


def _again(clip: Path, target: Path) -> Path:
    """The same minute, ten times."""
    return _ffmpeg(["-stream_loop", str(LONG // SHORT - 1), "-i", str(clip), "-c", "copy"], target)


def _ffmpeg(words: list[str], target: Path) -> Path:
    subprocess.run(["ffmpeg", "-y", "-loglevel", "error", *words, str(target)], check=True)
    return target


if __name__ == "__main__":
    main()
