"""What `annotate` shows: bars on a terminal, plain lines elsewhere, or one JSON line for each video. ASCII only."""

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec

from videoannotator.cli.inputs import Input
from videoannotator.errors import VideoAnnotatorError
from videoannotator.jobs import Job, NewJob, Stage, StageStatus
from videoannotator.pipelines.catalogue import Catalogue
from videoannotator.pipelines.declaration import Declaration


class StageEnding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    pipeline: str
    status: StageStatus
    annotations: int | None = None
    counted_as: str = ""
    seconds: float | None = None
    cached: bool = False
    """It was done before; `seconds` are those of then."""

    message: str = ""
    warnings: tuple[str, ...] = ()
    """What a stage that ended well has to say of its result; on the terminal they stand in the log's lines."""

    log_tail: tuple[str, ...] = ()


class Ending(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How it went with one video; the line that `--json` prints."""

    video: str
    status: str
    outcome: str | None = None
    output: str | None = None
    """Where the results are; left out where there are none."""

    message: str = ""
    stages: tuple[StageEnding, ...] = ()

    @property
    def is_well(self) -> bool:
        return self.outcome == "full"

    @classmethod
    def refused(cls, one: Input, why: VideoAnnotatorError) -> "Ending":
        return cls(video=str(one.video), status="failed", message=str(why))

    @classmethod
    def of(
        cls, job: Job, one: Input, catalogue: Catalogue, *, delivered: bool, log_tails: dict[str, tuple[str, ...]]
    ) -> "Ending":
        return cls(
            video=str(one.video),
            status=job.status,
            outcome=job.outcome,
            output=str(one.output) if delivered else None,
            message=job.error.message if job.error else "",
            stages=tuple(
                StageEnding(
                    pipeline=stage.pipeline,
                    status=stage.status,
                    annotations=stage.annotations,
                    counted_as=_counted_as(catalogue.get(stage.pipeline), stage),
                    seconds=stage.seconds,
                    cached=stage.cached,
                    message=stage.error.message if stage.error else "",
                    warnings=stage.provenance.warnings if stage.provenance else (),
                    log_tail=log_tails.get(stage.pipeline, ()),
                )
                for stage in job.stages
            ),
        )


class Display(Protocol):
    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...

    def begin(self, jobs: Sequence[NewJob]) -> None:
        """These videos are queued."""

    def update(self, job_id: str, data: dict[str, Any]) -> None:
        """A `job.update` event's data."""

    def log(self, data: dict[str, Any]) -> None:
        """A `job.log` event's data."""

    def end(self, ending: Ending, job_id: str | None = None) -> None:
        """One video is done with; without a job where it was refused."""


def display(*, as_json: bool) -> Display:
    if as_json:
        return JsonLines()
    return Bars() if sys.stdout.isatty() else PlainLines()


class _Quiet:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return None

    def begin(self, jobs: Sequence[NewJob]) -> None:
        return None

    def update(self, job_id: str, data: dict[str, Any]) -> None:
        return None

    def log(self, data: dict[str, Any]) -> None:
        return None


class JsonLines(_Quiet):
    def end(self, ending: Ending, job_id: str | None = None) -> None:
        sys.stdout.write(msgspec.json.encode(ending).decode() + "\n")
        sys.stdout.flush()


class PlainLines(_Quiet):
    def begin(self, jobs: Sequence[NewJob]) -> None:
        for job in jobs:
            _say(f"[...] {job.video.filename}: {describe(job)}")

    def log(self, data: dict[str, Any]) -> None:
        if line := told(data):
            _say(line)

    def end(self, ending: Ending, job_id: str | None = None) -> None:
        for line in lines_of(ending):
            _say(line)


class Bars(PlainLines):
    """A bar for each stage that runs; what is done moves above them as lines."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskID, TextColumn

        self._console = Console(highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[pace]}"),
            console=self._console,
            transient=True,
        )
        self._names: dict[str, str] = {}
        self._bars: dict[tuple[str, str], TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def begin(self, jobs: Sequence[NewJob]) -> None:
        self._names = {job.id: job.video.filename for job in jobs}
        for job in jobs if len(jobs) == 1 else ():
            self._print(f"{job.video.filename}: {describe(job)}")

    def update(self, job_id: str, data: dict[str, Any]) -> None:
        stage = data.get("stage")
        if stage is None:
            return
        key = (job_id, stage["pipeline"])
        if stage["status"] not in (StageStatus.RUNNING, StageStatus.PENDING):
            self._remove(key)
        elif stage["status"] == StageStatus.RUNNING:
            self._progress.update(self._bar(key), completed=stage["progress"] * 100, pace=pace(stage))

    def log(self, data: dict[str, Any]) -> None:
        if line := told(data):
            self._print(line)

    def end(self, ending: Ending, job_id: str | None = None) -> None:
        for key in [key for key in self._bars if key[0] == job_id]:
            self._remove(key)
        for line in lines_of(ending):
            self._print(line)

    def _bar(self, key: tuple[str, str]) -> Any:
        if key not in self._bars:
            where = f"{self._names[key[0]]} " if len(self._names) > 1 else ""
            self._bars[key] = self._progress.add_task(f"{where}{key[1]}", total=100, pace="")
        return self._bars[key]

    def _remove(self, key: tuple[str, str]) -> None:
        if (bar := self._bars.pop(key, None)) is not None:
            self._progress.remove_task(bar)

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)


def told(data: dict[str, Any]) -> str:
    """A line of a job's log as a user sees it, a model that is fetched say; nothing for what is only for the log."""
    marks = {"info": "[...]", "warning": "[WARNING]", "error": "[ERROR]"}
    return f"{marks[data['level']]} {data['stage'] or 'job'}: {data['message']}" if data["level"] in marks else ""


def describe(job: NewJob) -> str:
    video = job.video
    parts = [f"{video.duration_seconds:.1f} s"]
    if video.has_video:
        parts.append(f"{video.width}x{video.height} {video.video_codec}")
        parts.append(f"{video.frame_rate:.2f} frames/s{' (variable)' if video.variable_frame_rate else ''}")
    parts.append(f"sound {video.audio_codec}" if video.has_audio else "no sound")
    return ", ".join(parts)


def pace(stage: dict[str, Any]) -> str:
    """Speed and time left of a running stage, where they are known."""
    rate, eta = stage.get("rate"), stage.get("eta_seconds")
    if not rate:
        return ""
    return f"{rate:.1f}x real time" + (f", {eta:.0f} s left" if eta is not None else "")


def lines_of(ending: Ending) -> list[str]:
    """One line for the video, one for each stage."""
    mark = "[OK]" if ending.is_well else "[PARTIAL]" if ending.outcome == "partial" else "[ERROR]"
    if ending.status == "cancelled":
        mark = "[CANCELLED]"
    where = f" -> {ending.output}" if ending.output else ""
    said = f": {ending.message}" if ending.message and not ending.stages else ""
    lines = [f"{mark} {ending.video}{where}{said}"]
    for stage in ending.stages:
        lines.append(f"     {stage.pipeline:<20} {_stage(stage)}".rstrip())
        lines += [f"         | {line}" for line in stage.log_tail]
    return lines


def _counted_as(declaration: Declaration, stage: Stage) -> str:
    return "" if declaration.automatic else declaration.counted_as[stage.annotations != 1]


def _stage(stage: StageEnding) -> str:
    if stage.status is StageStatus.COMPLETED:
        what = f"{stage.annotations:>6} {stage.counted_as}" if stage.counted_as else f"{'made':>6}"
        before = ", done before" if stage.cached else ""
        return f"{what} in {stage.seconds:.1f} s{before}"
    return f"{stage.status}{': ' + stage.message if stage.message else ''}"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
