"""
HOSTILE.md, Media: files that lie about what they are, and files that are damaged.

Each is refused when it is submitted, with a code that says why, or runs to an ending that says what is missing; the
server is well afterwards. That stages have no network is proven in tests/runner/, the frame ledger of damaged files in
tests/media/; here the whole server is asked.
"""

import asyncio
import os
import re
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from tests.clips import Clips, ffmpeg, playlists
from tests.declared import declare
from tests.elsewhere import elsewhere, status
from tests.server import Served, serving
from videoannotator.models.catalogue import Models

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def submitted(server: Served, content: bytes, name: str = "clip.mp4", pipelines: str = "behaves") -> Any:
    """The answer, and how long it took."""
    began = time.monotonic()
    answer = await server.http.post(
        "/api/v1/jobs", files={"video": (name, content, "video/mp4")}, data={"selected_pipelines": pipelines}
    )
    assert time.monotonic() - began < 12, "a file must not hold the reader longer than its limit"
    return answer


# -- what it is not


@pytest.mark.parametrize("name", sorted(playlists("x")))
async def test_a_playlist_opens_nothing_else(shared: Served, clips: Clips, tmp_path: Path, name: str) -> None:
    """One named .mp4 made another program read somebody else's file, and another call a URL."""
    theirs = tmp_path / "theirs.mp4"
    theirs.write_bytes(clips.path("h264.mp4").read_bytes())
    async with elsewhere() as other:
        other.answers["/x.mp4"] = status(200, theirs.read_bytes())
        answers = [
            await submitted(shared, playlists(target)[name])
            for target in (str(theirs), f"file://{theirs}", f"{other.url}/x.mp4")
        ]

    assert [(a.status_code, a.json()["error"]["code"]) for a in answers] == [(422, "PLAYLIST_REFUSED")] * 3
    assert other.asked == []
    assert shared.left_over() == []


@pytest.mark.parametrize(
    ("clip", "code"),
    [
        ("empty.mp4", "FILE_EMPTY"),
        ("text.mp4", "NOT_A_VIDEO"),
        ("page.mp4", "NOT_A_VIDEO"),
        ("noise.mp4", "NOT_A_VIDEO"),
        ("zeros.mp4", "NOT_A_VIDEO"),
        ("picture.mp4", "NOT_A_VIDEO"),
        ("animation.mp4", "NOT_A_VIDEO"),
        ("subtitles.mp4", "NOT_A_VIDEO"),
        ("no_moov.mp4", "VIDEO_TRUNCATED"),
        ("many_tracks.mkv", "TOO_MANY_STREAMS"),
        ("wide.avi", "TOO_LARGE_PICTURE"),
        ("nan_duration.mkv", ""),
        ("negative_duration.mkv", ""),
        ("endless_duration.mkv", "BAD_DURATION"),
    ],
)
async def test_what_is_no_video_is_refused_with_the_reason(shared: Served, clips: Clips, clip: str, code: str) -> None:
    """And not kept. A length that is no number is measured by reading, or refused; it is never passed on."""
    answer = await submitted(shared, clips.path(clip).read_bytes())

    said = answer.json()
    if answer.status_code == 201:
        assert code == ""
        assert 0 < said["video_duration_seconds"] < 10
        await shared.http.delete(f"/api/v1/jobs/{said['id']}")
    else:
        assert answer.status_code == 422
        assert said["error"]["code"] == (code or "BAD_DURATION")
    assert shared.left_over() == []


# -- lies in the tables


def _patched(content: bytes, mark: bytes, offset: int, value: bytes, every: bool = True) -> bytes:
    """`value` so many bytes behind each `mark`."""
    changed = bytearray(content)
    places = [found.start() for found in re.finditer(re.escape(mark), content)]
    assert places, mark
    for place in places if every else places[:1]:
        changed[place + offset : place + offset + len(value)] = value
    return bytes(changed)


def _huge_avi(content: bytes) -> bytes:
    size = struct.pack("<ii", 100_000, 100_000)
    return _patched(_patched(content, b"strf", 12, size, every=False), b"avih", 8 + 32, size)


def _endless_avi(content: bytes) -> bytes:
    frames = struct.pack("<I", 10**9)
    return _patched(_patched(content, b"avih", 8 + 16, frames), b"strh", 8 + 32, frames)


def _fast_avi(rate: int, scale: int) -> Any:
    def change(content: bytes) -> bytes:
        step = min(1_000_000 * scale // rate if rate else 0, 0xFFFFFFFF)
        changed = _patched(content, b"avih", 8, struct.pack("<I", step))
        return _patched(changed, b"strh", 8 + 20, struct.pack("<II", scale, rate), every=False)

    return change


def _endless_mp4(content: bytes) -> bytes:
    """10^9 samples of one size, of one length, in one chunk."""
    changed = _patched(content, b"stsz", 8, struct.pack(">II", 100, 10**9), every=False)
    changed = _patched(changed, b"stts", 8, struct.pack(">III", 1, 10**9, 1), every=False)
    return _patched(changed, b"stsc", 8, struct.pack(">IIII", 1, 1, 10**9, 1), every=False)


def _wide_mp4(content: bytes) -> bytes:
    """100,000 x 100,000 in the header of the track, 65,535 in the one of the codec, which has no more room."""
    changed = _patched(content, b"tkhd", 4 + 76, struct.pack(">II", 0xFFFFFFFF, 0xFFFFFFFF), every=False)
    return _patched(changed, b"avc1", 4 + 24, struct.pack(">HH", 65535, 65535))


def _mdhd(scale: int, duration: int) -> Any:
    return lambda content: _patched(content, b"mdhd", 4 + 12, struct.pack(">II", scale, duration))


def _with_tracks(count: int) -> Any:
    """The first track of an MP4 whose index stands at its end, so often."""

    def change(content: bytes) -> bytes:
        at = content.rindex(b"moov") - 4
        box = content[at:]
        first = box.index(b"trak") - 4
        (length,) = struct.unpack(">I", box[first : first + 4])
        inner = box[8:first] + box[first : first + length] * count
        return content[:at] + struct.pack(">I4s", 8 + len(inner), b"moov") + inner

    return change


def _default_duration(nanoseconds: int) -> Any:
    def change(content: bytes) -> bytes:
        at = content.index(b"\x23\xe3\x83")
        size = content[at + 3] & 0x7F
        return content[: at + 4] + nanoseconds.to_bytes(size, "big") + content[at + 4 + size :]

    return change


LIES: dict[str, tuple[str, Any]] = {
    "100,000 pixels a side, AVI": ("raw.avi", _huge_avi),
    "100,000 pixels a side, and a codec that knows better": ("mpeg4.avi", _huge_avi),
    "100,000 pixels a side, MP4": ("h264.mp4", _wide_mp4),
    "a milliard of frames, AVI": ("mpeg4.avi", _endless_avi),
    "a milliard of frames, MP4": ("h264.mp4", _endless_mp4),
    "0 frames a second, AVI": ("mpeg4.avi", _fast_avi(0, 1)),
    "a milliard of frames a second, AVI": ("mpeg4.avi", _fast_avi(10**9, 1)),
    "one frame in a milliard of seconds, AVI": ("mpeg4.avi", _fast_avi(1, 10**9)),
    "0 ticks a second, MP4": ("h264.mp4", _mdhd(0, 1000)),
    "a milliard of ticks a second, MP4": ("h264.mp4", _mdhd(4 * 10**9, 1)),
    "a length beyond all, MP4": ("h264.mp4", _mdhd(1, 0xFFFFFFFE)),
    "0 nanoseconds a frame, MKV": ("h264.mkv", _default_duration(0)),
    "1 nanosecond a frame, MKV": ("h264.mkv", _default_duration(1)),
    "4,000 tracks": ("b_frames.mp4", _with_tracks(4000)),
    "400 tracks": ("b_frames.mp4", _with_tracks(400)),
}


QUICK = ("100,000 pixels a side, AVI", "a milliard of frames, AVI", "0 ticks a second, MP4", "4,000 tracks")


@pytest.mark.parametrize("lie", [lie if lie in QUICK else pytest.param(lie, marks=pytest.mark.slow) for lie in LIES])
async def test_a_file_that_lies_in_its_tables_is_refused_or_comes_to_an_end(
    shared: Served, clips: Clips, lie: str
) -> None:
    """Within the reader's limit, with what it says bounded; a job that is taken ends, and the next one is served."""
    clip, change = LIES[lie]

    answer = await submitted(shared, change(clips.path(clip).read_bytes()), name=clip)

    said = answer.json()
    assert answer.status_code in (201, 422), answer.text
    if answer.status_code == 201:
        shown = said["video"]
        ended = await shared.ended(said["id"])
        await shared.http.delete(f"/api/v1/jobs/{said['id']}")
        assert shown["width"] <= 16384
        assert shown["height"] <= 16384
        assert 0 < shown["duration_seconds"] <= 7 * 24 * 3600
        assert ended["status"] in ("completed", "failed")
    else:
        assert said["error"]["code"] in (
            *("TOO_LARGE_PICTURE", "TOO_MANY_STREAMS", "BAD_DURATION", "VIDEO_TRUNCATED"),
            *("NOT_A_VIDEO", "UNREADABLE_VIDEO", "NO_STREAMS", "PROBE_TIMEOUT"),
        )
    good = await submitted(shared, clips.path("h264.mp4").read_bytes())
    await shared.http.delete(f"/api/v1/jobs/{good.json()['id']}")
    assert good.status_code == 201


@pytest.mark.slow
@pytest.mark.parametrize(
    "clip",
    [
        *(
            *LIES,
            "half.mp4",
            "half.mkv",
            "half.avi",
            "half.ts",
            "half_fragmented.mp4",
            "scratched.mp4",
            "scratched.mkv",
        ),
        *("scratched.ts", "scratched_hevc.mp4", "odd_size.webm", "odd_size.mp4", "rotated_90.mp4", "upside_down.mp4"),
        *("variable.mp4", "variable.mkv", "sound.wav", "no_sound.mp4", "late_everything.mp4", "edit_list.mp4"),
    ],
)
async def test_real_stages_on_odd_files_come_to_an_end_that_tells(shared: Served, clips: Clips, clip: str) -> None:
    """Cut in half, corrupt in the middle, odd, turned, of variable rate: completed stages have closed their ledgers."""
    name, change = LIES.get(clip, (clip, lambda content: content))
    answer = await submitted(
        shared, change(clips.path(name).read_bytes()), name=name, pipelines="scene_detection,voice_activity"
    )
    if answer.status_code == 422:
        return
    ended = await asyncio.wait_for(shared.ended(answer.json()["id"]), 60)
    job = await shared.workspace.store.get(ended["id"])
    await shared.http.delete(f"/api/v1/jobs/{ended['id']}")

    assert ended["status"] in ("completed", "failed")
    for stage in job.stages:
        if stage.status == "completed":
            assert stage.provenance is not None
            assert stage.provenance.ledger is None or stage.provenance.ledger.closes
        else:
            assert stage.error is not None
            assert stage.error.code not in ("STAGE_DIED", "STAGE_TOO_SLOW", "INTERNAL_ERROR"), stage.error


@pytest.mark.slow
async def test_ten_good_minutes_and_then_garbage_are_told_apart(tmp_path: Path) -> None:
    """What was good is seen, what is missing is said, and nothing waits for what will not come."""
    good = tmp_path / "good.ts"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x48:r=5:d=600", "-c:v", "libx264", "-preset", "ultrafast", good)
    content = good.read_bytes() + os.urandom(2_000_000)
    async with serving(tmp_path, stage_stall_seconds=20) as server:
        answer = await submitted(server, content, name="long.ts", pipelines="scene_detection")
        ended = await asyncio.wait_for(server.ended(answer.json()["id"]), 120)

    assert answer.status_code == 201
    assert ended["status"] in ("completed", "failed")
    assert ended["stages"][0].get("error", {}).get("code") in (None, "FRAMES_LOST")


async def test_a_stage_that_makes_no_progress_is_ended(tmp_path: Path, clip: Path) -> None:
    """A decoder that loops over garbage reports nothing; silence has a limit, and the job says so."""
    declared = declare(tmp_path / "more", "hangs")
    async with serving(tmp_path, stage_stall_seconds=1.0, pipeline_dirs=(declared,), crash_attempts=1) as server:
        ended = await server.finished(clip, "hangs")

    assert ended["status"] == "failed"
    assert ended["error_code"] in ("STAGE_STALLED", "STAGE_TOO_SLOW")


# -- what it also is


PAGE = b"<!doctype html><script>document.title='owned'</script>"


def _polyglots(content: bytes) -> dict[str, bytes]:
    """Videos that begin, or go on, as a page."""
    free = struct.pack(">I4s", 8 + len(PAGE), b"free") + PAGE
    return {
        "page.html": content[:32] + free + content[32:] if content[4:8] != b"ftyp" else _behind_ftyp(content, free),
        "<script>alert(1)</script>.svg": content + PAGE,
        'x.mp4"; filename="x.html': content + PAGE,
    }


def _behind_ftyp(content: bytes, box: bytes) -> bytes:
    """At the end of the first box, with the index at the end of the file, where nothing counts from it."""
    return content + box


@pytest.mark.parametrize(
    "name",
    ["page.html", *(pytest.param(n, marks=pytest.mark.slow) for n in _polyglots(b"\0" * 40) if n != "page.html")],
)
async def test_a_video_that_is_also_a_page_is_never_shown_as_one(shared: Served, clips: Clips, name: str) -> None:
    """An attachment, not sniffed, in a sandbox, of a type that no browser runs; the shown name has no markup."""
    content = _polyglots(clips.path("b_frames.mp4").read_bytes())[name]
    answer = await submitted(shared, content, name=name)
    assert answer.status_code == 201, answer.text
    job = answer.json()
    await shared.ended(job["id"])

    video = await shared.http.get(f"/api/v1/jobs/{job['id']}/video")
    archive = await shared.http.get(f"/api/v1/jobs/{job['id']}/artifacts")
    await shared.http.delete(f"/api/v1/jobs/{job['id']}")

    assert video.content == content
    assert video.headers["content-disposition"].startswith("attachment")
    assert video.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in video.headers["content-security-policy"]
    assert video.headers["content-type"].split(";")[0] in ("application/octet-stream", "video/mp4")
    assert archive.headers["content-disposition"].startswith("attachment")
    assert archive.headers["x-content-type-options"] == "nosniff"
    assert not set(job["video_filename"]) & set("<>\"&'")


@pytest.mark.parametrize("model", [model.name for model in Models.load()])
async def test_a_model_in_a_format_that_can_run_code_is_checksummed(model: str) -> None:
    """Loading a pickle runs what its author wrote; only the very file that was looked at may be loaded."""
    pickles = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib")

    unknown = [f for f in Models.load().get(model).files if Path(f.path).suffix.lower() in pickles and not f.sha256]

    assert unknown == []
