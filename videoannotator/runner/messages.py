"""The whole conversation between the server and a stage process. Frames are `u32 little-endian length | msgpack`."""

from typing import Any, Literal

import msgspec

from videoannotator.jobs import Interval, ModelFiles, NamedPicture, Output, Provenance, Video
from videoannotator.media.shared import Sharing

MAX_FRAME_BYTES = 4 * 1024**2
"""A longer frame breaks the protocol: nothing a stage has to say is that long, files are."""


class Prepare(msgspec.Struct, frozen=True, tag="prepare", kw_only=True):
    """Parent to child, before there is a job: load what this pipeline needs, and wait for its Start."""

    code: str
    network: Literal["none", "auto", "host"]


class Start(msgspec.Struct, frozen=True, tag="start", kw_only=True):
    """
    Parent to child, on standard input, which then stays open: its end means that the parent is gone. Once, and again
    after each `Waiting`.
    """

    code: str
    """Where the pipeline is, `module:function` or `/path/file.py:function`."""

    pipeline: str
    pipeline_version: str
    known_limits: tuple[str, ...]
    video_path: str
    video: Video
    config: dict[str, Any]
    output_folder: str
    """Empty, and the stage's own. What is in it after Done are the artifacts."""

    threads: int
    max_lost_frames: float
    network: Literal["none", "auto", "host"]
    environment: str = "default"
    """The name of the environment that the stage runs in, for its account."""

    models: tuple[ModelFiles, ...] = ()
    """Verified just now; there is nothing else that it may load from outside its packages."""

    pictures: tuple[NamedPicture, ...] = ()
    """Of the directories that parameters name, with the hashes that they had just now."""

    earlier: dict[str, str] = {}
    """Files that other stages of the job made before, as the declaration's `after` asks for: name to path."""

    chunks_folder: str = ""
    """What an earlier attempt at this very stage has kept; empty where nothing is to be kept."""

    chunk_seconds: float = 60.0
    sharing: Sharing | None = None
    """With which stages of the job it shares one decoder."""

    log: str = ""
    """The file to write to from now on; empty where standard error is that file already. The runner's to fill in."""

    scratch: str = ""
    """The folder for temporary files from now on. The runner's to fill in."""

    stays: bool = False
    """After a Done say Waiting and wait for the next Start. The runner's to fill in."""


Order = Prepare | Start


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    done_seconds: float
    total_seconds: float


class Log(msgspec.Struct, frozen=True, tag="log"):
    level: Literal["debug", "info", "warning", "error"]
    message: str


class Partial(msgspec.Struct, frozen=True, tag="partial"):
    """A piece of the result that is final, `name` being a file in the output folder. For stages that checkpoint."""

    name: str
    until_seconds: float


class Done(msgspec.Struct, frozen=True, tag="done", kw_only=True):
    annotations: int
    outputs: tuple[Output, ...]
    intervals: tuple[Interval, ...] = ()
    provenance: Provenance


class Failed(msgspec.Struct, frozen=True, tag="failed", kw_only=True):
    code: str
    message: str
    hint: str = ""
    retryable: bool = False


class Waiting(msgspec.Struct, frozen=True, tag="waiting"):
    """After a Done: nothing of the last stage is left here, and another one may begin."""


Message = Progress | Log | Partial | Done | Failed | Waiting


class Probe(msgspec.Struct, frozen=True, tag="probe", kw_only=True):
    """Parent to the probing process, one at a time: say what kind of video this is."""

    path: bytes
    """As the system knows it: file names need not be UTF-8."""

    filename: str


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The probing process has loaded what it needs."""


class Probed(msgspec.Struct, frozen=True, tag="probed"):
    video: Video


class Unreadable(msgspec.Struct, frozen=True, tag="unreadable", kw_only=True):
    code: str
    message: str
    hint: str = ""


ProbeMessage = Ready | Probed | Unreadable | Log


class Bear(msgspec.Struct, frozen=True, tag="bear", kw_only=True):
    """Server to nursery, with three descriptors: a stage process with just this environment."""

    environ: dict[bytes, bytes]


class Reap(msgspec.Struct, frozen=True, tag="reap"):
    """Server to nursery: a process that has ended may be forgotten, and its number given to another."""

    pid: int


NurseryOrder = Bear | Reap


class Born(msgspec.Struct, frozen=True, tag="born"):
    pid: int


class Stillborn(msgspec.Struct, frozen=True, tag="stillborn"):
    reason: str


class Reaped(msgspec.Struct, frozen=True, tag="reaped"):
    exit_status: int
    """Negative for a signal."""


NurseryAnswer = Born | Stillborn | Reaped
