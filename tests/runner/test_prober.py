"""Strangers' files are opened by a process that may hang, crash or be killed, and never by the server."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from tests.clips import Clips
from tests.stages import Bench, benching, descriptors, is_alive
from tests.waiting import happens
from videoannotator.errors import StageDied, UnreadableVideo
from videoannotator.runner.prober import Prober
from videoannotator.runner.probers import Probers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

_CODE = "tests.misbehaving.probes:probe"


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with benching(tmp_path) as bench:
        yield bench


@pytest.fixture
async def prober(bench: Bench) -> AsyncIterator[Prober]:
    async with Prober.open(bench.runner, code=_CODE, limit_seconds=1.0) as prober:
        yield prober


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], Path]:
    """A file whose first word says how it misbehaves."""

    def make(word: str) -> Path:
        path = tmp_path / f"{word}.mp4"
        path.write_text(word)
        return path

    return make


async def test_a_real_video_is_described_without_loading_a_media_library_here(bench: Bench, clips: Clips) -> None:
    """The server stays small, and a hole in a demuxer is not a hole in the server."""
    async with Prober.open(bench.runner) as prober:
        video = await prober.probe(clips.path("h264.mp4"), "my clip.mp4")

    assert video.filename == "my clip.mp4"
    assert video.video_codec == "h264"
    assert video.duration_seconds > 0


async def test_a_real_refusal_arrives_whole(bench: Bench, tmp_path: Path) -> None:
    """Code, message and hint are what the user sees; none may be lost on the way."""
    text = tmp_path / "notes.mp4"
    text.write_text("this is no video")

    async with Prober.open(bench.runner) as prober:
        with pytest.raises(UnreadableVideo) as refused:
            await prober.probe(text, "notes.mp4")

    assert "notes.mp4" in refused.value.message


async def test_a_refusal_keeps_its_code_message_and_hint(prober: Prober, file: Callable[[str], Path]) -> None:
    """They were chosen where it is known what is wrong."""
    with pytest.raises(UnreadableVideo) as refused:
        await prober.probe(file("refuse"), "list.mp4")

    assert refused.value.code == "PLAYLIST"
    assert str(refused.value) == "list.mp4 is a playlist. Send the video itself."


@pytest.mark.parametrize(
    ("word", "code", "says"),
    [
        ("hang", "PROBE_TIMEOUT", "bad.mp4 could not be read within 1 s."),
        ("crash", "UNREADABLE_VIDEO", "bad.mp4 crashed the reader."),
        ("bug", "UNREADABLE_VIDEO", "bad.mp4 cannot be read (ZeroDivisionError: a bug)."),
        ("memory", "UNREADABLE_VIDEO", "bad.mp4 asks for more memory"),
    ],
)
async def test_a_bad_file_is_refused_and_the_next_one_read(
    bench: Bench, prober: Prober, file: Callable[[str], Path], word: str, code: str, says: str
) -> None:
    """One stranger's file must not keep others from theirs."""
    await prober.probe(file("good"), "good.mp4")

    with pytest.raises(UnreadableVideo) as refused:
        await prober.probe(file(word), "bad.mp4")
    after = await prober.probe(file("good"), "good.mp4")

    assert refused.value.code == code
    assert says in str(refused.value)
    assert after.filename == "good.mp4"
    assert [process.pid for process in bench.left()] == [prober.pid]


async def test_what_an_earlier_file_broke_is_not_blamed_on_the_next(
    prober: Prober, file: Callable[[str], Path]
) -> None:
    """A hostile file can damage the reader's memory so that it dies on somebody else's."""
    await prober.probe(file("good"), "good.mp4")

    video = await prober.probe(file("crash_if_used"), "good too.mp4")

    assert video.filename == "good too.mp4"


async def test_noise_on_standard_output_is_no_answer(prober: Prober, file: Callable[[str], Path]) -> None:
    """Libraries print."""
    assert (await prober.probe(file("print"), "loud.mp4")).filename == "loud.mp4"


async def test_a_name_that_is_not_utf_8_is_found(prober: Prober, tmp_path: Path) -> None:
    """Old disks and cameras have such names."""
    path = tmp_path / "caf\udce9.mp4"
    path.write_text("good")

    assert (await prober.probe(path, "cafe.mp4")).size_bytes == 4


async def test_many_at_once_each_get_their_own_answer(prober: Prober, file: Callable[[str], Path]) -> None:
    """Answers that are mixed up would put one user's video into another's job."""
    path = file("good")

    videos = await asyncio.gather(*(prober.probe(path, f"{number}.mp4") for number in range(100)))

    assert [video.filename for video in videos] == [f"{number}.mp4" for number in range(100)]
    assert len({video.duration_seconds for video in videos}) == 1  # its process


async def test_a_caller_that_leaves_does_not_get_its_answer_to_the_next(
    prober: Prober, file: Callable[[str], Path]
) -> None:
    """Browsers are closed while an upload is looked at."""
    leaving = asyncio.create_task(prober.probe(file("hang"), "gone.mp4"))
    await happens(lambda: prober.pid is not None)
    await asyncio.sleep(0.2)
    leaving.cancel()
    await asyncio.wait({leaving})

    assert (await prober.probe(file("good"), "mine.mp4")).filename == "mine.mp4"


async def test_a_killed_reader_is_replaced(prober: Prober, file: Callable[[str], Path]) -> None:
    """The kernel takes it first when memory runs out."""
    first = (await prober.probe(file("good"), "a.mp4")).duration_seconds
    psutil.Process(int(first)).kill()

    second = (await prober.probe(file("good"), "b.mp4")).duration_seconds

    assert second != first


async def test_an_idle_reader_leaves_and_comes_back(bench: Bench, file: Callable[[str], Path]) -> None:
    """It holds a media library's memory for nothing otherwise."""
    before = descriptors()
    async with Prober.open(bench.runner, code=_CODE, idle_seconds=0.2) as prober:
        first = (await prober.probe(file("good"), "a.mp4")).duration_seconds
        await happens(lambda: prober.pid is None and not bench.left())
        second = (await prober.probe(file("good"), "b.mp4")).duration_seconds

    assert first != second
    assert not is_alive(int(second))
    assert descriptors() == before


async def test_a_reader_that_cannot_start_is_not_the_videos_fault(bench: Bench, file: Callable[[str], Path]) -> None:
    """Whoever installed it wrongly must not be told that their video is bad."""
    async with Prober.open(bench.runner, code="videoannotator.nothing:probe") as prober:
        with pytest.raises(StageDied, match="reader could not be started"):
            await prober.probe(file("good"), "a.mp4")

    assert bench.left() == []


async def test_a_warm_probe_costs_little(prober: Prober, file: Callable[[str], Path]) -> None:
    """Every upload waits for one."""
    path = file("good")
    await prober.probe(path, "warm.mp4")

    seconds = []
    for _ in range(50):
        began = time.monotonic()
        await prober.probe(path, "warm.mp4")
        seconds.append(time.monotonic() - began)

    assert sorted(seconds)[25] < 0.005


async def test_a_file_that_hangs_delays_nobody_else(bench: Bench, file: Callable[[str], Path]) -> None:
    """A batch of hundreds has such a file, and ten seconds for it are nobody else's loss."""
    async with Probers.open(bench.runner, most=3, code=_CODE, limit_seconds=20.0) as probers:
        hanging = [asyncio.create_task(probers.probe(file("hang"), "bad.mp4")) for _ in range(2)]
        await asyncio.sleep(0)  # they were first
        began = time.monotonic()

        videos = [await probers.probe(file("good"), f"{number}.mp4") for number in range(20)]

        seconds = time.monotonic() - began
        for task in hanging:
            task.cancel()
        await asyncio.wait(hanging)

    assert 20 == len(videos)
    assert seconds < 15
    assert 1 == len({video.duration_seconds for video in videos}), "one warm process does for one caller"
    assert [] == bench.left()


async def test_files_that_take_long_are_looked_at_side_by_side(bench: Bench, file: Callable[[str], Path]) -> None:
    """As many processes as there is work, and not more than allowed."""
    options = {"most": 3, "patience_seconds": 0.01, "code": _CODE, "limit_seconds": 20.0}
    async with Probers.open(bench.runner, **options) as probers:
        videos = await asyncio.gather(*(probers.probe(file("meet 3"), "long.mp4") for _ in range(5)))

    assert 3 == len({video.duration_seconds for video in videos})


async def test_a_burst_of_files_that_take_no_time_is_one_process_work(
    bench: Bench, file: Callable[[str], Path]
) -> None:
    """To start another one takes as long as dozens of files, and takes it from those who wait."""
    async with Probers.open(bench.runner, most=3, patience_seconds=60.0, code=_CODE) as probers:
        leaving = [asyncio.create_task(probers.probe(file("good"), "gone.mp4")) for _ in range(3)]
        await asyncio.sleep(0)
        leaving[1].cancel()  # while it waits
        videos = await asyncio.gather(*(probers.probe(file("good"), "good.mp4") for _ in range(30)))
        await asyncio.wait(leaving)

    assert 1 == len({video.duration_seconds for video in videos})
    assert [False, True, False] == [task.cancelled() for task in leaving]
