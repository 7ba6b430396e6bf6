"""The same work is done once: results are remembered, served with the same bytes, and never when they are not whole."""

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.clips import Clips
from tests.declared import declare
from tests.sample_jobs import result
from tests.server import serving
from tests.waiting import until
from videoannotator.jobs import Artifact, Job, JobStatus, ModelFiles, NamedPicture, StageResult, StageStatus, Video
from videoannotator.settings import Settings
from videoannotator.work.cache import Cache
from videoannotator.work.fingerprint import fingerprint, own_files
from videoannotator.workspace import Selection, Workspace


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    pipelines = declare(tmp_path / "pipelines", "counts_runs", "behaves")
    return Settings(storage_dir=tmp_path / "storage", pipeline_dirs=(pipelines,), min_free_bytes=1)


@pytest.fixture
def clip(clips: Clips) -> Path:
    return clips.path("h264.mp4")


async def finished(
    workspace: Workspace, clip: Path, *, name: str = "clip.mp4", cache: bool = True, **config: Any
) -> Job:
    selection = Selection(pipelines=("counts_runs",), config={"counts_runs": config} if config else {}, cache=cache)
    (job,) = await workspace.submit(await workspace.admit(clip, name, selection, owns_video=False))
    return await until(workspace, job.id, lambda job: job.status.is_final)


def runs(settings: Settings) -> int:
    counted = settings.pipeline_dirs[0] / "pids.attempts"
    return len(counted.read_text().splitlines()) if counted.exists() else 0


def output(settings: Settings, job: Job) -> Path:
    return settings.storage_dir / "results" / job.id / "out.json"


def entries(settings: Settings) -> list[Path]:
    return [file.parent for file in (settings.storage_dir / "cache").rglob("entry.json")]


async def test_the_same_work_is_done_once_and_served_with_the_same_bytes(settings: Settings, clip: Path) -> None:
    """In another job, also after a restart; job and manifest say that it was."""
    async with Workspace.open(settings) as workspace:
        first = await finished(workspace, clip)
    async with Workspace.open(settings) as workspace:
        second = await finished(workspace, clip)
        intervals = [await workspace.store.intervals(job.id) for job in (first, second)]
        lines = await workspace.store.job_events(second.id, "job.log")

    manifest = json.loads((settings.storage_dir / "results" / second.id / "manifest.json").read_text())
    (one,), (two,) = first.stages, second.stages
    assert 1 == runs(settings)
    assert (False, True, True) == (one.cached, two.cached, manifest["provenance"]["stages"][0]["cached"])
    assert (JobStatus.COMPLETED, "full", 0) == (second.status, second.outcome, two.attempts)
    assert (one.provenance, one.annotations, one.seconds) == (two.provenance, two.annotations, two.seconds)
    assert output(settings, first).read_bytes() == output(settings, second).read_bytes()
    assert output(settings, first).samefile(output(settings, second)), "a link, not a copy"
    assert intervals[0] == intervals[1]
    assert any("was done before" in line.data["message"] for line in lines)


@pytest.mark.parametrize(
    "other", ["bytes", pytest.param("name", marks=pytest.mark.slow), pytest.param("parameter", marks=pytest.mark.slow)]
)
async def test_other_work_is_computed(other: str, settings: Settings, clip: Path, tmp_path: Path) -> None:
    """The name stands in the files, the parameters decide them, and one byte more is another video."""
    longer = tmp_path / "longer.mp4"
    longer.write_bytes(clip.read_bytes() + b"\0")
    async with Workspace.open(settings) as workspace:
        await finished(workspace, clip)
        match other:
            case "name":
                job = await finished(workspace, clip, name="other.mp4")
            case "parameter":
                job = await finished(workspace, clip, steps=2)
            case _:
                job = await finished(workspace, longer)

    assert (2, False) == (runs(settings), job.stages[0].cached)


async def test_what_a_job_was_served_does_not_go_with_the_job_it_was_made_for(settings: Settings, clip: Path) -> None:
    """Deletion of one participant's job must not empty another's results."""
    async with Workspace.open(settings) as workspace:
        first = await finished(workspace, clip)
        second = await finished(workspace, clip)

        await workspace.delete(first.id)
        third = await finished(workspace, clip)
        await workspace.delete(second.id)
        still = output(settings, third).read_text()
        await workspace.delete(third.id)

    assert (1, "{}") == (runs(settings), still)
    assert [] == entries(settings), "with the last job of a video everything made of it is gone"


_SLOW = pytest.mark.slow


@pytest.mark.parametrize("damage", ["file", pytest.param("entry", marks=_SLOW), pytest.param("gone", marks=_SLOW)])
async def test_a_damaged_entry_is_noticed_dropped_and_computed_again(
    damage: str, settings: Settings, clip: Path
) -> None:
    """Whatever a disk does to it: a wrong result would be worse than none."""
    async with Workspace.open(settings) as workspace:
        first = await finished(workspace, clip)
        (entry,) = entries(settings)
        match damage:
            case "file":
                (entry / "out.json").unlink()
                (entry / "out.json").write_text("[]")
            case "entry":
                told = (entry / "entry.json").read_text()
                (entry / "entry.json").write_text(told.replace('"annotations":1', '"annotations":7'))
            case "gone":
                (entry / "out.json").unlink()
        second = await finished(workspace, clip)
        third = await finished(workspace, clip)

    assert [False, True] == [second.stages[0].cached, third.stages[0].cached]
    assert (2, 1) == (runs(settings), second.stages[0].annotations)
    assert {"{}"} == {output(settings, job).read_text() for job in (first, second, third)}
    assert [] == list((settings.storage_dir / "results" / second.id).glob(".*"))


async def test_a_job_without_the_cache_neither_takes_nor_leaves_anything(settings: Settings, clip: Path) -> None:
    """For a measurement of speed, or a video of which nothing is to be kept."""
    async with Workspace.open(settings) as workspace:
        await finished(workspace, clip, cache=False)
        left = entries(settings)
        await finished(workspace, clip)
        await finished(workspace, clip, cache=False)

    assert ([], 3) == (left, runs(settings))


async def test_from_scratch_means_from_scratch(settings: Settings, clip: Path) -> None:
    """Who asks for it doubts the result that there is."""
    async with Workspace.open(settings) as workspace:
        job = await finished(workspace, clip)
        again = await workspace.retry(job.id, from_scratch=True)
        await until(workspace, again.id, lambda job: job.status.is_final)

    assert 2 == runs(settings)


@pytest.mark.slow
async def test_the_cache_can_be_turned_off(settings: Settings, clip: Path) -> None:
    """Then there is no folder either."""
    async with Workspace.open(msgspec.structs.replace(settings, cache="off")) as workspace:
        await finished(workspace, clip)
        await finished(workspace, clip)

    assert (2, False) == (runs(settings), (settings.storage_dir / "cache").exists())


async def test_over_http_a_job_may_refuse_the_cache(tmp_path: Path, clip: Path) -> None:
    """The form's field `cache`; nonsense in it is refused like in any other."""
    async with serving(tmp_path, cache="on") as server:
        await server.finished(clip)
        second = await server.finished(clip)
        third = await server.finished(clip, cache="false")
        with clip.open("rb") as video:
            refused = await server.http.post("/api/v1/jobs", files={"video": video}, data={"cache": "perhaps"})

    assert (True, False) == (second["stages"][0]["cached"], third["stages"][0]["cached"])
    assert (422, "cache") == (refused.status_code, refused.json()["errors"][0]["field"])


# The folder by itself


class Shelf:
    """A cache with entries of a hundred bytes and a bit."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder
        self.cache = Cache(folder / "cache", limit_bytes)

    def keep(self, number: int) -> str:
        print_of = hashlib.sha256(str(number).encode()).hexdigest()
        files = self.folder / f"made{number}"
        files.mkdir()
        (files / "x").write_bytes(b"x" * 100)
        self.cache.keep(print_of, "video", self.made(), files)
        return print_of

    def made(self) -> StageResult:
        artifact = Artifact(name="x", pipeline="p", role="table", media_type="text/csv", size=100, sha256="")
        return msgspec.structs.replace(result("p"), artifacts=(artifact,))

    def has(self, print_of: str) -> bool:
        target = self.folder / f"served{len(list(self.folder.iterdir()))}"
        target.mkdir()
        return self.cache.take(print_of, "video", target) is not None


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    """Ten gigabytes of results that nobody asks for again must not push out what is asked for daily."""
    shelf = Shelf(tmp_path, 3000)
    old, used, *_ = [shelf.keep(number) for number in range(3)]
    for number, print_of in enumerate((old, used)):
        entry = next((tmp_path / "cache").glob(f"*/{print_of}/*"))
        os.utime(entry, (number, number))
    assert shelf.has(old), "now it is the newest"

    while shelf.has(used):
        os.utime(next((tmp_path / "cache").glob(f"*/{used}/*")), (1, 1))
        shelf.keep(len(list(tmp_path.iterdir())))

    assert shelf.has(old)
    assert shelf.cache.size_bytes <= 3000


def test_what_is_larger_than_the_cache_is_not_kept(tmp_path: Path) -> None:
    """It would empty it, and then go itself."""
    shelf = Shelf(tmp_path, 99)

    assert not shelf.has(shelf.keep(1))
    assert 0 == shelf.cache.size_bytes


def test_everything_made_of_a_video_can_be_forgotten(tmp_path: Path) -> None:
    """A participant who withdraws withdraws from here too."""
    shelf = Shelf(tmp_path, 10_000)
    prints = [shelf.keep(1), shelf.keep(2)]

    forgotten = shelf.cache.forget("video")

    assert (2, [False, False]) == (forgotten, [shelf.has(print_of) for print_of in prints])
    assert [] == os.listdir(tmp_path / "cache")


def test_a_crash_in_the_middle_leaves_no_entry_and_is_cleared_away(tmp_path: Path) -> None:
    """An entry appears by one rename: what is half written has another name, and goes when it is old."""
    shelf = Shelf(tmp_path, 10_000)
    half, fresh = tmp_path / "cache" / ".new-1", tmp_path / "cache" / ".new-2"
    for folder in (half, fresh):
        folder.mkdir(parents=True)
    os.utime(half, (1, 1))

    shelf.cache.prepare()

    assert (False, True) == (half.exists(), fresh.exists())
    assert 0 == shelf.cache.size_bytes


def test_several_may_keep_and_take_at_once(tmp_path: Path) -> None:
    """Four stages end in the same moment, in two servers on one folder: no error, no half entry."""
    shelf = Shelf(tmp_path, 1500)
    files = tmp_path / "made"
    files.mkdir()
    (files / "x").write_bytes(b"x" * 100)
    wrong: list[object] = []

    def work(worker: int) -> None:
        for number in range(60):
            print_of = hashlib.sha256(str(number % 7).encode()).hexdigest()
            shelf.cache.keep(print_of, "video", shelf.made(), files)
            target = tmp_path / f"out-{worker}-{number}"
            target.mkdir()
            taken = shelf.cache.take(print_of, "video", target)
            if taken is not None and (target / "x").read_bytes() != b"x" * 100:
                wrong.append(taken)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [] == wrong
    assert shelf.cache.size_bytes <= 1500


def test_what_is_served_to_be_edited_is_a_file_of_its_own(tmp_path: Path) -> None:
    """`annotate` puts results into the user's hands; what is changed there must not change here."""
    shelf = Shelf(tmp_path, 10_000)
    print_of = shelf.keep(1)
    served = tmp_path / "served"
    served.mkdir()

    Cache(tmp_path / "cache", 10_000, links_out=False).take(print_of, "video", served)

    assert 1 == (served / "x").stat().st_nlink


# The fingerprint

VIDEO = Video(filename="a.mp4", size_bytes=1, container="mp4", duration_seconds=1.0)
GIVEN: dict[str, Any] = {
    "video": VIDEO,
    "pipeline": "p",
    "version": "1.0.0",
    "code": "module:run",
    "config": {"rate": 5.0},
    "models": [ModelFiles("m", "/models/m", "0" * 64, "MIT")],
    "max_lost_frames": 0.01,
}


@pytest.mark.parametrize(
    "change",
    [
        {"video": msgspec.structs.replace(VIDEO, filename="b.mp4")},
        {"pipeline": "q"},
        {"version": "1.0.1"},
        {"config": {"rate": 5.5}},
        {"models": [ModelFiles("m", "/models/m", "1" * 64, "MIT")]},
        {"models": []},
        {"pictures": [NamedPicture("roster", "anna", "anna.jpg", "/r/anna.jpg", "1" * 64)]},
        {"max_lost_frames": 0.02},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_decides_the_result_is_in_the_fingerprint(change: dict[str, Any], tmp_path: Path) -> None:
    """What is left out would be served to somebody who asked for something else."""
    python = tmp_path / "bin" / "python"

    assert fingerprint(**GIVEN, interpreter=python) != fingerprint(**(GIVEN | change), interpreter=python)


def test_our_own_code_is_in_the_fingerprint_as_a_whole() -> None:
    """A result that older code made must not be served for that of newer code, whichever room the change was in."""
    top = Path(fingerprint.__code__.co_filename).parents[1]

    told = {str(file.relative_to(top)) for file in own_files()}

    assert {"pipelines/face_analysis.py", "pipelines/face_analysis.yaml", "media/frames.py", "formats/coco.py"} <= told


def test_another_version_of_a_library_is_another_fingerprint(tmp_path: Path) -> None:
    """Of the environment that the stage runs in, not of the server's."""
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    (packages / "numpy-1.26.4.dist-info").mkdir(parents=True)
    before = fingerprint(**GIVEN, interpreter=tmp_path / "bin" / "python")

    (packages / "numpy-1.26.4.dist-info").rename(packages / "numpy-2.0.0.dist-info")

    assert before != fingerprint(**GIVEN, interpreter=tmp_path / "bin" / "python")


def test_where_a_model_lies_and_the_order_of_parameters_do_not_matter(tmp_path: Path) -> None:
    """A storage directory that moved keeps its cache."""
    config = {"a": 1, "b": 2}
    moved = [ModelFiles("m", "/elsewhere/m", "0" * 64, "MIT")]
    given = GIVEN | {"config": config, "interpreter": tmp_path / "bin" / "python"}

    assert fingerprint(**given) == fingerprint(
        **(given | {"config": dict(reversed(config.items())), "models": moved, "video": _hashed(VIDEO)})
    )


def _hashed(video: Video) -> Video:
    return msgspec.structs.replace(video, sha256="0" * 64)


def test_a_pipeline_from_elsewhere_is_known_by_its_code(tmp_path: Path) -> None:
    """Nobody raises the version while he tries things out."""
    code = tmp_path / "mine.py"
    code.write_text("one")
    given = GIVEN | {"code": f"{code}:run", "interpreter": tmp_path / "bin" / "python"}
    before = fingerprint(**given)

    code.write_text("two")

    assert before != fingerprint(**given)


async def test_stages_that_are_served_need_no_slot(settings: Settings, clip: Path) -> None:
    """What is done already must not wait behind what takes a night."""
    narrow = msgspec.structs.replace(settings, max_concurrent_stages=1)
    async with Workspace.open(narrow) as workspace:
        await finished(workspace, clip)
        long = Selection(pipelines=("behaves",), config={"behaves": {"steps": 3000, "step_seconds": 0.02}})
        (busy,) = await workspace.submit(await workspace.admit(clip, "busy.mp4", long, owns_video=False))
        await until(workspace, busy.id, lambda job: job.stages[0].status is StageStatus.RUNNING)

        served = await finished(workspace, clip)
        await workspace.cancel(busy.id)
        await until(workspace, busy.id, lambda job: job.status.is_final)

    assert served.stages[0].cached
