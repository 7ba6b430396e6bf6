"""
Voice activity and speech recognition by the clock: speed end to end, what a stage costs over the bare library on the
same input, and whether memory grows with the length of a video.

Speech recognition runs with a random Whisper of the size of OpenAI's `tiny` that says as much as is spoken: the words
mean nothing, the work is that of the real one. Stage and bare library get as many threads as there are cores. Every
pair is measured in turns, because the speed of a shared machine changes from minute to minute; processor seconds are
told too. `speech.py` does the same for WhisperX and pyannote.
"""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from alone import asked
from rig import CONSOLE_COMMAND, Server, medians, percentile, say, seconds_of, wait_until, workplace
from truth_sound import speech

from tests.tiny_models import WHISPER_TINY, shelf_of, whisper_at_work
from videoannotator.environments import Environments
from videoannotator.media.probe import probe
from videoannotator.models.catalogue import Models
from videoannotator.models.shelf import Shelf
from videoannotator.pipelines.catalogue import Catalogue
from videoannotator.pipelines.supplies import Supplies
from videoannotator.store.trouble import DATABASE

ROUNDS = 7
WORDS = {"model": "tiny", "language": "en", "min_log_probability": -20.0, "max_compression": 1000.0}
TOKENS = 100
"""In half a minute: about 75 words."""

SHORT, LONG = 60, 600
BARE = """
import json, sys, time
from faster_whisper import WhisperModel, decode_audio
from faster_whisper.vad import get_speech_timestamps, get_vad_model
get_vad_model()
what, model, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
whisper = WhisperModel(model, compute_type="int8", cpu_threads=threads) if what == "words" else None
def voice(sound):
    get_speech_timestamps(sound, min_speech_duration_ms=150, min_silence_duration_ms=250, speech_pad_ms=30)
def words(sound):
    segments, _ = whisper.transcribe(sound, language="en", beam_size=5, temperature=[0.0], word_timestamps=True,
        condition_on_previous_text=False, compression_ratio_threshold=1000.0, log_prob_threshold=-20.0,
        vad_filter=True, vad_parameters=dict(min_silence_duration_ms=500, speech_pad_ms=200))
    list(segments)
print("ready", flush=True)
for line in sys.stdin:
    began, cpu = time.perf_counter(), time.process_time()
    (voice if what == "voice" else words)(decode_audio(line.strip()))
    print(json.dumps([time.perf_counter() - began, time.process_time() - cpu]), flush=True)
"""


class Case(NamedTuple):
    """What is measured, and where."""

    pipeline: str
    config: dict[str, Any]
    bare: str
    """What the library's own process is asked for."""

    folder: Path
    models: Path

    def server(self, name: str, **settings: str) -> Server:
        folder = self.folder / f"{self.pipeline}-{name}"
        return Server(folder, browser_copy="false", models_dir=str(self.models), **settings)


def main() -> None:
    with workplace() as folder:
        whisper_at_work(folder / "whisper", WHISPER_TINY, TOKENS)
        shelf = shelf_of(folder / "models")
        shelf.bring_in(folder / "whisper", "faster-whisper-tiny")
        models = shelf.folder
        second, short, long = (_clip(folder, seconds) for seconds in (1, SHORT, LONG))
        _end_to_end(folder, second, short, long)
        voice = Case("voice_activity", {}, "voice", folder, models)
        words = Case("speech_recognition", WORDS, "words", folder, models)
        _overhead(voice, short)
        _overhead(words, short)
        for case in (voice, words):
            _memory(case, short, long)


def _end_to_end(folder: Path, second: Path, short: Path, long: Path) -> None:
    """The command from its call to its end."""
    command = [CONSOLE_COMMAND, "annotate", "--no-cache", "--pipelines", "voice_activity", "--output", str(folder)]
    took: dict[Path, list[float]] = {second: [], short: [], long: []}
    for _ in range(1 + ROUNDS):
        for clip, times in took.items():
            times.append(seconds_of([*command, str(clip)]))
    start, minute, ten_minutes = (percentile(seconds[1:], 0.5) for seconds in took.values())
    say("voice: the command on a second of video, p50", start, "s")
    for length, seconds in ((SHORT, minute), (LONG, ten_minutes)):
        say(f"voice: {length} s end to end, start-up included", length / seconds, "x real time", seconds=seconds)
    speed = (LONG - 1) / (ten_minutes - start)
    say("voice: start-up apart", speed, "x real time", asked=200, at_least=True, load=os.getloadavg()[0])


def _overhead(case: Case, clip: Path) -> None:
    """The stage in a warm process, from its start to its recorded end, against the library in a process that waits."""
    server = case.server("warm", warm_seconds="600", threads_per_stage=str(os.cpu_count()))
    command = [sys.executable, "-c", BARE, case.bare, str(case.models / "faster-whisper-tiny"), str(os.cpu_count())]
    bare = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert bare.stdin is not None
    assert bare.stdout is not None
    bare.stdout.readline()
    ours, theirs = [], []
    for _ in range(1 + ROUNDS):
        print(clip, file=bare.stdin, flush=True)
        theirs.append(json.loads(bare.stdout.readline()))
        ours.append(_stage(server, case, clip))
    bare.stdin.close()
    bare.wait(10)
    server.stop()
    # The first round loads.
    (mine, my_cpu), (other, their_cpu) = (medians(rows[1:]) for rows in (ours, theirs))
    say(f"{case.pipeline}: a stage of {SHORT} s, imports apart, p50", mine, "s", cpu_seconds=my_cpu)
    say(f"{case.pipeline}: the bare library on the same, p50", other, "s", cpu_seconds=their_cpu)
    say(f"{case.pipeline}: overhead of the stage", 100 * (mine / other - 1), "%", asked=10, load=os.getloadavg()[0])
    say(f"{case.pipeline}: overhead in processor seconds", 100 * (my_cpu / their_cpu - 1), "%", asked=10)


def _memory(case: Case, short: Path, long: Path) -> None:
    """Of a process that does nothing but run the stage's function."""
    small, large = (_peak_bytes(case, clip) for clip in (short, long))
    say(
        f"{case.pipeline}: peak memory, {LONG} s over {SHORT} s", large / small, "",
        asked=1.1, short_mib=round(small / 2**20), long_mib=round(large / 2**20),
    )  # fmt: skip


def _peak_bytes(case: Case, clip: Path) -> int:
    shelf = Shelf(case.models, Models.load())
    catalogue = Catalogue.load(supplies=Supplies(shelf, Environments(case.folder)))
    complete = catalogue.require([case.pipeline], {case.pipeline: case.config})[case.pipeline]
    models = catalogue.supplies.models(catalogue.get(case.pipeline), complete)
    threads = os.cpu_count() or 1
    line = asked(case.pipeline, clip, probe(clip), config=complete, models=models, threads=threads)
    command = [sys.executable, str(Path(__file__).with_name("alone.py"))]
    done = subprocess.run(command, input=json.dumps(line), stdout=subprocess.PIPE, text=True, check=True)
    peak: int = json.loads(done.stdout.splitlines()[-1])[-1]
    return peak


def _stage(server: Server, case: Case, clip: Path) -> tuple[float, float]:
    """Seconds by the clock and of the processors, as the server keeps them."""
    job = server.submit(clip, case.pipeline, config={case.pipeline: case.config})
    wait_until(lambda: server.job(job)["status"] in ("completed", "failed"), limit_seconds=900, every_seconds=0.5)
    with closing(sqlite3.connect(f"file:{server.storage / DATABASE}?mode=ro", uri=True)) as database:
        asked = """SELECT s.status, s.seconds, s.cpu_seconds FROM stages AS s JOIN jobs AS j ON j.seq = s.job
            WHERE j.id = ? AND s.pipeline = ?"""
        status, seconds, cpu_seconds = database.execute(asked, (job, case.pipeline)).fetchone()
    if status != "completed":
        raise RuntimeError(f"{case.pipeline} ended as {status}")
    return seconds, cpu_seconds


def _clip(folder: Path, seconds: int) -> Path:
    """A small picture, and stereo at 48 kHz as a phone records it: ten sentences with pauses, again and again."""
    sound, clip = folder / "said.wav", folder / f"clip{seconds}.mp4"
    speech(sound)
    inputs = ["-f", "lavfi", "-i", "testsrc2=s=320x240:r=25", "-stream_loop", "-1", "-i", str(sound)]
    coding = ["-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac", "-ac", "2", "-ar", "48000"]
    subprocess.run(["ffmpeg", "-y", "-loglevel", "error", *inputs, "-t", str(seconds), *coding, str(clip)], check=True)
    return clip


if __name__ == "__main__":
    main()
