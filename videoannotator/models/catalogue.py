"""
The declared models: what they are, where they come from, and what their authors allow.

A checksum stands here only where we know it. Files of the Hugging Face Hub are checked against what the hub says of
them when they are fetched, others against the checksum declared here or, without one, against nothing but their length;
in every case what came is recorded then and checked against that record ever after.
"""

import fnmatch
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

import msgspec

from videoannotator.errors import NotFound, Refused, there_are


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One file to be fetched from an address of its own."""

    path: str
    """Where it goes inside the model's folder; for an archive, the folder that its content goes into ('.': the top)."""

    url: str
    sha256: str = ""
    unpack: Literal["", "zip"] = ""


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Either `hub` says where it comes from, or `files`."""

    name: str
    title: str
    engine: str
    """The library that loads it."""

    licence: str
    commercial_use: bool | None
    """Whether the licence allows it; None where the authors do not say clearly."""

    citation: str
    page: str
    """Where people read about it."""

    about_mb: int
    """What it takes on disk, roughly: from the number of its weights, or as its authors say."""

    hub: str = ""
    """A repository of the Hugging Face Hub."""

    revision: str = "main"
    patterns: tuple[str, ...] = ()
    """Which files of the repository are wanted, as shell patterns."""

    one_of: tuple[str, ...] = ()
    """The same weights in several forms: the first that the repository has is taken."""

    files: tuple[File, ...] = ()
    required: tuple[str, ...]
    """Without these files it cannot be loaded; shell patterns where an archive has its own folders."""

    gated: bool = False
    """Its authors ask for an account and consent before they give it."""

    def lacks(self, paths: Iterable[str]) -> str:
        """What is missing of these files, in words; empty where nothing is."""
        there = set(paths)
        missing = [path for path in self.required if not fnmatch.filter(there, path)]
        if self.one_of and there.isdisjoint(self.one_of):
            missing.append(" or ".join(self.one_of))
        return ", ".join(missing)

    @property
    def about_bytes(self) -> int:
        return self.about_mb * 1_000_000

    @property
    def how_checked(self) -> str:
        """What its files are checked against when they are fetched."""
        if self.hub:
            return "the hub's checksums"
        if all(file.sha256 for file in self.files):
            return "declared checksums"
        return "length only; recorded at first pull"


class Models:
    """All declared models, in the order of their names."""

    def __init__(self, files: Iterable[Path]) -> None:
        found = [model for file in files for model in _read(file)]
        self._by_name = {model.name: model for model in sorted(found, key=lambda model: model.name)}

    @classmethod
    def load(cls, more: Iterable[Path] = ()) -> "Models":
        """
        Read every `*.yaml` of this folder and of the others named; a later folder wins over an earlier one.

        Raises:
            Refused: INVALID_DECLARATION, a file that breaks the form.
        """
        return cls(file for folder in (Path(__file__).parent, *more) for file in sorted(folder.glob("*.yaml")))

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(self._by_name)

    def __iter__(self) -> Iterator[Model]:
        return iter(self._by_name.values())

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def get(self, name: str) -> Model:
        """Raises NotFound with the code MODEL_NOT_FOUND."""
        if name not in self._by_name:
            raise NotFound.of("model", name, there_are(name, self.names))
        return self._by_name[name]


def _read(file: Path) -> tuple[Model, ...]:
    try:
        models = _declared(file.read_bytes())
    except (msgspec.MsgspecError, OSError) as exc:
        raise Refused(f"{file} declares no models: {exc}.", code="INVALID_DECLARATION") from exc
    for model in models:
        if bool(model.hub) == bool(model.files) or not model.required:
            message = f"{file}: {model.name} must have either hub or files, and required files."
            raise Refused(message, code="INVALID_DECLARATION")
        _check_paths(file, model)
    return models


@lru_cache(maxsize=64)
def _declared(content: bytes) -> tuple[Model, ...]:
    """Once, however often a command asks."""
    return msgspec.yaml.decode(content, type=tuple[Model, ...])


def _check_paths(file: Path, model: Model) -> None:
    """Names become folders: none may lead elsewhere."""
    paths = (model.name, *model.required, *model.one_of, *(f.path for f in model.files))
    if any(not path or Path(path).is_absolute() or ".." in Path(path).parts for path in paths) or "/" in model.name:
        raise Refused(f"{file}: {model.name} names a path outside its folder.", code="INVALID_DECLARATION")
