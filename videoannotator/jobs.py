"""The nouns: a video, a job and its stages, the states they can be in, and what can happen to them."""

import secrets
import time
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

BROWSER_COPY = "browser_copy"
"""The stage that copies a video for browsers."""

PEOPLE = "people"
"""The stage that puts faces and persons together."""

AUTOMATIC = frozenset({BROWSER_COPY, PEOPLE})
"""Stages that the program adds where they are needed. Nobody selects them, and they alone are no result."""

PARTIAL = ".partial"
"""In the name of a file, before its ending: it holds what was found until its stage broke off."""

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_id(prefix: str) -> str:
    """A ULID behind a prefix: ids sort by the time they were made. Source: github.com/ulid/spec."""
    number = int(time.time() * 1000) << 80 | secrets.randbits(80)
    return f"{prefix}_{''.join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))}"


class JobStatus(StrEnum):
    PENDING = "pending"  #: waits for a worker
    RUNNING = "running"  #: a worker has claimed it
    CANCELLING = "cancelling"  #: somebody asked to stop it, and its worker is seeing to that
    COMPLETED = "completed"  #: every stage that could run has run; see `outcome`
    FAILED = "failed"  #: no stage gave a result, or the job itself could not be worked on
    CANCELLED = "cancelled"  #: stopped because somebody asked

    @property
    def is_final(self) -> bool:
        return self in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)

    @property
    def is_held(self) -> bool:
        """A worker holds a lease on it."""
        return self in (JobStatus.RUNNING, JobStatus.CANCELLING)


class StageStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"  #: the video lacks what the pipeline needs, a sound track say
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self not in (StageStatus.PENDING, StageStatus.RUNNING)


class Video(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a probe says of a file. Sizes are those of the upright picture, times are seconds."""

    filename: str
    """As people know it: cleaned of path parts, control and markup characters."""

    size_bytes: int
    container: str
    duration_seconds: float
    start_seconds: float = 0.0
    """Timestamp of the first frame on the file's timeline."""

    width: int = 0
    height: int = 0
    rotation_degrees: int = 0
    """Clockwise turn that makes the stored picture upright: 0, 90, 180 or 270. Already applied to width and height."""

    frame_rate: float = 0.0
    """Average frames per second."""

    variable_frame_rate: bool = False
    frame_count: int | None = None
    """Frames that the container announces, where it does."""

    video_codec: str | None = None
    pixel_format: str | None = None
    """FFmpeg's name for how the pictures are stored, `yuv420p` say."""

    audio_codec: str | None = None
    audio_start_seconds: float = 0.0
    sha256: str | None = None
    """Of the file's bytes; known once a worker has read it."""

    @property
    def has_video(self) -> bool:
        return self.video_codec is not None

    @property
    def has_audio(self) -> bool:
        return self.audio_codec is not None


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


class StageError(msgspec.Struct, frozen=True):
    code: str
    message: str


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


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a pipeline in one job."""

    pipeline: str
    config: dict[str, Any]
    """Every parameter with its value, defaults filled in."""

    status: StageStatus = StageStatus.PENDING
    progress: float = 0.0
    rate: float | None = None
    """Seconds of video worked through in a second."""

    eta_seconds: float | None = None
    attempts: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    seconds: float | None = None
    """How long the process ran."""

    annotations: int | None = None
    error: StageError | None = None
    provenance: Provenance | None = None
    usage: "Usage | None" = None
    failures: int = 0
    """Attempts that failed and were followed by another."""

    retry_at: datetime | None = None
    """The next attempt does not begin before."""

    last_error: StageError | None = None
    """What ended the last attempt that was followed by another."""

    eased: dict[str, Any] | None = None
    """Parameters changed because memory ran out; empty where there was none to change, None where it did not."""

    cached: bool = False
    """The result was not computed for this job but taken from earlier, equal work."""

    @property
    def used_config(self) -> dict[str, Any]:
        """The parameters of the next, or the last, attempt."""
        return self.config | (self.eased or {})


class Usage(msgspec.Struct, frozen=True):
    """What the processes of a stage take, sampled a few times a second."""

    peak_memory_bytes: int
    """Resident, of all its processes together; pages that several share count for each."""

    cpu_seconds: float
    """Of the first process and its descendants; what one of those used that was ended by force is left out."""


class Errands(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a job needs of the world outside the storage directory."""

    video_url: str | None = None
    """Where its video is fetched from, before anything else."""

    fetched: bool = False
    """The video has been fetched and looked at. Until then nothing is known of it but a name."""

    output_directory: Path | None = None
    """Where its results are published too, in a folder of the job's."""

    db_location: Path | None = None
    """A SQLite file that its annotations are written into too."""

    callback_url: str | None = None
    """Who is told that it is over."""


class Callback(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far the telling is."""

    url: str
    state: Literal["waiting", "delivered", "given_up"] = "waiting"
    attempts: int = 0
    next_at: datetime | None = None
    """When it is tried again, where an attempt has failed."""

    last_attempt_at: datetime | None = None
    last_status: int | None = None
    """What the other side answered, where it did."""

    last_error: str | None = None


class NewStage(msgspec.Struct, frozen=True):
    pipeline: str
    config: dict[str, Any]
    skip_because: StageError | None = None
    """Set where the probe already shows that the stage has nothing to work on."""

    carried_over: bool = False
    """Completed in the job that `retry_of` names: its result, artifacts and intervals are taken from there."""


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """What `store.add` needs. Everything in it is already checked."""

    id: str
    video: Video
    video_path: Path
    """Where the bytes are, on this machine."""

    owns_video: bool
    """The file lies under the storage directory and goes when the job goes."""

    stages: tuple[NewStage, ...]
    config: dict[str, dict[str, Any]] = {}
    """What the caller gave, before defaults."""

    preset: str | None = None
    preset_content: dict[str, Any] | None = None
    tags: tuple[str, ...] = ()
    priority: int = 0
    """Higher goes first."""

    owner: str = ""
    """Whose key it is submitted with."""

    batch_id: str | None = None
    retry_of: str | None = None
    upload_id: str | None = None
    """The resumable upload that the video was; it is used up with the job."""

    cache: bool = True
    """Whether results of earlier, equal work may be taken for it, and its own remembered."""
    errands: Errands = Errands()


class Job(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    status: JobStatus
    video: Video
    video_path: Path
    owns_video: bool
    stages: tuple[Stage, ...]
    config: dict[str, dict[str, Any]]
    tags: tuple[str, ...]
    priority: int
    attempts: int
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    outcome: Literal["full", "partial"] | None = None
    """Of a completed job: `partial` where a stage failed or was skipped."""

    error: StageError | None = None
    stopped_after_seconds: float | None = None
    """Of a cancelled job: from the request until the last of its processes was gone."""

    preset: str | None = None
    preset_content: dict[str, Any] | None = None
    batch_id: str | None = None
    retry_of: str | None = None
    cache: bool = True
    errands: Errands = Errands()
    callback: Callback | None = None
    owner: str = ""
    """Whose key it was submitted with; empty for none. Owners take turns."""

    queue_position: int | None = None
    """1 is next. Only while pending, and where its batch is not paused."""

    expected_seconds: float | None = None
    """Until it is over, as far as can be told from how long such stages took before; None where nothing tells."""

    @property
    def awaits_video(self) -> bool:
        """Its video has yet to be fetched."""
        return self.errands.video_url is not None and not self.errands.fetched

    @property
    def progress(self) -> float:
        """0 to 1: the mean over the stages."""
        if self.status is JobStatus.COMPLETED or not self.stages:
            return 1.0
        return sum(1.0 if s.status.is_final else s.progress for s in self.stages) / len(self.stages)

    @property
    def eta_seconds(self) -> float | None:
        """What is expected, or else the longest of the running stages' own; None while one cannot say."""
        if self.expected_seconds is not None:
            return round(self.expected_seconds, 1)
        ahead = [s.eta_seconds for s in self.stages if not s.status.is_final]
        known = [eta for eta in ahead if eta is not None]
        return max(known) if known and len(known) == len(ahead) else None

    @property
    def selected_pipelines(self) -> tuple[str, ...]:
        """What a user asked for: the stages without those that the program added."""
        return tuple(stage.pipeline for stage in self.stages if stage.pipeline not in AUTOMATIC)

    @property
    def current_stage(self) -> str | None:
        return next((s.pipeline for s in self.stages if s.status is StageStatus.RUNNING), None)


class Claim(msgspec.Struct, frozen=True):
    """A worker's hold on a job. Whoever writes with an older `token` gets LeaseLost."""

    job: Job
    worker: str
    token: int


class StageResult(msgspec.Struct, frozen=True, kw_only=True):
    """A stage that ended well."""

    annotations: int
    artifacts: tuple[Artifact, ...]
    intervals: tuple[Interval, ...]
    provenance: Provenance
    seconds: float
    usage: Usage | None = None
    cached: bool = False
    """Taken from earlier, equal work; then `seconds` are those of that."""


class Event(msgspec.Struct, frozen=True):
    """Something that happened. `seq` only grows; it is the SSE id and the Last-Event-ID."""

    seq: int
    type: str
    job_id: str | None
    batch_id: str | None
    json: bytes
    """What it says, a JSON object as it is stored and sent: encoded once, however many hear it."""

    @property
    def data(self) -> dict[str, Any]:
        return msgspec.json.decode(self.json, type=dict[str, Any])


class Heard(msgspec.Struct, frozen=True):
    """What a follower is told at once."""

    events: tuple[Event, ...]
    """In order; none where nothing happened for a while."""

    behind: int
    """How many seqs after them are already on disk."""


class Progress(msgspec.Struct, frozen=True):
    """How far a stage is: seconds of the video's timeline, so that it means the same for every pipeline."""

    done_seconds: float
    total_seconds: float
    rate: float | None = None
    eta_seconds: float | None = None
    usage: Usage | None = None

    @property
    def share(self) -> float:
        return min(1.0, max(0.0, self.done_seconds / self.total_seconds)) if self.total_seconds > 0 else 0.0


class Preset(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Named pipelines with parameters. `presets/*.yaml` holds the built-in ones."""

    name: str
    version: str
    description: str
    pipelines: dict[str, dict[str, Any]]
    """Pipeline to the parameters that differ from its defaults."""

    cost: str = ""
    """What to expect in time and hardware, in words."""


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A key to the API. The secret itself is never stored."""

    id: str
    name: str
    scope: Literal["read", "write", "admin"]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


class Idempotency(msgspec.Struct, frozen=True, kw_only=True):
    """A request that may be sent twice and is done once: whose, under which key, and what was in it."""

    caller: str
    key: str
    body_sha256: str


class Preferences(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """What the holder of a key would otherwise say each time."""

    default_preset: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None
    """For jobs that name neither a preset nor pipelines."""

    output_directory: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)] | None = None
    """Where results are published beside the server's own storage; inside the allowed roots."""


class ResumableUpload(msgspec.Struct, frozen=True, kw_only=True):
    """A video that comes in over several requests, and waits to be put into a job."""

    id: str
    owner: str
    """Whose key began it: nobody else sees it."""

    filename: str
    """As people know it, cleaned."""

    metadata: str = ""
    """What the client said of it, as it said it."""

    length: int
    received: int = 0
    """Bytes from the start that are on disk for good."""

    created_at: datetime
    expires_at: datetime

    @property
    def is_complete(self) -> bool:
        return self.received == self.length


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """A directory of videos that are annotated in place."""

    id: str
    name: str
    base_path: Path
    created_at: datetime


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """A look at a dataset's directory. `looked_at` of the `found` files are listed already."""

    dataset_id: str
    number: int
    state: Literal["running", "completed", "failed", "interrupted"]
    found: int
    looked_at: int
    started_at: datetime
    finished_at: datetime | None = None
    message: str | None = None


class DatasetVideo(msgspec.Struct, frozen=True, kw_only=True):
    """A file below a dataset's directory; `video` where it can be read, `error` where it cannot."""

    path: str
    """Relative to the directory."""

    size_bytes: int
    modified_ns: int
    video: Video | None = None
    error: StageError | None = None


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs submitted as one."""

    id: str
    name: str
    created_at: datetime
    counts: dict[JobStatus, int]
    plan: dict[str, Any] | None = None
    """What to do with each of its videos, as it was asked; None where its jobs were submitted ready-made."""

    paused_at: datetime | None = None
    """Nothing of a paused batch is claimed."""
