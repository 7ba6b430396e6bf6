"""The wheel is the whole program: migrations, presets and pipeline declarations travel in it."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.clips import Clips

TOP = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(["uv", "build", "--wheel", "--quiet", "--out-dir", str(folder)], cwd=TOP, check=True, timeout=120)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_what_is_read_at_run_time(wheel):
    """And nothing of the tests."""
    names = set(zipfile.ZipFile(wheel).namelist())

    for folder, inside in (("migrations", "_bundled/migrations"), ("presets", "_bundled/presets")):
        for file in (TOP / folder).iterdir():
            assert f"videoannotator/{inside}/{file.name}" in names
    assert {"videoannotator/_bundled/project/pyproject.toml", "videoannotator/_bundled/project/uv.lock"} <= names
    for pattern in ("pipelines/*.yaml", "models/*.yaml", "server/openapi/*.yaml", "server/web/*"):
        read = {f"videoannotator/{file.relative_to(TOP / 'videoannotator')}" for file in _files(pattern)}
        assert read, pattern
        assert read <= names
    assert not [name for name in names if name.startswith(("tests/", "scripts/"))]


def test_annotate_runs_from_the_wheel(wheel, clips: Clips, tmp_path):
    """Unpacked elsewhere: the libraries are the environment's, the program is the wheel's, its stages' too."""
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = f"import sys; sys.path.insert(0, {str(site)!r}); from videoannotator import cli; "
    code += f"assert cli.__file__.startswith({str(site)!r}); sys.exit(cli.main())"
    words = ["annotate", str(clips.path("h264.mp4")), "--pipelines", "scene_detection", "--json"]

    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert "" == done.stderr
    assert "full" == json.loads(done.stdout)["outcome"]
    assert (tmp_path / "annotations" / "h264" / "scene_detection.json").exists()


def _files(pattern: str) -> list[Path]:
    return [file for file in (TOP / "videoannotator").glob(pattern) if file.is_file()]
