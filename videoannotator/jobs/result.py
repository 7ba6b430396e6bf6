"""What a stage leaves: files, rows of the index, and how it came to them."""

from typing import Literal

import msgspec

PARTIAL = ".partial"
"""In the name of a file, before its ending: it holds what was found until its stage broke off."""


class Output(msgspec.Struct, frozen=True):
    """A file the pipeline wrote; its name, role and type stand in the declaration too."""

    name: str
    role: Literal["annotations", "table", "audio_regions", "image", "captions", "video"]
    media_type: str
    in_zip: bool = True

    @property
    def partial(self) -> "Output":
        """The same file where a stage broke off: what it had found until then. `faces.json`: `faces.partial.json`."""
        stem, dot, suffix = self.name.rpartition(".")
        return Output(f"{stem or suffix}{PARTIAL}{dot}{suffix if stem else ''}", self.role, self.media_type, False)


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a job made. `name` is flat and unique within the job."""

    name: str
    pipeline: str
    role: str
    media_type: str
    size: int
    sha256: str
    in_zip: bool = True
    """Whether the ZIP for the Viewer holds it; some files there would displace others."""

    @property
    def is_partial(self) -> bool:
        """It holds what was found until its stage broke off."""
        return self.name.rpartition(".")[0].endswith(PARTIAL)


class Interval(msgspec.Struct, frozen=True):
    """One row of the index over annotations: what, who, when. Per-frame data stays in the files."""

    kind: Literal["scene", "face_track", "person_track", "voice", "utterance", "speaker"]
    onset: float
    duration: float
    label: str = ""
    track: int | None = None


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """
    What became of every frame (video) or sample block (audio) of the input.

    `closes` is the promise behind "completed": nothing was left out without being counted.
    """

    expected: int | None
    """Frames the container announces inside its timeline; None where it does not say."""

    decoded: int
    failed: int
    """Frames that were announced or present and could not be decoded, or came out damaged."""

    processed: int
    skipped: int
    """Decoded and left out on purpose, by the sampling rate."""

    @property
    def closes(self) -> bool:
        return self.decoded == self.processed + self.skipped and (
            self.expected is None or self.expected <= self.decoded + self.failed
        )

    @property
    def lost_share(self) -> float:
        return self.failed / max(1, self.decoded + self.failed)


class ModelUsed(msgspec.Struct, frozen=True):
    name: str
    sha256: str
    licence: str


class ModelFiles(msgspec.Struct, frozen=True):
    """A model that lies on this disk, whole and verified, for a stage that is about to load it."""

    name: str
    path: str
    sha256: str
    licence: str

    @property
    def used(self) -> ModelUsed:
        return ModelUsed(self.name, self.sha256, self.licence)


class NamedPicture(msgspec.Struct, frozen=True):
    """A picture of the user's that a stage compares with, as it was when the stage was about to begin."""

    parameter: str
    """The one that names the directory."""

    name: str
    """Of who or what it shows."""

    file: str
    """Below the directory, with `/` between the parts."""

    path: str
    sha256: str

    @property
    def used(self) -> "PictureUsed":
        return PictureUsed(self.file, self.sha256)


class PictureUsed(msgspec.Struct, frozen=True):
    file: str
    sha256: str


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """Who a track was taken for."""

    track_id: int
    name: str
    """`unknown` where nobody of those that are named was alike enough, or two were too much so."""

    similarity: float
    """To the name that is most alike."""

    method: str


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """How a stage came to its result: all that is needed to get the same bytes again."""

    pipeline_version: str
    engine: str
    libraries: dict[str, str]
    """Distribution name to version, of what computed."""

    models: tuple[ModelUsed, ...] = ()
    pictures: tuple[PictureUsed, ...] = ()
    """Of the user's, that it compared with."""

    named: tuple[Named, ...] = ()
    """Whom it recognised on them."""

    device: str = "cpu"
    environment: str = "default"
    ledger: Ledger | None = None
    known_limits: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    viewer_tracks: dict[str, str] = {}
    """What the Viewer takes each file of the ZIP for; those that it passes over are not named."""

    not_shown: tuple[str, ...] = ()
    """What of it the Viewer would not show, a sentence each."""
