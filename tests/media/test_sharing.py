"""One decoder for several stages: the same frames and the same account, whoever is late, slow, gone or killed."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.clips import Clips
from tests.reads_frames import start
from videoannotator.errors import StageFailed
from videoannotator.media.frames import Frame, Frames
from videoannotator.media.probe import probe
from videoannotator.media.shared import Sharing

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory without a name is Linux's")

SCENES: dict[str, Any] = {"pixel_format": "bgr24", "max_side": 64, "threads": 3}
FACES: dict[str, Any] = {"rate": 10.0, "max_side": 200, "threads": 2}
ODD: dict[str, Any] = {"rate": 3.7, "pixel_format": "gray", "max_side": 77, "threads": 1}
CONTINUED: dict[str, Any] = {"rate": 10.0, "max_side": 200, "threads": 1, "after": 41}
EVERY: dict[str, Any] = {"max_side": 50, "threads": 1}
CLIP = "b_frames.mp4"


def sharing(folder: Path, *, gives: bool = False, takers: int = 1, **more: Any) -> Sharing:
    timing = {"door_seconds": 20.0, "patience_seconds": 20.0, "most_bytes": 2_000_000} | more
    return msgspec.convert({"address": str(folder / "frames"), "gives": gives, "takers": takers, **timing}, Sharing)


class Read(msgspec.Struct, frozen=True):
    """What one reader got, and how."""

    frames: list[tuple[int, float, int, tuple[int, ...], bytes]]
    account: Any
    company: str


def told(frame: Frame) -> tuple[int, float, int, tuple[int, ...], bytes]:
    return frame.number, frame.timestamp, frame.pts, frame.image.shape, frame.image.tobytes()


def account_of(frames: Frames) -> Any:
    """Everything a stage may ask of the frames after the last."""
    with suppress(StageFailed):
        frames.check(0.0)
        return frames.ledger, frames.derived_timestamps, "whole"
    try:
        frames.check(0.0)
    except StageFailed as trouble:
        return frames.ledger, frames.derived_timestamps, str(trouble)


def read(clip: Path, options: dict[str, Any], shared: Sharing | None = None) -> Read:
    with Frames(clip, probe(clip), sharing=shared, **options) as frames:
        found = [told(frame) for frame in frames]
        return Read(found, account_of(frames), frames.company)


def read_together(clip: Path, folder: Path, giver: dict[str, Any], *takers: dict[str, Any]) -> list[Read]:
    with ThreadPoolExecutor(1 + len(takers)) as pool:
        giving = pool.submit(read, clip, giver, sharing(folder, gives=True, takers=len(takers)))
        taking = [pool.submit(read, clip, options, sharing(folder)) for options in takers]
        return [giving.result(), *(one.result() for one in taking)]


@contextmanager
def another_process(clip: Path, shared: Sharing, options: dict[str, Any], *, stop: int) -> Iterator[Any]:
    process = start(clip, shared, options, stop=stop)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize(
    "name",
    [
        CLIP,
        "variable.mkv",
        "interlaced.ts",
        "rotated_90.mp4",
        "h264_b_frames.avi",
        "scratched.mp4",
        "scratched_hevc.mp4",
        "half.mkv",
    ],
)
def test_frames_of_a_shared_decoder_are_those_of_an_own_one(name: str, clips: Clips, tmp_path: Path) -> None:
    """Bytes, times, account, what is wrong with the file: results must not tell who decoded."""
    clip, asked = clips.path(name), (SCENES, FACES, ODD, CONTINUED, EVERY)
    alone = [read(clip, options) for options in asked]

    together = read_together(clip, tmp_path, *asked)

    for one, other in zip(alone, together, strict=True):
        assert one.frames
        assert one.frames == other.frames
        assert one.account == other.account
    assert [one.company for one in together] == [
        "for 4 other stages too",
        *(f"with {len(one.frames)} frames of another stage" for one in alone[1:]),
    ]
    assert not list(tmp_path.iterdir())


def test_who_gives_may_be_killed(clips: Clips, tmp_path: Path) -> None:
    """The other one goes on from there by itself, and nothing is left of the memory they shared."""
    clip = clips.path(CLIP)

    with (
        another_process(clip, sharing(tmp_path, gives=True), SCENES, stop=40) as giver,
        Frames(clip, probe(clip), sharing=sharing(tmp_path), **FACES) as frames,
    ):
        found = []
        for frame in frames:
            found.append(told(frame))
            if len(found) == 5:
                giver.kill()
        account, company = account_of(frames), frames.company

    assert (found, account) == (read(clip, FACES).frames, read(clip, FACES).account)
    taken = int(company.removeprefix("with ").removesuffix(" frames of another stage"))
    assert 5 <= taken < len(found)
    assert not list(tmp_path.iterdir())


def test_who_takes_may_be_killed(clips: Clips, tmp_path: Path) -> None:
    """Neither who decodes nor the third one notices."""
    clip = clips.path(CLIP)

    with (
        another_process(clip, sharing(tmp_path), FACES, stop=1) as taker,
        ThreadPoolExecutor(1) as pool,
        Frames(clip, probe(clip), sharing=sharing(tmp_path, gives=True, takers=2), **SCENES) as frames,
    ):
        third = pool.submit(read, clip, ODD, sharing(tmp_path))
        found = []
        for frame in frames:
            found.append(told(frame))
            if len(found) == 20:
                assert taker.stdout.readline() == "0\n"
                taker.kill()
        account, company = account_of(frames), frames.company

    assert company == "for 2 other stages too"
    assert (found, account) == (read(clip, SCENES).frames, read(clip, SCENES).account)
    assert third.result().frames == read(clip, ODD).frames
    assert third.result().company.startswith("with ")


def test_who_takes_too_slowly_is_not_waited_for(clips: Clips, tmp_path: Path) -> None:
    """A quick stage is not held up by one that takes ten times as long; that one decodes for itself then."""
    clip = clips.path(CLIP)
    room_for_two = 2 * 200 * 150 * 3

    with (
        ThreadPoolExecutor(1) as pool,
        Frames(clip, probe(clip), sharing=sharing(tmp_path, most_bytes=room_for_two), **FACES) as slow,
    ):
        giving = pool.submit(read, clip, SCENES, sharing(tmp_path, gives=True, patience_seconds=0.1))
        frames = iter(slow)
        first = [told(frame) for frame in islice(frames, 1)]
        quick = giving.result(timeout=20)
        rest = [told(frame) for frame in frames]
        account, company = account_of(slow), slow.company

    assert quick.frames == read(clip, SCENES).frames
    assert quick.company == "for 1 other stages too"
    assert (first + rest, account) == (read(clip, FACES).frames, read(clip, FACES).account)
    assert company in {"with 2 frames of another stage", "with 3 frames of another stage"}


def test_who_gives_too_slowly_is_not_waited_for(clips: Clips, tmp_path: Path) -> None:
    """A stage that loads its models for a minute before it reads on must not hold up the others."""
    clip = clips.path(CLIP)

    with (
        ThreadPoolExecutor(1) as pool,
        Frames(clip, probe(clip), sharing=sharing(tmp_path, gives=True), **SCENES) as slow,
    ):
        taking = pool.submit(read, clip, FACES, sharing(tmp_path, patience_seconds=0.1))
        frames = iter(slow)
        first = [told(frame) for frame in islice(frames, 10)]
        quick = taking.result(timeout=20)
        rest = [told(frame) for frame in frames]

    assert quick.frames == read(clip, FACES).frames
    assert quick.company != f"with {len(quick.frames)} frames of another stage"
    assert first + rest == read(clip, SCENES).frames


@pytest.mark.parametrize("gives", [True, False])
def test_who_meets_nobody_decodes_alone(gives: bool, clips: Clips, tmp_path: Path) -> None:
    """The other stage may have to wait for its slot, or have failed before it looked at the video."""
    clip = clips.path(CLIP)

    found = read(clip, FACES, sharing(tmp_path, gives=gives, door_seconds=0.05))

    assert found == read(clip, FACES)
    assert found.company == "alone"
    assert not list(tmp_path.iterdir())


def test_who_has_too_little_room_or_no_such_place_decodes_alone(clips: Clips, tmp_path: Path) -> None:
    """Frames that do not fit twice into the memory are not shared; nor where a socket's name would be too long."""
    clip = clips.path(CLIP)
    long = tmp_path / ("x" * 120)
    long.mkdir()

    assert read(clip, FACES, sharing(tmp_path, most_bytes=100_000)) == read(clip, FACES)
    assert read(clip, FACES, sharing(long)) == read(clip, FACES)
    assert read(clip, SCENES, sharing(long, gives=True)) == read(clip, SCENES)
