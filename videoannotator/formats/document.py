"""
A JSON object written part by part, its lists one row per line, so that hours of annotations need no second copy in
memory and two results can be compared line by line.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

_encode = msgspec.json.encode

T = TypeVar("T")


def write_document(file: Path, head: Mapping[str, Any], lists: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
    """Write the parts of `head`, then the `lists`, in the order given. Names must not repeat."""
    with file.open("wb") as out:
        out.write(b"{")
        out.write(b",".join(b"\n" + _encode(name) + b": " + _encode(part) for name, part in head.items()))
        for place, (name, rows) in enumerate(lists.items()):
            out.write(b",\n" if head or place else b"\n")
            out.write(_encode(name) + b": [")
            for number, row in enumerate(rows):
                out.write((b",\n" if number else b"\n") + _encode(row))
            out.write(b"\n]")
        out.write(b"\n}\n")


def read_rows(file: Path, name: str, kind: type[T]) -> Iterator[T]:
    """
    The rows of one list of a file that `write_document` wrote, one in memory at a time; none where there is no such
    list.

    Raises:
        msgspec.DecodeError: a row has another form.
    """
    begin, decoder = _encode(name) + b": [", msgspec.json.Decoder(kind)
    with file.open("rb") as lines:
        for line in lines:
            if line.rstrip() == begin:
                break
        for line in lines:
            if line.startswith(b"]"):
                return
            yield decoder.decode(line.rstrip(b",\n"))


def seconds(value: float) -> float:
    """To the microsecond: finer than any container's time base that matters."""
    return round(value, 6)


def pixels(value: float) -> float:
    return round(value, 2)


def share(value: float) -> float:
    """A score, 0 to 1."""
    return round(value, 4)
