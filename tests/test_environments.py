"""Environments: which interpreter a stage gets, and that none is used that is not known to work."""

import shutil
from pathlib import Path

import msgspec
import pytest

import videoannotator
from videoannotator.environments import RECORD, Built, Environments, InstallFailed
from videoannotator.errors import InvalidConfig, NotFound, Refused
from videoannotator.models.catalogue import Models
from videoannotator.models.shelf import Shelf
from videoannotator.pipelines.catalogue import Catalogue
from videoannotator.pipelines.supplies import Supplies
from videoannotator.settings import bundled

PROJECT = """\
[project]
name = "theirs"
version = "0.1.0"
requires-python = ">=3.11"
"""
LOCK = """\
version = 1
requires-python = ">=3.11"

[[package]]
name = "theirs"
version = "0.1.0"
source = { virtual = "." }
"""


def built(folder: Path, version: str = videoannotator.__version__) -> Environments:
    """A folder that looks as `install speech` leaves it."""
    python = folder / "speech" / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    record = Built(version=version, lock_sha256="0" * 64, python="3.11.0")
    (folder / "speech" / RECORD).write_bytes(msgspec.json.encode(record))
    return Environments(folder)


def test_an_environment_that_is_not_here_is_refused_with_the_command(tmp_path: Path) -> None:
    """A pipeline that needs it is never begun."""
    environments = Environments(tmp_path)

    with pytest.raises(Refused, match="missing") as caught:
        environments.interpreter("speech")

    assert (caught.value.code, caught.value.hint) == ("ENVIRONMENT_MISSING", "Run: videoannotator install speech")


def test_what_was_begun_and_not_finished_is_broken(tmp_path: Path) -> None:
    """The record is written last, and goes first."""
    environments = built(tmp_path)
    assert environments.state("speech") == "ready"

    (tmp_path / "speech" / RECORD).unlink()

    assert environments.state("speech") == "broken"


def test_an_environment_without_its_python_is_broken(tmp_path: Path) -> None:
    """Somebody tidied up, or the system's Python went with an update."""
    environments = built(tmp_path)

    (tmp_path / "speech" / "venv" / "bin" / "python").unlink()

    assert environments.state("speech") == "broken"


def test_an_environment_of_another_version_is_built_anew(tmp_path: Path) -> None:
    """Its libraries may be others than this version's code was written for."""
    assert built(tmp_path, version="0.0.1").state("speech") == "outdated"


def test_exactly_this_program_is_importable_there(tmp_path: Path) -> None:
    """And nothing else of the environment that it runs in; also after it was moved."""
    environments = built(tmp_path)
    site = tmp_path / "speech" / "venv" / "lib" / "python3.11" / "site-packages"
    site.mkdir(parents=True)
    (tmp_path / "speech" / "program").mkdir()
    (tmp_path / "speech" / "program" / "videoannotator").symlink_to(tmp_path / "gone")

    environments.interpreter("speech")

    (folder,) = (site / "videoannotator.pth").read_text().splitlines()
    (link,) = Path(folder).iterdir()
    assert (link.name, link.readlink()) == ("videoannotator", Path(videoannotator.__file__).parent)


def test_removing_leaves_nothing(tmp_path: Path) -> None:
    """Seven gigabytes."""
    environments = built(tmp_path)

    assert environments.remove("speech")

    assert list(tmp_path.iterdir()) == []
    assert not environments.remove("speech")


def test_an_unknown_environment_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    """So that a typing error is found at once."""
    with pytest.raises(NotFound, match="speech"):
        Environments(tmp_path).install("speach", say=print)


def test_a_pipeline_from_elsewhere_brings_its_environment(tmp_path: Path) -> None:
    """uv builds it; one in which our stage process cannot start is not used, and the message says what it lacks."""
    theirs = tmp_path / "pipelines" / "environments" / "theirs"
    theirs.mkdir(parents=True)
    (theirs / "pyproject.toml").write_text(
        '[project]\nname = "theirs"\nversion = "0.1.0"\nrequires-python = ">=3.11"\n'
    )
    (theirs / "uv.lock").write_text(LOCK)
    environments = Environments(tmp_path / "built", [tmp_path / "pipelines"])

    with pytest.raises(InstallFailed, match="No module named 'msgspec'"):
        environments.install("theirs", offline=True, say=lambda line: None)

    assert environments.names == ("speech", "theirs")
    assert (tmp_path / "built" / "theirs" / "venv" / "bin" / "python").exists()
    assert environments.state("theirs") == "broken"


def test_without_uv_the_message_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who installed the wheel with pip may not have it."""
    if shutil.which("uv", path=str(Path(shutil.which("python") or "/").parent)):
        pytest.skip("uv lies beside the tests' Python")
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(Refused, match="uv") as caught:
        Environments(tmp_path).install("speech", say=lambda line: None)

    assert caught.value.code == "UV_MISSING"


def test_the_lock_is_where_the_environment_is_built_from() -> None:
    """At the top of a checkout; a wheel carries both files inside the package."""
    assert (bundled("project") / "uv.lock").is_file()
    assert "speech" in (bundled("project") / "pyproject.toml").read_text()


def test_a_gated_model_is_asked_for_when_a_job_is_submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the page and the token, never at run time; also where models are fetched for jobs."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    shelf = Shelf(tmp_path / "models", Models.load())
    supplies = Supplies(shelf, built(tmp_path / "environments"), auto_download=True)

    with pytest.raises(InvalidConfig, match="pyannote-community-1") as caught:
        Catalogue.load(supplies=supplies).require(["speaker_diarization"], {})

    assert caught.value.code == "PIPELINE_UNAVAILABLE"
    assert "huggingface.co/pyannote" in caught.value.hint
    assert "HF_TOKEN" in caught.value.hint


def test_fewer_speakers_at_most_than_at_least_are_refused(tmp_path: Path) -> None:
    """Before a model is loaded."""
    config = {"speaker_diarization": {"min_speakers": 3, "max_speakers": 2}}

    _, problems = Catalogue.load().check(["speaker_diarization"], config)

    assert [(p.field, p.code) for p in problems] == [("speaker_diarization.min_speakers", "OUT_OF_RANGE")]
