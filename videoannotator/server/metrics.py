"""
What a monitor wants to know, in Prometheus' text format: requests as they were served, and the state of queue, worker,
storage and process at the moment of asking. Labels come from lists of ours (route templates, pipelines, states), so
that no caller can make new series.
"""

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency
from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from videoannotator import __version__
from videoannotator.machine.resources import Sample, StageUse
from videoannotator.server.auth import READ
from videoannotator.store import Tally
from videoannotator.workspace import Workspace

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LASTING = frozenset({"/api/v1/events/stream", "/api/v1/events/ws"})
"""Streams: how long they last says nothing of how fast they are served."""


class Metrics:
    """The requests of one life of the server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._durations = Histogram(
            "videoannotator_http_request_duration_seconds",
            "How long answers took, from the request's headers to the last byte; event streams left out.",
            ("method", "route", "status"),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        ProcessCollector(registry=self._registry)
        self._in_flight = 0

    def begin(self) -> None:
        self._in_flight += 1

    def end(self, scope: Any, status: int | None, seconds: float) -> None:
        self._in_flight -= 1
        method, route = scope.get("method", "WEBSOCKET"), scope.get("path_template") or "none"
        if route in _LASTING:
            return
        known = method if method in _METHODS else "other"
        self._durations.labels(known, route, "none" if status is None else f"{status // 100}xx").observe(seconds)

    def text(self, now: "Now") -> bytes:
        """Everything, in the format of Prometheus. Reads /proc: call it in a thread."""
        moment = CollectorRegistry(auto_describe=False)
        moment.register(_Moment(now, self._in_flight))
        return generate_latest(self._registry) + generate_latest(moment)


class Now(msgspec.Struct, frozen=True, kw_only=True):
    """Queue, worker and storage at one moment."""

    tally: Tally
    active_jobs: int
    max_concurrent_jobs: int
    events: int
    free_bytes: int
    total_bytes: int
    sample: Sample | None
    paused: bool


class _Moment(Collector):
    def __init__(self, now: Now, in_flight: int) -> None:
        self._now = now
        self._in_flight = in_flight

    def collect(self) -> Iterator[Metric]:
        now = self._now
        yield _labelled("videoannotator_info", "The version that runs.", ("version",), {(__version__,): 1})
        jobs = {(str(status),): number for status, number in now.tally.jobs.items()}
        yield _labelled("videoannotator_jobs", "Jobs by state.", ("status",), jobs)
        stages = {(s.pipeline, str(s.status)): s.number for s in now.tally.stages}
        yield _labelled("videoannotator_stages", "Stages by pipeline and state.", ("pipeline", "status"), stages)
        spent = {(s.pipeline, str(s.status)): s.seconds for s in now.tally.stages}
        labels = ("pipeline", "status")
        yield _labelled("videoannotator_stage_seconds", "Run time of the stages that are kept.", labels, spent)
        yield _single("videoannotator_jobs_active", "Jobs worked on now.", now.active_jobs)
        yield _single("videoannotator_jobs_active_max", "Jobs that may be worked on at once.", now.max_concurrent_jobs)
        oldest = now.tally.oldest_pending_at
        waiting = 0.0 if oldest is None else max(0.0, time.time() - oldest.timestamp())
        yield _single("videoannotator_queue_oldest_seconds", "Age of the job that waits longest.", waiting)
        yield _single("videoannotator_storage_free_bytes", "Free space of the disk with the storage.", now.free_bytes)
        yield _single("videoannotator_storage_total_bytes", "Size of that disk.", now.total_bytes)
        yield _single("videoannotator_queue_paused", "1 while nothing new is begun, for want of space.", now.paused)
        if now.sample is not None:
            yield from _machine(now.sample)
        yield _single("videoannotator_http_requests_in_flight", "Requests and streams open now.", self._in_flight)
        events = CounterMetricFamily("videoannotator_events", "Events that happened in this storage directory.")
        events.add_metric((), now.events)
        yield events


@get("/metrics", opt=READ)
async def get_metrics(
    workspace: NamedDependency[Workspace], server_metrics: NamedDependency[Metrics]
) -> Response[bytes]:
    """Jobs by state, stages, queue, request durations by route, memory and disk, for Prometheus."""
    disk = await asyncio.to_thread(shutil.disk_usage, workspace.settings.storage_dir)
    now = Now(
        tally=await workspace.store.tally(),
        active_jobs=workspace.worker.active_jobs,
        max_concurrent_jobs=workspace.settings.max_concurrent_jobs,
        events=await workspace.store.last_seq(),
        free_bytes=disk.free,
        total_bytes=disk.total,
        sample=workspace.resources.latest,
        paused=not workspace.worker.gate.is_open,
    )
    return Response(await asyncio.to_thread(server_metrics.text, now), media_type=MEDIA_TYPE)


def _machine(sample: Sample) -> Iterator[Metric]:
    """At most SAMPLE_SECONDS old."""
    yield _single("videoannotator_cpu_share", "Share of all cores that is busy, 0 to 1.", sample.cpu_share)
    yield _single("videoannotator_memory_used_bytes", "Memory in use on the machine.", sample.memory_used_bytes)
    yield _single("videoannotator_memory_total_bytes", "Memory of the machine.", sample.memory_total_bytes)
    yield _single("videoannotator_stages_memory_bytes", "Memory of the stages' processes.", sample.stages_memory_bytes)
    read, written = sample.server_read_bytes, sample.server_written_bytes
    yield from _total("videoannotator_server_read_bytes", "Bytes that the server has read from disks.", read)
    yield from _total("videoannotator_server_written_bytes", "Bytes that the server has written to disks.", written)
    yield from _at_work(sample)
    gpus = {(str(gpu.index), gpu.name): gpu for gpu in sample.gpus}
    labels = ("gpu", "name")
    used = {key: gpu.memory_used_bytes for key, gpu in gpus.items()}
    yield _labelled("videoannotator_gpu_memory_used_bytes", "Memory in use on a GPU.", labels, used)
    total = {key: gpu.memory_total_bytes for key, gpu in gpus.items()}
    yield _labelled("videoannotator_gpu_memory_total_bytes", "Memory of a GPU.", labels, total)
    busy = {key: gpu.busy_share for key, gpu in gpus.items() if gpu.busy_share is not None}
    yield _labelled("videoannotator_gpu_busy_share", "Share of time that a GPU is busy, 0 to 1.", labels, busy)


def _at_work(sample: Sample) -> Iterator[Metric]:
    """By pipeline, however many stages of it run."""
    for name, about, of in _OF_STAGES:
        values: dict[tuple[str], float] = {}
        for stage in sample.stages:
            if (value := of(stage)) is not None:
                values[(stage.pipeline,)] = values.get((stage.pipeline,), 0) + value
        yield _labelled(name, about, ("pipeline",), values)


_OF_STAGES: tuple[tuple[str, str, Callable[[StageUse], float | None]], ...] = (
    (
        "videoannotator_stage_cpu_cores",
        "Cores that a pipeline's running stages keep busy.",
        lambda stage: stage.cpu_cores,
    ),
    (
        "videoannotator_stage_memory_bytes",
        "Memory of a pipeline's running stages.",
        lambda stage: stage.memory_bytes,
    ),
    (
        "videoannotator_stage_gpu_memory_bytes",
        "Memory on GPUs of a pipeline's running stages.",
        lambda stage: stage.gpu_memory_bytes,
    ),
    (
        "videoannotator_stage_read_bytes",
        "Bytes that a pipeline's running stages have read from disks.",
        lambda stage: stage.read_bytes,
    ),
    (
        "videoannotator_stage_written_bytes",
        "Bytes that a pipeline's running stages have written to disks.",
        lambda stage: stage.written_bytes,
    ),
)


def _total(name: str, about: str, value: float | None) -> Iterator[Metric]:
    """Nothing where it is not known."""
    if value is not None:
        family = CounterMetricFamily(name, about)
        family.add_metric((), value)
        yield family


def _labelled(name: str, about: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, about, labels=labels)
    for label, value in values.items():
        family.add_metric(label, value)
    return family


def _single(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, value=value)


ROUTES = [get_metrics]
