"""
What lies in `lost/`, and what it says of itself.

No database knows these files any more, yet a recording among them may be just the one that somebody wants gone. Its
content is told by its bytes, or by the manifest of its results; its tags only by what a copy of an older database knew.
That is noted in the folder while there is such a copy: an erasure removes the copies.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from videoannotator.artifacts import MANIFEST, Artifacts, sha256, write_whole

_TAGS = "tags.json"

_decode_tags = msgspec.json.Decoder(frozenset[str]).decode


class LostJob(msgspec.Struct, frozen=True, kw_only=True):
    """One folder."""

    folder: Path
    videos: frozenset[str]
    """SHA-256 of its video; empty where nothing tells."""

    tags: frozenset[str] | None
    """None where nobody knew it."""


class _Input(msgspec.Struct, frozen=True):
    sha256: str | None = None


class _Provenance(msgspec.Struct, frozen=True):
    input: _Input


class _Manifest(msgspec.Struct, frozen=True):
    provenance: _Provenance


_decode_manifest = msgspec.json.Decoder(_Manifest).decode


def lost_jobs(
    artifacts: Artifacts, tags_of: Callable[[Iterable[str]], Mapping[str, frozenset[str]]]
) -> tuple[LostJob, ...]:
    """All of them. Reads every video there to its end; `tags_of` says what copies of the database knew. Blocks."""
    there = artifacts.lost.iterdir() if artifacts.lost.is_dir() else ()
    folders = sorted(folder for folder in there if folder.is_dir() and not folder.is_symlink())
    known = tags_of(folder.name for folder in folders) if folders else {}
    return tuple(
        LostJob(folder=folder, videos=_videos(folder), tags=_tags(folder, known.get(folder.name))) for folder in folders
    )


def _videos(folder: Path) -> frozenset[str]:
    found: set[str] = set()
    for file in sorted((folder / "videos").rglob("*")):
        with suppress(OSError):  # what cannot be read tells nothing, and somebody has to look at it
            if not file.is_symlink() and file.is_file():
                found.add(sha256(file))
    return frozenset(found) | _input_of(folder / "results" / MANIFEST)


def _input_of(manifest: Path) -> frozenset[str]:
    try:
        said = _decode_manifest(manifest.read_bytes()).provenance.input.sha256
    except (OSError, msgspec.DecodeError):
        return frozenset()
    return frozenset() if said is None else frozenset({said})


def _tags(folder: Path, known: frozenset[str] | None) -> frozenset[str] | None:
    note = folder / _TAGS
    if known is not None:
        if not note.exists():
            write_whole(note, msgspec.json.encode(sorted(known)))
        return known
    try:
        return _decode_tags(note.read_bytes())
    except (OSError, msgspec.DecodeError):
        return None
