"""Presets and plans: what would run, what is missing, and the page that tells of all pipelines."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.clips import Clips
from tests.tiny_models import shelf_of
from videoannotator.media.probe import probe
from videoannotator.pipelines.catalogue import Catalogue
from videoannotator.pipelines.page import page
from videoannotator.plan import Plan, plan
from videoannotator.presets import builtin_presets, chosen
from videoannotator.settings import Settings

TOP = Path(__file__).parents[2]
PRESETS = builtin_presets()


def command(*words: str, storage: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "videoannotator", *words],
        env=os.environ | {"VIDEOANNOTATOR_STORAGE_DIR": str(storage)} | environ,
        cwd=storage,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def plan_of(clip: Path, preset: str, storage: Path, **config: dict[str, Any]) -> Plan:
    settings = Settings(storage_dir=storage)
    catalogue = Catalogue.of(settings)
    complete, _ = catalogue.check(*chosen(PRESETS, preset, (), config))
    return plan(probe(clip), complete, catalogue, settings, gpus=0)


def test_the_page_of_pipelines_is_fresh() -> None:
    """A page that falls behind is worse than none: `uv run scripts/pipelines`."""
    assert (TOP / "docs" / "pipelines.md").read_text() == page(Catalogue.load())


def test_the_page_names_every_model_with_its_licence() -> None:
    """Who publishes, or sells, must know."""
    text, catalogue = page(Catalogue.load()), Catalogue.load()

    for model in catalogue.supplies.shelf.models:
        assert f"| `{model.name}` | {model.licence}" in text
    assert text.startswith("<!-- Do not edit")


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.name)
def test_a_preset_is_versioned_and_says_what_it_costs(preset: Any) -> None:
    """It is what most people choose by."""
    assert preset.version
    assert preset.description
    assert preset.cost


def test_the_presets_are_there() -> None:
    """By the names that the documentation tells."""
    assert {"quick", "standard", "full", "speech-only", "faces-only"} <= set(PRESETS)


def test_the_list_of_presets_says_version_cost_and_what_is_lacking(tmp_path: Path) -> None:
    """Before a long night, each command on a line of its own."""
    said = command("presets", storage=tmp_path).stdout

    assert "not yet: speech_recognition with faster-whisper needs the model faster-whisper-small" in said
    assert "Run: videoannotator models pull faster-whisper-small" in said
    assert "Run: videoannotator install speech" in said
    for preset in PRESETS.values():
        assert f"{preset.name:<20} {preset.version}: " in said
        assert preset.cost.strip() in said
    assert all(line.startswith(" " * 20) or line.split()[0] in PRESETS for line in said.splitlines())


def test_a_plan_says_what_runs_where_and_what_it_takes(clips: Clips, tmp_path: Path) -> None:
    """Of what is here already."""
    made = plan_of(clips.path("h264.mp4"), "quick", tmp_path)

    assert made.can_run
    assert {stage.pipeline for stage in made.stages} == {"scene_detection", "face_analysis", "voice_activity"}
    assert made.fetch_mb == 0
    assert all(stage.seconds > 0 and stage.memory_mb > 0 and stage.device == "cpu" for stage in made.stages)
    assert made.seconds >= max(stage.seconds for stage in made.stages)


def test_a_plan_says_what_is_missing_and_the_commands(clips: Clips, tmp_path: Path) -> None:
    """All at once, with sizes and licences, before anything starts."""
    made = plan_of(clips.path("h264.mp4"), "full", tmp_path)

    stages = {stage.pipeline: stage for stage in made.stages}
    assert not made.can_run
    assert stages["speech_recognition"].environment == "speech"
    assert stages["speech_recognition"].gpu_memory_mb
    faces = {model.name: model for model in stages["face_analysis"].models}
    assert faces["buffalo_l"].commercial_use is False
    assert stages["speaker_diarization"].models[0].gated
    assert made.fetch_mb > 7000
    assert "Run: videoannotator models pull rtmo-m" in made.fixes
    assert "Run: videoannotator install speech" in made.fixes
    assert "Run: videoannotator models pull faster-whisper-turbo" in made.fixes
    assert any("HF_TOKEN" in fix and "pyannote-community-1" in fix for fix in made.fixes)
    assert list(tmp_path.iterdir()) == []


def test_a_plan_with_its_model_here_can_run(clips: Clips, tmp_path: Path) -> None:
    """And a smaller model takes less time."""
    shelf_of(tmp_path / "models", "faster-whisper-small", "faster-whisper-tiny")
    clip = clips.path("h264.mp4")

    made = plan_of(clip, "standard", tmp_path)
    tiny = plan_of(clip, "standard", tmp_path, speech_recognition={"model": "tiny"})

    assert (made.can_run, made.fetch_mb) == (True, 0)
    assert tiny.stages[-1].seconds < made.stages[-1].seconds


def test_a_plan_says_which_stages_the_video_gives_nothing_to(clips: Clips, tmp_path: Path) -> None:
    """A film without sound, and a sound without a film: nobody is heard in the one, nothing looked at in the other."""
    silent = plan_of(clips.path("no_sound.mp4"), "quick", tmp_path)
    blind = plan_of(clips.path("sound.wav"), "quick", tmp_path)

    assert {stage.pipeline: stage.empty for stage in silent.stages if stage.empty or stage.skipped} == {
        "voice_activity": "no_sound.mp4 has no sound track."
    }
    assert {stage.pipeline for stage in blind.stages if stage.skipped} == {"scene_detection", "face_analysis"}
    assert silent.can_run


def test_a_plan_on_a_terminal_reads_well(clips: Clips, tmp_path: Path) -> None:
    """ASCII, one line for each thing, the commands at the end."""
    done = command("plan", str(clips.path("h264.mp4")), "--preset", "standard", storage=tmp_path)

    assert done.returncode == 1
    assert done.stdout.isascii()
    assert "model faster-whisper-small: missing, 488 MB, MIT, commercial use allowed" in done.stdout
    assert done.stdout.endswith("  Run: videoannotator models pull faster-whisper-small\n[ERROR] It cannot run yet.\n")


def test_a_plan_of_what_does_not_exist_is_refused(clips: Clips, tmp_path: Path) -> None:
    """As the job would be, with everything that is wrong at once."""
    wrong = ("--pipelines", "magic,scene_detection", "--set", "scene_detection.detektor=adaptive")

    done = command("plan", str(clips.path("h264.mp4")), *wrong, storage=tmp_path)

    unknown, misspelt = done.stderr.splitlines()
    assert done.returncode == 2
    assert unknown.startswith("[ERROR] No pipeline is called 'magic'. There are: ")
    assert "no parameter 'detektor'. Did you mean detector? It has: " in misspelt
