"""
The environment `speech`, as a user has it: installed by the command, its libraries run by real stage processes.

Slow, and skipped where it is not installed (`.ci/run` installs it): loading WhisperX alone takes ten seconds.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.clips import Clips, ffmpeg
from tests.tiny_models import ENVIRONMENTS, shelf_of
from videoannotator.environments import Environments
from videoannotator.formats.captions import read_webvtt
from videoannotator.formats.rttm import read_rttm
from videoannotator.formats.table import read_table
from videoannotator.formats.words import read_words

CREDULOUS = ("model=tiny", "language=en", "min_log_probability=-20", "max_compression=1000", "beam_size=1")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        Environments(ENVIRONMENTS).state("speech") != "ready",
        reason=f"the environment speech is not in {ENVIRONMENTS}: videoannotator install speech",
    ),
]


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two voices of espeak-ng take turns, from 1.0 and from 5.0 s; 9 s long."""
    folder = tmp_path_factory.mktemp("spoken")
    inputs: list[str | Path] = []
    for voice, text in (("en+f3", "Where is the baby? Here is the baby!"), ("en+m3", "Look at the red ball!")):
        wav = folder / f"{voice}.wav"
        subprocess.run(["espeak-ng", "-v", voice, "-s", "150", "-w", wav, text], check=True, timeout=30)
        inputs += ["-i", wav]
    ffmpeg(*inputs, "-f", "lavfi", "-i", "color=gray:s=160x120:r=10:d=9", "-filter_complex",
           "[0:a]adelay=1000[a];[1:a]adelay=5000[b];[a][b]amix=inputs=2:normalize=0,apad=whole_dur=9[s]",
           "-map", "2:v", "-map", "[s]", "-c:v", "libx264", "-c:a", "aac", folder / "spoken.mp4")  # fmt: skip
    return folder / "spoken.mp4"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = ("faster-whisper-tiny", "align-en", "pyannote-community-1")
    return shelf_of(tmp_path_factory.mktemp("models"), *names).folder


def annotate(clip: Path, folder: Path, models: Path, *words: str) -> tuple[dict[str, Any], Path]:
    """What `annotate` says, and where the results are."""
    done = subprocess.run(
        [sys.executable, "-m", "videoannotator", "annotate", str(clip), "--json", "--output", str(folder), *words],
        env=os.environ
        | {"VIDEOANNOTATOR_MODELS_DIR": str(models), "VIDEOANNOTATOR_ENVIRONMENTS_DIR": str(ENVIRONMENTS)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout), folder / clip.stem


def setting(pipeline: str, *assignments: str) -> list[str]:
    return [word for one in assignments for word in ("--set", f"{pipeline}.{one}")]


@pytest.fixture(scope="module")
def results(spoken: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of WhisperX and pyannote in one job, on one recording."""
    ending, folder = annotate(
        spoken,
        tmp_path_factory.mktemp("results"),
        models,
        "--pipelines",
        "speech_recognition,speaker_diarization",
        *setting("speech_recognition", "engine=whisperx", *CREDULOUS),
        *setting("speaker_diarization", "speakers=2"),
    )
    assert ending["outcome"] == "full", ending
    return folder


def test_whisperx_loads_transcribes_and_aligns(results: Path) -> None:
    """Every word of a random model has a time inside the recording, in order."""
    transcript = read_words(results / "speech_words.json")
    words = [word for utterance in transcript.utterances for word in utterance.words]

    assert words
    assert all(0 <= word.onset <= word.end <= 9 for word in words)
    assert [word.onset for word in words] == sorted(word.onset for word in words)
    assert [cue.text for cue in read_webvtt(results / "speech_recognition.vtt")] == [
        utterance.text for utterance in transcript.utterances
    ]


def test_pyannote_tells_as_many_speakers_apart_as_it_is_told(results: Path) -> None:
    """Its turns lie inside the recording; where two speak at once there are two lines."""
    turns = read_rttm(results / "speaker_diarization.rttm")

    assert {turn.label for turn in turns} == {"SPEAKER_00", "SPEAKER_01"}
    assert all(0 <= turn.onset < turn.end <= 9.1 for turn in turns)
    assert len(read_table(results / "speakers.csv")) == len(turns)


def test_each_word_has_its_speaker(results: Path) -> None:
    """The diarization waits for the transcript of its job."""
    rows = read_table(results / "speaker_words.csv")
    words = [w.text for u in read_words(results / "speech_words.json").utterances for w in u.words]

    assert [row["word"] for row in rows] == words
    assert {row["speaker"] for row in rows} <= {"SPEAKER_00", "SPEAKER_01"}
    assert all(cue.speaker for cue in read_webvtt(results / "speakers.vtt"))


def test_the_manifest_says_in_which_environment_and_with_which_models(results: Path) -> None:
    """All that is needed to have the same again."""
    provenance = json.loads((results / "manifest.json").read_text())["provenance"]
    stages = {stage["pipeline"]: stage for stage in provenance["stages"]}

    assert {stage["environment"] for stage in stages.values()} == {"speech"}
    assert stages["speech_recognition"]["libraries"]["whisperx"]
    names = {model["name"]: model["sha256"] for stage in stages.values() for model in stage["models"]}
    assert {"faster-whisper-tiny", "align-en", "pyannote-community-1", "whisperx_vad"} == set(names)
    assert all(len(sha256) == 64 for sha256 in names.values())


def test_without_the_language_model_only_utterances_have_times(spoken: Path, models: Path, tmp_path: Path) -> None:
    """A language that is only found at run time is no reason to fail: a random model finds any."""
    words = [word for word in CREDULOUS if not word.startswith("language")]
    ending, folder = annotate(
        spoken, tmp_path, models, "--pipelines", "speech_recognition",
        *setting("speech_recognition", "engine=whisperx", *words),
    )  # fmt: skip

    assert ending["outcome"] == "full", ending
    transcript = read_words(folder / "speech_words.json")
    warnings = json.loads((folder / "manifest.json").read_text())["provenance"]["stages"][0]["warnings"]
    assert transcript.language
    assert transcript.language == "en" or any("no model here that aligns" in warning for warning in warnings)


def test_silence_gives_no_words_and_no_turns(models: Path, tmp_path: Path) -> None:
    """A quarter of an hour of sleeping."""
    clip = tmp_path / "quiet.mp4"
    ffmpeg("-f", "lavfi", "-i", "color=gray:s=160x120:r=10:d=6", "-f", "lavfi", "-i", "anullsrc=r=16000:cl=mono:d=6",
           "-c:v", "libx264", "-c:a", "aac", "-shortest", clip)  # fmt: skip

    ending, folder = annotate(
        clip, tmp_path / "out", models, "--pipelines", "speech_recognition",
        *setting("speech_recognition", "engine=whisperx", *CREDULOUS),
    )  # fmt: skip

    assert ending["outcome"] == "full", ending
    assert read_webvtt(folder / "speech_recognition.vtt") == ()


def test_a_video_without_sound_ends_well_in_all_that_listens(clips: Clips, models: Path, tmp_path: Path) -> None:
    """Both of this environment and the one that is not, in one job: empty files, a note each."""
    ending, folder = annotate(
        clips.path("no_sound.mp4"), tmp_path, models,
        "--pipelines", "speech_recognition,speaker_diarization,voice_activity",
        *setting("speech_recognition", "engine=whisperx", *CREDULOUS),
    )  # fmt: skip

    assert (ending["status"], ending["outcome"]) == ("completed", "full"), ending
    assert [(stage["annotations"], *stage["warnings"]) for stage in ending["stages"]] == [
        (0, "no_sound.mp4 has no sound track: nothing was listened to.")
    ] * 3
    assert read_webvtt(folder / "speech_recognition.vtt") == ()
    assert read_table(folder / "speaker_words.csv") == []
    assert not (folder / "speaker_diarization.rttm").exists()


def test_the_environment_passes_its_own_check() -> None:
    """`install speech --verify`."""
    done = subprocess.run(
        [sys.executable, "-m", "videoannotator", "install", "speech", "--verify"],
        env=os.environ | {"VIDEOANNOTATOR_ENVIRONMENTS_DIR": str(ENVIRONMENTS)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("[OK] speech")
