"""A job's files appear whole or not at all, also when the process dies between two steps."""

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from videoannotator.artifacts import Artifacts, sha256, write_whole
from videoannotator.errors import NotFound, StorageTrouble
from videoannotator.jobs import Artifact, Output

SCENES = Output("scenes.json", "annotations", "application/json")


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    artifacts = Artifacts(tmp_path)
    artifacts.prepare()
    return artifacts


def attempt(artifacts: Artifacts, token: int, content: bytes = b"{}") -> tuple[Artifact, ...]:
    """A stage that has written its file and was sealed."""
    folder = artifacts.begin("job_1", "scene_detection", token)
    (folder / SCENES.name).write_bytes(content)
    return artifacts.seal("job_1", "scene_detection", token, [SCENES])


def test_a_sealed_file_is_not_in_its_place_before_it_is_published(artifacts):
    """A reader must never see a file of an attempt that the store has not accepted."""
    sealed = attempt(artifacts, 1)

    before = (artifacts.results("job_1") / SCENES.name).exists()
    artifacts.publish("job_1", "scene_detection", 1, sealed)

    assert not before
    assert b"{}" == (artifacts.results("job_1") / SCENES.name).read_bytes()
    assert hashlib.sha256(b"{}").hexdigest() == sealed[0].sha256


def test_nothing_of_an_attempt_is_left_after_publication(artifacts):
    """Half-written folders would be taken for results by whoever looks."""
    artifacts.publish("job_1", "scene_detection", 1, attempt(artifacts, 1))

    assert [SCENES.name] == os.listdir(artifacts.results("job_1"))


def test_a_crash_between_acceptance_and_publication_is_mended(artifacts):
    """The store says completed: the file must come to its place, from whichever attempt wrote it."""
    sealed = attempt(artifacts, 3)

    artifacts.settle("job_1", sealed)

    assert [SCENES.name] == os.listdir(artifacts.results("job_1"))


def test_an_attempt_that_wrote_something_else_is_not_taken_for_the_result(artifacts):
    """A zombie's file has the right name and the wrong bytes."""
    sealed = attempt(artifacts, 3)
    attempt(artifacts, 3, b"[]")

    with pytest.raises(StorageTrouble, match="was finished and is gone") as trouble:
        artifacts.settle("job_1", sealed)

    assert "RESULT_MISSING" == trouble.value.code


def test_settling_removes_attempts_that_never_finished(artifacts):
    """What a crash left half-written goes before the job begins again."""
    (artifacts.begin("job_1", "face_analysis", 1) / "half.json").write_text("{")
    (artifacts.results("job_1") / ".manifest.json-x1y2z3").write_text("{")

    artifacts.settle("job_1", ())

    assert [] == os.listdir(artifacts.results("job_1"))


def test_only_names_in_the_list_are_found(artifacts, tmp_path):
    """Names come from URLs."""
    artifacts.publish("job_1", "scene_detection", 1, sealed := attempt(artifacts, 1))
    (tmp_path / "secret").write_text("secret")
    job = type("Job", (), {"id": "job_1"})()

    found = artifacts.find(job, sealed, "scenes.json")

    assert b"{}" == found.read_bytes()
    for name in ("../../secret", "..", "", "/etc/passwd", "faces.json"):
        with pytest.raises(NotFound):
            artifacts.find(job, sealed, name)


def test_a_carried_over_file_survives_the_removal_of_the_old_job(artifacts):
    """A retry shares files with the job it retries, which may be deleted at any time."""
    sealed = attempt(artifacts, 1)
    artifacts.publish("job_1", "scene_detection", 1, sealed)

    artifacts.carry_over("job_1", "job_2", sealed)
    artifacts.remove("job_1")

    assert b"{}" == (artifacts.results("job_2") / SCENES.name).read_bytes()
    assert {"job_2"} == artifacts.job_ids()


def test_uploads_of_an_earlier_life_are_cleared(artifacts):
    """Nobody will ever finish them."""
    (artifacts.uploads / "job_9.part").write_bytes(b"half")

    artifacts.prepare()

    assert [] == os.listdir(artifacts.uploads)


def test_writing_whole_replaces_and_leaves_nothing_beside(tmp_path):
    """The old manifest or the new one, never half of one, never a temporary file."""
    file = tmp_path / "manifest.json"

    write_whole(file, b"old")
    write_whole(file, b"new")

    assert (b"new", ["manifest.json"]) == (file.read_bytes(), os.listdir(tmp_path))


def test_hashing_stops_when_asked(tmp_path):
    """A cancelled job must not read a 50 GB video to its end first."""
    file = tmp_path / "clip.mp4"
    file.write_bytes(b"x" * 3_000_000)
    stop = threading.Event()
    stop.set()

    with pytest.raises(InterruptedError):
        sha256(file, stop)

    assert hashlib.sha256(file.read_bytes()).hexdigest() == sha256(file)


def test_stages_of_a_job_that_begin_and_end_at_once_do_not_disturb_each_other(tmp_path):
    """The folder of the attempt is theirs together: who ends last removes it, and who begins then makes it again."""
    artifacts = Artifacts(tmp_path)
    artifacts.prepare()

    def work(pipeline: str) -> None:
        for _ in range(300):
            folder = artifacts.begin("job_x", pipeline, 1)
            (folder / "out.json").write_text("{}")
            artifacts.abandon("job_x", pipeline, 1)

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(work, f"p{number}") for number in range(4)]:
            done.result()

    assert [] == os.listdir(tmp_path / "results" / "job_x")
