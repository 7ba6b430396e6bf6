"""What every pipeline must do: a new one is held to it by being declared."""

import fnmatch
import signal
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.clips import Clips
from tests.staging import CATALOGUE, HERE, Ran, files_in, run, start
from videoannotator.errors import StageFailed
from videoannotator.jobs import BROWSER_COPY

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # protobuf's own, at mediapipe's import

every_pipeline = pytest.mark.parametrize("pipeline", [*HERE, BROWSER_COPY])


@pytest.fixture(scope="module")
def ran(clips: Clips, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Ran]:
    """`ran("face_analysis")`: that pipeline, once and in this process, on 100 pictures with sound."""
    return cache(lambda pipeline: run(pipeline, clips.path("h264.mp4"), tmp_path_factory.mktemp(pipeline) / "out"))


@every_pipeline
def test_it_keeps_the_contract(pipeline: str, ran: Callable[[str], Ran]) -> None:
    """Worker, manifest and progress bar rely on each of these."""
    done = ran(pipeline)

    declaration = CATALOGUE.get(pipeline)
    declared = {o.name: (o.role, o.media_type, o.in_zip) for o in declaration.outputs}
    written = {o.name: (o.role, o.media_type, o.in_zip) for o in done.result.outputs}
    kinds = {name: next(kind for kind in declared if fnmatch.fnmatch(name, kind)) for name in written}
    assert all(written[name] == declared[kind] for name, kind in kinds.items())
    assert declared.keys() - set(kinds.values()) <= {o.name for o in declaration.outputs if o.optional}
    assert set(done.files) == set(written)
    assert done.result.engine in {e.name for e in declaration.engines}
    known = {m.name for m in (*declaration.models, *CATALOGUE.models_of(pipeline))}
    assert {m.name for m in done.result.models} <= known
    assert done.result.ledger.closes
    assert done.result.ledger.lost_share == 0
    assert done.report.progressed == sorted(done.report.progressed)
    assert done.report.progressed[-1] == pytest.approx(done.duration_seconds)
    assert all(0 <= i.onset and i.duration > 0 for i in done.result.intervals)


@every_pipeline
def test_it_gives_the_same_bytes_twice(pipeline: str, ran: Callable[[str], Ran], clips: Clips, tmp_path: Path) -> None:
    """A result that cannot be had again is no measurement."""
    again = run(pipeline, clips.path("h264.mp4"), tmp_path / "again")

    assert again.files == ran(pipeline).files


@every_pipeline
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc fills new memory on demand")
def test_what_memory_held_before_does_not_show(
    pipeline: str, ran: Callable[[str], Ran], clips: Clips, tmp_path: Path
) -> None:
    """A library that reads what it never wrote gives another result every hundredth time, and nobody sees why."""
    with start(pipeline, clips.path("h264.mp4"), tmp_path / "filled", MALLOC_PERTURB_="1") as process:
        process.communicate(timeout=60)

    assert process.returncode == 0
    assert files_in(tmp_path / "filled") == ran(pipeline).files


@every_pipeline
@pytest.mark.parametrize("clip", ["half.mp4", "half_fragmented.mp4"])
def test_it_refuses_a_video_that_breaks_off(pipeline: str, clip: str, clips: Clips, tmp_path: Path) -> None:
    """Half a video looks like a whole one that shows less."""
    with pytest.raises(StageFailed):
        run(pipeline, clips.path(clip), tmp_path / "out")


@every_pipeline
def test_it_stops_at_once(pipeline: str, clips: Clips, tmp_path: Path) -> None:
    """Cancel sends SIGTERM and expects its default effect within the grace of one second."""
    with start(pipeline, clips.path("minutes.mp4"), tmp_path / "out") as process:
        assert process.stdout
        assert process.stdout.readline() == "working\n"

        process.terminate()

        assert process.wait(timeout=1.0) == -signal.SIGTERM


@every_pipeline
def test_late_pictures_and_sound_are_where_the_browser_plays_them(pipeline: str, clips: Clips, tmp_path: Path) -> None:
    """A start offset that is forgotten shifts every annotation."""
    late = run(pipeline, clips.path("late_pictures.mp4"), tmp_path / "out")

    onsets = [i.onset for i in late.result.intervals if i.kind == "scene"]
    assert all(onset == pytest.approx(0.5, abs=0.02) for onset in onsets)
    assert max(late.report.progressed) <= late.duration_seconds + 1e-6
