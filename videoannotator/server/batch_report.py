"""A batch in full, one line for each video that was named, for people (CSV) and programs (JSON)."""

import csv
import io
from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from videoannotator.batches import BatchLine
from videoannotator.jobs import Job, Stage, StageStatus

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class StageLine(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    pipeline: str
    status: StageStatus
    attempts: int
    cached: bool
    """Taken from earlier, equal work, whose `seconds` and `annotations` these are."""

    seconds: float | None = None
    annotations: int | None = None
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    peak_gpu_memory_bytes: int | None = None
    """Left out where it ran on the processor, or the driver does not say."""

    read_bytes: int | None = None
    """From disks; left out where the system does not say."""

    written_bytes: int | None = None
    error_code: str | None = None
    error_message: str | None = None


class ReportLine(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    video: str
    state: str
    """waiting, pending, running, cancelling, completed, failed, cancelled, rejected, skipped or removed."""

    outcome: str | None = None
    job_id: str | None = None
    """Of a skipped one the job that did it before."""

    error_code: str | None = None
    error_message: str | None = None
    filename: str | None = None
    sha256: str | None = None
    video_seconds: float | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    seconds: float | None = None
    """From begin to end."""

    attempts: int | None = None
    cpu_seconds: float | None = None
    """Of its stages, all together."""

    peak_memory_bytes: int | None = None
    """The most that one of its stages had."""

    peak_gpu_memory_bytes: int | None = None
    read_bytes: int | None = None
    """By its stages from disks, all together."""

    written_bytes: int | None = None
    result_bytes: int | None = None
    """Size of its results; left out where there are none."""

    stages: tuple[StageLine, ...] = ()


def describe_line(line: BatchLine, result_sizes: Mapping[str, int]) -> ReportLine:
    """`result_sizes`: bytes by job."""
    job, error = line.job, line.error
    told = ReportLine(
        video=line.video,
        state=line.state,
        job_id=line.job_id,
        error_code=error.code if error else None,
        error_message=error.message if error else None,
    )
    return told if job is None else _with_job(told, job, result_sizes.get(job.id))


def as_csv(lines: Iterable[ReportLine]) -> bytes:
    """
    A header, then a row for each video; each pipeline has columns of its own. UTF-8 with a byte order mark, which
    spreadsheets need to read it as such. A text that a spreadsheet would take for a formula has an apostrophe in front.
    """
    lines = list(lines)
    pipelines = sorted({stage.pipeline for line in lines for stage in line.stages})
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\r\n")
    fields = [name for name in ReportLine.__struct_fields__ if name != "stages"]
    columns = [name for name in StageLine.__struct_fields__ if name != "pipeline"]
    table.writerow([*fields, *(f"{pipeline}.{column}" for pipeline in pipelines for column in columns)])
    for line in lines:
        stages = {stage.pipeline: stage for stage in line.stages}
        cells = [getattr(line, name) for name in fields]
        cells += [getattr(stages.get(p), column, None) for p in pipelines for column in columns]
        table.writerow([_cell(value) for value in cells])
    return b"\xef\xbb\xbf" + out.getvalue().encode()


def _with_job(told: ReportLine, job: Job, result_bytes: int | None) -> ReportLine:
    seconds = (job.finished_at - job.started_at).total_seconds() if job.finished_at and job.started_at else None
    used = [stage.usage for stage in job.stages if stage.usage is not None]
    return msgspec.structs.replace(
        told,
        outcome=job.outcome,
        filename=job.video.filename,
        sha256=job.video.sha256,
        video_seconds=job.video.duration_seconds,
        started_at=job.started_at,
        finished_at=job.finished_at,
        seconds=seconds,
        attempts=job.attempts,
        cpu_seconds=round(sum(one.cpu_seconds for one in used), 2) if used else None,
        peak_memory_bytes=max((one.peak_memory_bytes for one in used), default=None),
        peak_gpu_memory_bytes=max(_known(one.peak_gpu_memory_bytes for one in used), default=None),
        read_bytes=_sum(one.read_bytes for one in used),
        written_bytes=_sum(one.written_bytes for one in used),
        result_bytes=result_bytes,
        stages=tuple(_stage(stage) for stage in job.stages),
    )


def _stage(stage: Stage) -> StageLine:
    return StageLine(
        pipeline=stage.pipeline,
        status=stage.status,
        attempts=stage.attempts,
        cached=stage.cached,
        seconds=stage.seconds,
        annotations=stage.annotations,
        cpu_seconds=round(stage.usage.cpu_seconds, 2) if stage.usage else None,
        peak_memory_bytes=stage.usage.peak_memory_bytes if stage.usage else None,
        peak_gpu_memory_bytes=stage.usage.peak_gpu_memory_bytes if stage.usage else None,
        read_bytes=stage.usage.read_bytes if stage.usage else None,
        written_bytes=stage.usage.written_bytes if stage.usage else None,
        error_code=stage.error.code if stage.error else None,
        error_message=stage.error.message if stage.error else None,
    )


def _known(values: Iterable[int | None]) -> list[int]:
    return [value for value in values if value is not None]


def _sum(values: Iterable[int | None]) -> int | None:
    known = _known(values)
    return sum(known) if known else None


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text
