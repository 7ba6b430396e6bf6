"""What the words of an `annotate` call mean: which files, which parameters, where the results go."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from videoannotator.errors import Refused

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts",
    ".webm", ".wmv",
})
# fmt: on
MANIFEST = "manifest.json"


class Input(msgspec.Struct, frozen=True):
    """One video and the folder its results go to."""

    video: Path
    output: Path


def find_inputs(named: Sequence[Path], output: Path) -> list[Input]:
    """
    Files as they are named, directories with every video below them; each video once, in a stable order.

    Raises:
        Refused: a path that does not exist, no video anywhere, or a folder in the way of the results.
    """
    videos = list(dict.fromkeys(video for path in named for video in _videos_of(path)))
    if not videos:
        where = ", ".join(str(path) for path in named)
        raise Refused(f"There is no video in {where}.", code="NO_VIDEO_FOUND")
    inputs = [Input(video, output / name) for video, name in zip(videos, _names(videos), strict=True)]
    for one in inputs:
        _require_free(one.output)
    return inputs


def parse_settings(assignments: Iterable[str], types: Any) -> dict[str, dict[str, Any]]:
    """
    `pipeline.parameter=value` to a configuration; `types(pipeline, parameter)` names the declared type.

    Raises:
        Refused: an assignment that has another form.
    """
    config: dict[str, dict[str, Any]] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        pipeline, dot, parameter = name.strip().partition(".")
        if not (equals and dot and pipeline and parameter):
            hint = "Write --set pipeline.parameter=value, as in --set scene_detection.detector=content."
            raise Refused(f"{assignment!r} sets nothing.", hint=hint, code="INVALID_ASSIGNMENT")
        config.setdefault(pipeline, {})[parameter] = _value(text.strip(), types(pipeline, parameter))
    return config


def on_this_machine(config: Mapping[str, Mapping[str, Any]], catalogue: Any) -> dict[str, dict[str, Any]]:
    """The same, with paths of directories as they are from here, behind all links: from now on none is followed."""
    return {
        pipeline: {
            parameter: str(Path(value).expanduser().resolve())
            if isinstance(value, str) and value and catalogue.names_a_directory(pipeline, parameter)
            else value
            for parameter, value in values.items()
        }
        for pipeline, values in config.items()
    }


def _value(text: str, declared: str | None) -> Any:
    """What the text means for the declared type; text that does not fit stays text, for the catalogue to refuse."""
    if declared == "multiselect":
        return [part.strip() for part in text.split(",") if part.strip()]
    if declared == "boolean":
        return {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}.get(
            text.lower(), text
        )
    if declared in ("integer", "number"):
        try:
            return int(text) if declared == "integer" else float(text)
        except ValueError:
            return text
    return text


def _videos_of(path: Path) -> list[Path]:
    if path.is_dir():
        found = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
        return sorted(file for file in found if file.suffix.lower() in VIDEO_SUFFIXES)
    if not path.exists():
        raise Refused(f"There is no file {path}.", hint="Check the path.", code="FILE_NOT_FOUND")
    return [path]


def _names(videos: Sequence[Path]) -> list[str]:
    """A folder name for each video: its stem, and a number behind it where two are alike."""
    taken: set[str] = set()
    names = []
    for video in videos:
        name, number = video.stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{video.stem}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def _require_free(folder: Path) -> None:
    if not folder.exists() or (folder / MANIFEST).is_file():
        return
    hint = "Choose another folder with --output, or move it away."
    raise Refused(f"{folder} is in the way and holds no earlier result.", hint=hint, code="OUTPUT_IN_THE_WAY")
