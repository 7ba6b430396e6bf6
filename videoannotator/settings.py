"""
What an operator can set. Read once, at start, and passed on from there.

Sources, the first that names a setting wins: the command line, the environment (`VIDEOANNOTATOR_…`), the file `.env`,
the file `videoannotator.toml`, the defaults here.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import platformdirs
from dotenv import dotenv_values

from videoannotator.errors import Refused

PREFIX = "VIDEOANNOTATOR_"


def _default_storage() -> Path:
    return Path(platformdirs.user_data_dir("videoannotator", appauthor=False))


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    storage_dir: Path = msgspec.field(default_factory=_default_storage)
    """Where the database, the videos and the results live. One server per directory."""

    host: str = "127.0.0.1"
    """Address the server listens on."""

    port: int = 18011
    """TCP port the server listens on; 0 takes a free one and prints it."""

    require_auth: bool = True
    """Ask for a key on every route that is not open. Off only where nobody else can reach the port."""

    api_key: str = ""
    """An admin key from outside (16 characters or more). Empty: one is made and printed on the first start."""

    allowed_origins: tuple[str, ...] = ()
    """Web origins that may call the API, beside localhost and 127.0.0.1 on ports 19011-19020 and on the own port."""

    allowed_hosts: tuple[str, ...] = ()
    """Host names the server answers to, beside localhost, 127.0.0.1, [::1] and the address it listens on."""

    viewer_dir: Path | None = None
    """Directory with a build of the browser client, served at /viewer/."""

    data_roots: tuple[Path, ...] = ()
    """Directories whose videos may be annotated in place, without an upload."""

    output_roots: tuple[Path, ...] = ()
    """Directories that callers may have results and annotations written to, beside the server's own storage."""

    pipeline_dirs: tuple[Path, ...] = ()
    """Directories with pipelines of your own, each a NAME.yaml and a NAME.py as in videoannotator/pipelines."""

    models_dir: Path | None = None
    """Directory of the models that were fetched; without one, `models` in the storage directory. May be shared."""

    environments_dir: Path | None = None
    """Directory of the environments that `install` made; without one, `environments` in the storage directory."""

    auto_download: bool = False
    """Fetch the models that a job needs when it is about to run, instead of refusing it when it is submitted."""

    offline: bool = False
    """Open no outbound connection at all: `models pull` and `install` are refused, and nothing is fetched for a job."""

    browser_copy: bool = True
    """Copy videos that browsers do not play to H.264, beside the other stages, so that the Viewer can show them."""

    max_concurrent_jobs: int = 4
    """Jobs worked on at the same time."""

    max_concurrent_stages: int = 0
    """Stage processes at the same time; 0 means one for each core, at least two."""

    max_concurrent_gpu_jobs: int = 2
    """Stages on a GPU at the same time, beside those on the processor; each also waits for its memory there."""

    warm_seconds: float = 60.0
    """How long a stage process that keeps its models loaded waits for another job; 0 keeps none."""

    warm_stages: int = 20
    """Stages that such a process serves before it is replaced."""

    warm_growth_bytes: int = 256 * 1024**2
    """Memory that such a process may hold after a stage beyond what it held after its first; else it is replaced."""

    threads_per_stage: int = 0
    """Threads of one stage's libraries; 0 shares the cores among the stages that may run at once."""

    max_upload_bytes: int = 64 * 1024**3
    """Largest video accepted in one request."""

    outbound_allowed: tuple[str, ...] = ()
    """Hosts, HOST:PORT and networks that may be called for video URLs and callbacks although they are not public."""

    fetch_timeout_seconds: float = 3600.0
    """Longest time that fetching a video from its URL may take."""

    callback_secret: str = ""
    """What callbacks are signed with. Empty: no callback is accepted."""

    callback_retry_seconds: float = 5.0
    """Pause after the first failed attempt at a callback; five times as long after each further one, six in all."""

    upload_expiry_seconds: float = 86400.0
    """How long a resumable upload that is not continued, or not put into a job, is kept."""

    min_free_bytes: int = 512 * 1024**2
    """Free space below which nothing is accepted, so that what runs can still write its results."""

    submissions_per_minute: int = 3000
    """Jobs, batches and uploads that one key may begin in a minute, at once or spread over it; 0 means no limit."""

    validations_per_minute: int = 30000
    """Configurations that one caller may have checked in a minute; 0 means no limit."""

    tickets_per_minute: int = 6000
    """Tickets that one key may make in a minute; 0 means no limit."""

    analyses_per_minute: int = 120
    """URLs that one key may have fetched and analyzed in a minute; 0 means no limit."""

    wrong_keys_per_minute: int = 300
    """Wrong keys that one address may send in a minute before it gets 429 for them; right ones go on. 0: no limit."""
    pause_free_bytes: int = 256 * 1024**2
    """Free space below which the queue pauses, and goes on by itself when there is more; 0 means never."""

    retention_days: float = 0.0
    """Days after its end that a job goes, with its video's copy, results and logs; 0 means never. 30 suits many."""

    drain_seconds: float = 0.0
    """Seconds that running stages get to end by themselves when the server is told to stop; then they are put back."""

    cancel_grace_seconds: float = 1.0
    """Seconds a stage gets between SIGTERM and SIGKILL."""

    stage_timeout_seconds: float = 0.0
    """Longest run of one stage; 0 means no limit."""

    stage_stall_seconds: float = 300.0
    """Longest silence of a stage: without progress for so long it is ended."""

    stage_memory_bytes: int = 0
    """Memory one stage may use; 0 means four fifths of what the machine has."""

    stage_log_bytes: int = 16 * 1024**2
    """Largest log file of one stage; what it writes beyond is cut, and the log says so."""

    stage_network: Literal["auto", "none", "host"] = "auto"
    """Whether stages reach the network: `none` never, `host` as the server does, `auto` means `none` where possible."""

    max_lost_frames: float = 0.01
    """Largest share of a video's frames that may be missing or broken before its stages fail; 0.01 is one percent."""

    max_attempts: int = 3
    """How often a job is begun again after a crash before it fails, so that one bad video cannot loop."""

    retry_attempts: int = 3
    """How often a stage is tried in all when what ended it may pass: a full disk, a driver, the network."""

    crash_attempts: int = 2
    """How often a stage is tried in all when its process died, hung or spoke nonsense."""

    retry_base_delay_seconds: float = 5.0
    """Wait before the second attempt; it doubles before each further one."""

    retry_max_delay_seconds: float = 300.0
    """Longest wait before another attempt."""

    retry_jitter: float = 0.25
    """Share by which each wait is shortened or lengthened at random, so that not all stages come back at once."""

    shared_frames_bytes: int = 64 * 1024**2
    """Memory for frames on their way from the stage of a job that decodes to another; 0: each decodes for itself."""

    checkpoint_seconds: float = 60.0
    """Long stages keep what they have found about so often, in seconds of video, and go on from there; 0: never."""

    cache: Literal["on", "off"] = "on"
    """Whether a stage's result is remembered and taken again when the same work is asked for."""

    cache_bytes: int = 10 * 1024**3
    """Largest size of all remembered results; the least recently used go first."""

    lease_seconds: float = 30.0
    """How long a job belongs to a worker that no longer says it is alive."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What the server's own log tells."""

    log_format: Literal["auto", "console", "json"] = "auto"
    """`json` for machines, `console` for people; `auto` takes console on a terminal."""

    @property
    def models_folder(self) -> Path:
        return self.models_dir or self.storage_dir / "models"

    @property
    def environments_folder(self) -> Path:
        return self.environments_dir or self.storage_dir / "environments"

    @property
    def stage_slots(self) -> int:
        return self.max_concurrent_stages or max(2, _cores())

    @property
    def stage_threads(self) -> int:
        return self.threads_per_stage or max(1, -(-_cores() // self.stage_slots))

    @property
    def stage_memory(self) -> int:
        return self.stage_memory_bytes or _memory_bytes() * 4 // 5


def load_settings(given: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """
    Read all sources; `given` is what the command line said (None values are left out).

    Raises:
        Refused: a source names a setting that does not exist, or a value that does not fit.
    """
    found: dict[str, Any] = _from_toml(Path("videoannotator.toml"))
    found |= _from_names({k: v for k, v in dotenv_values(".env").items() if v is not None})
    found |= _from_names(os.environ if environ is None else environ)
    found |= {name: value for name, value in (given or {}).items() if value is not None}
    try:
        return msgspec.convert(found, Settings, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as exc:
        raise Refused(
            f"A setting is wrong: {exc}.", hint="docs/settings.md lists them.", code="INVALID_SETTING"
        ) from exc


def bundled(folder: Literal["migrations", "presets", "project"]) -> Path:
    """
    A folder that stands at the top of a checkout and inside the package of a wheel.

    `project` is where pyproject.toml and uv.lock are: the top of a checkout itself.
    """
    inside = Path(__file__).parent / "_bundled" / folder
    top = Path(__file__).parents[1]
    return inside if inside.is_dir() else top if folder == "project" else top / folder


def _from_toml(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        return msgspec.toml.decode(file.read_bytes(), type=dict[str, Any])
    except msgspec.DecodeError as exc:
        raise Refused(f"{file} cannot be read: {exc}.", code="INVALID_SETTING") from exc


def _from_names(variables: Mapping[str, str]) -> dict[str, Any]:
    names = {PREFIX + field.upper(): field for field in Settings.__struct_fields__}
    found: dict[str, Any] = {names[name]: value for name, value in variables.items() if name in names}
    for name in ("allowed_origins", "allowed_hosts", "outbound_allowed"):
        if name in found:
            found[name] = [part.strip() for part in found[name].split(",") if part.strip()]
    for name in ("data_roots", "output_roots", "pipeline_dirs"):
        if name in found:
            found[name] = [part for part in found[name].split(os.pathsep) if part]
    return found


def _decode(kind: type, value: object) -> object:
    if kind is Path:
        return Path(str(value)).expanduser()
    raise NotImplementedError


def _cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int:
    """What the machine has; 0, no limit, where it does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 0
