"""
What the stages of the environment `speech` cost over the bare libraries, WhisperX and pyannote, on the same minute.

The stage's function and the library each run in a process of that environment which has all imported and waits; both
read the sound, load their models and work. Whisper is a random one of the size of OpenAI's `tiny` that says as much as
is spoken; its voice detector is WhisperX's own. The models for alignment and for speakers are the tests' tiny ones,
with pyannote's speaker network in its real size. What lies between server and stage is measured by `voice.py`. Every
pair is measured in turns, because the speed of a shared machine changes from minute to minute; processor seconds too.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from alone import asked
from rig import left_out, medians, say, workplace
from truth_sound import speech

from tests.tiny_models import ENVIRONMENTS, WHISPER_TINY, shelf_of, whisper_at_work
from videoannotator.environments import Environments
from videoannotator.media.probe import probe
from videoannotator.pipelines.catalogue import Catalogue
from videoannotator.pipelines.supplies import Supplies

ROUNDS = 5
ALONE = Path(__file__).with_name("alone.py")
SECONDS = 60
TOKENS = 100
"""In half a minute: about 75 words."""

WORDS = {
    "engine": "whisperx", "model": "tiny", "language": "en", "min_log_probability": -20.0, "max_compression": 1000.0,
}  # fmt: skip
THREADS = os.cpu_count() or 1

MODULES = ("whisperx.asr", "whisperx.alignment", "whisperx.diarize", "torch")

BARE = """
import json, os, sys, time
told = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
import torch
from faster_whisper import decode_audio
from whisperx.alignment import align, load_align_model
from whisperx.asr import load_model
from whisperx.diarize import DiarizationPipeline
from videoannotator.pipelines.speech_whisperx import _have_sentence_tables

def work(asked):
    torch.manual_seed(0)
    torch.set_num_threads(asked["threads"])
    paths = {one["name"]: one["path"] for one in asked["models"]}
    sound = decode_audio(asked["clip"])
    if asked["pipeline"] == "speaker_diarization":
        DiarizationPipeline(model_name=paths["pyannote-community-1"], device="cpu")(sound)
        return
    model = load_model(
        paths["faster-whisper-tiny"], "cpu", compute_type="int8", language="en", vad_method="pyannote",
        asr_options={"beam_size": asked["config"]["beam_size"], "temperatures": [0.0]},
        vad_options={"vad_onset": 0.5, "vad_offset": 0.363}, local_files_only=True, threads=asked["threads"])
    said = model.transcribe(sound, batch_size=1)
    _have_sentence_tables("en")
    aligner, about = load_align_model("en", "cpu", model_name=paths["align-en"], model_cache_only=True)
    align(said["segments"], aligner, about, sound, "cpu")

print("ready", file=told, flush=True)
for line in sys.stdin:
    began, cpu = time.perf_counter(), time.process_time()
    work(json.loads(line))
    print(json.dumps([time.perf_counter() - began, time.process_time() - cpu]), file=told, flush=True)
"""


class Side(NamedTuple):
    """A process that waits for clips."""

    process: "subprocess.Popen[str]"

    def take(self, asked: dict[str, Any]) -> tuple[float, float]:
        """Seconds by the clock and of the processors."""
        assert self.process.stdin is not None
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        wall, cpu, *_ = json.loads(self.hear())
        return wall, cpu

    def hear(self) -> str:
        assert self.process.stdout is not None
        if not (line := self.process.stdout.readline()):
            raise RuntimeError(f"it ended with {self.process.wait(10)}")
        return line


def main() -> None:
    environments = Environments(ENVIRONMENTS)
    if environments.state("speech") != "ready":
        left_out("whisperx, pyannote", f"the environment speech is not in {ENVIRONMENTS}")
        return
    with workplace() as folder:
        shelf = shelf_of(folder / "models", "align-en", "pyannote-community-1")
        whisper_at_work(folder / "whisper", WHISPER_TINY, TOKENS)
        shelf.bring_in(folder / "whisper", "faster-whisper-tiny")
        catalogue = Catalogue.load(supplies=Supplies(shelf, environments))
        clip = _clip(folder)
        python = environments.interpreter("speech")
        for pipeline, config in (("speech_recognition", WORDS), ("speaker_diarization", {})):
            _overhead(catalogue, python, pipeline, config, clip)


def _overhead(catalogue: Catalogue, python: Path, pipeline: str, config: dict[str, Any], clip: Path) -> None:
    complete = catalogue.require([pipeline], {pipeline: config})[pipeline]
    models = catalogue.supplies.models(catalogue.get(pipeline), complete)
    line = asked(pipeline, clip, probe(clip), config=complete, models=models, threads=THREADS)
    ours, bare = _start(python, str(ALONE), *MODULES), _start(python, "-c", BARE)
    rows = [(ours.take(line), bare.take(line)) for _ in range(1 + ROUNDS)][1:]  # the first warms the caches
    for side in (ours, bare):
        side.process.communicate(timeout=30)
    (mine, my_cpu), (other, their_cpu) = medians([row[0] for row in rows]), medians([row[1] for row in rows])
    name, load = f"{pipeline}, {complete['engine']}", os.getloadavg()[0]
    say(f"{name}: the stage's work on {SECONDS} s, imports apart, p50", mine, "s", cpu_seconds=my_cpu)
    say(f"{name}: the bare library on the same, p50", other, "s", cpu_seconds=their_cpu)
    say(f"{name}: overhead of the stage", 100 * (mine / other - 1), "%", asked=10, load=load)
    say(f"{name}: overhead in processor seconds", 100 * (my_cpu / their_cpu - 1), "%", asked=10)


def _start(python: Path, *words: str) -> Side:
    """Offline and with the stage's number of threads, as stages are."""
    quiet = {"HF_HUB_OFFLINE": "1", "PYANNOTE_METRICS_ENABLED": "0", "OMP_NUM_THREADS": str(THREADS)}
    side = Side(
        subprocess.Popen(
            [str(python), "-P", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | quiet,
        )
    )
    side.hear()
    return side


def _clip(folder: Path) -> Path:
    """A small picture, and stereo at 48 kHz as a phone records it: sentences with pauses, again and again."""
    sound, clip = folder / "said.wav", folder / "clip.mp4"
    speech(sound)
    inputs = ["-f", "lavfi", "-i", "testsrc2=s=320x240:r=25", "-stream_loop", "-1", "-i", str(sound)]
    coding = ["-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac", "-ac", "2", "-ar", "48000"]
    command = ["ffmpeg", "-y", "-loglevel", "error", *inputs, "-t", str(SECONDS), *coding, str(clip)]
    subprocess.run(command, check=True)
    return clip


if __name__ == "__main__":
    main()
