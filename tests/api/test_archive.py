"""The ZIP that is written while it is sent: as long as it says, and readable by others."""

import io
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videoannotator.server.archive import Entry, zip_chunks, zip_length

MADE = datetime(2026, 11, 21, 12, 34, 56, tzinfo=UTC)


@given(st.dictionaries(st.text("abc.äß漢", min_size=1, max_size=20), st.binary(max_size=2000), max_size=6))
async def test_any_archive_is_as_long_as_it_says_and_opens(files: dict[str, bytes]) -> None:
    """Names in UTF-8, empty files, no files."""
    entries = [Entry(name=name, size=len(content), content=content) for name, content in files.items()]

    archive = b"".join([chunk async for chunk in zip_chunks(entries, MADE)])

    opened = zipfile.ZipFile(io.BytesIO(archive))
    assert len(archive) == zip_length(entries)
    assert opened.testzip() is None
    assert {name: opened.read(name) for name in opened.namelist()} == files
    assert all(entry.date_time == (2026, 11, 21, 12, 34, 56) for entry in opened.infolist())


async def test_a_file_that_shrank_breaks_the_archive_instead_of_filling_it(tmp_path: Path) -> None:
    """A broken download is noticed; a wrong one is published."""
    (tmp_path / "file").write_bytes(b"short")

    with pytest.raises(OSError, match="early"):
        _ = [chunk async for chunk in zip_chunks([Entry(name="f", size=10, content=tmp_path / "file")], MADE)]


@pytest.mark.slow
async def test_an_archive_beyond_4_gib_opens(tmp_path: Path) -> None:
    """An hour of video from a good camera; here sparse, on both sides of the limit, with a file behind it."""
    with (tmp_path / "large").open("wb") as large:
        large.truncate(2**32 + 12345)
    (tmp_path / "small").write_bytes(b"behind")
    entries = [
        Entry(name="large.mp4", size=2**32 + 12345, content=tmp_path / "large"),
        Entry(name="small.json", size=6, content=tmp_path / "small"),
    ]

    length = 0
    with (tmp_path / "archive.zip").open("wb") as archive:
        async for chunk in zip_chunks(entries, MADE):
            length += len(chunk)
            if chunk.count(0) == len(chunk):
                archive.seek(len(chunk), io.SEEK_CUR)
            else:
                archive.write(chunk)

    opened = zipfile.ZipFile(tmp_path / "archive.zip")
    assert length == zip_length(entries) == (tmp_path / "archive.zip").stat().st_size
    assert opened.read("small.json") == b"behind"
    assert opened.testzip() is None
