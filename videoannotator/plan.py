"""
What a job would need and cost, told before anything starts: from the declarations, what is on this disk, and the video.

Seconds are guesses: the declared speed on two laptop cores, times what the chosen values cost, plus the time until the
libraries are loaded. Nothing here is measured.
"""

import shutil
from collections.abc import Mapping
from typing import Any

import msgspec

from videoannotator.environments import DEFAULT
from videoannotator.jobs import NewStage, Video
from videoannotator.models.shelf import State
from videoannotator.pipelines.catalogue import Catalogue
from videoannotator.pipelines.declaration import Declaration
from videoannotator.settings import Settings

ENVIRONMENT_MB = 7200
"""What the environment speech takes, most of it torch and CUDA's libraries."""

_LOADING_SECONDS = {DEFAULT: 2.0}
_LOADING_ELSEWHERE = 12.0


class PlannedModel(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    state: State
    size_mb: int
    licence: str
    commercial_use: bool | None
    gated: bool


class PlannedStage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    pipeline: str
    engine: str
    environment: str
    device: str
    """`cpu` or `gpu`."""

    seconds: float
    """On the processor, roughly."""

    memory_mb: int
    gpu_memory_mb: int | None = None
    models: tuple[PlannedModel, ...] = ()
    inside: tuple[str, ...] = ()
    """Models inside the packages, with their licences."""

    lacks: str = ""
    """What keeps it from running here; empty where nothing does."""

    fix: str = ""
    skipped: str = ""
    """Why the video gives it nothing to do."""

    empty: str = ""
    """Why it runs and finds nothing."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    video: Video
    stages: tuple[PlannedStage, ...]
    seconds: float
    """Of the whole job, stages side by side as far as there are slots."""

    fetch_mb: int
    """What has to be fetched before it can run, models and environments."""

    free_mb: int
    gpus: tuple[str, ...]

    @property
    def can_run(self) -> bool:
        return not any(stage.lacks for stage in self.stages) and any(not stage.skipped for stage in self.stages)

    @property
    def fixes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(line for stage in self.stages for line in stage.fix.splitlines()))


def plan(
    video: Video, complete: Mapping[str, Mapping[str, Any]], catalogue: Catalogue, settings: Settings, *, gpus: int
) -> Plan:
    """`complete` has every parameter of each pipeline; `gpus` is how many cards there are."""
    skipped = {stage.pipeline: stage for stage in _stages(video, complete, catalogue)}
    stages = tuple(
        _stage(video, catalogue, catalogue.get(name), values, skipped[name], has_gpu=gpus > 0)
        for name, values in complete.items()
    )
    at_work = [stage.seconds for stage in stages if not stage.skipped]
    missing = {m.name: m.size_mb for stage in stages for m in stage.models if m.state in ("missing", "damaged")}
    environments = {stage.environment for stage in stages} - {DEFAULT}
    unbuilt = [name for name in environments if catalogue.supplies.environments.state(name) != "ready"]
    return Plan(
        video=video,
        stages=stages,
        seconds=max([sum(at_work) / settings.stage_slots, *at_work], default=0.0),
        fetch_mb=sum(missing.values()) + ENVIRONMENT_MB * len(unbuilt),
        free_mb=_free_mb(settings),
        gpus=tuple(f"GPU {number}" for number in range(gpus)),
    )


def _stages(video: Video, complete: Mapping[str, Mapping[str, Any]], catalogue: Catalogue) -> tuple[NewStage, ...]:
    return tuple(catalogue.stage(video, name, dict(values)) for name, values in complete.items())


def _stage(
    video: Video,
    catalogue: Catalogue,
    declaration: Declaration,
    values: Mapping[str, Any],
    stage: NewStage,
    *,
    has_gpu: bool,
) -> PlannedStage:
    engine, lack = declaration.engine(values), catalogue.supplies.lack(declaration, values)
    empty = "" if stage.skip_because or not declaration.lacks_its_track(video) else _empty(video, declaration)
    gpu_bytes = declaration.gpu_memory_bytes(values)
    return PlannedStage(
        pipeline=declaration.name,
        engine=engine.name,
        environment=engine.environment,
        device="gpu" if has_gpu and gpu_bytes is not None else "cpu",
        seconds=1.0 if empty else round(estimated_seconds(video, declaration, values), 1),
        memory_mb=declaration.memory_mb(values),
        gpu_memory_mb=None if gpu_bytes is None else round(gpu_bytes / 1e6),
        models=tuple(_model(catalogue, name) for name in engine.models_for(values)),
        inside=tuple(
            f"{model.name} ({model.licence})"
            for model in declaration.models
            if not model.engines or engine.name in model.engines
        ),
        lacks=lack.message if lack else "",
        fix=lack.fix if lack else "",
        skipped=stage.skip_because.message if stage.skip_because else "",
        empty=empty,
    )


def _empty(video: Video, declaration: Declaration) -> str:
    return f"{video.filename} has no {'sound track' if declaration.needs == 'audio' else 'picture'}."


def estimated_seconds(video: Video, declaration: Declaration, values: Mapping[str, Any]) -> float:
    engine = declaration.engine(values)
    speed = (engine.realtime_factor or declaration.resources.realtime_factor) / declaration.cost(values)
    return video.duration_seconds / speed + _LOADING_SECONDS.get(engine.environment, _LOADING_ELSEWHERE)


def _model(catalogue: Catalogue, name: str) -> PlannedModel:
    shelf = catalogue.supplies.shelf
    model, record = shelf.models.get(name), shelf.record(name)
    return PlannedModel(
        name=name,
        state=shelf.state(name),
        size_mb=round(record.size / 1e6) if record else model.about_mb,
        licence=model.licence,
        commercial_use=model.commercial_use,
        gated=model.gated,
    )


def _free_mb(settings: Settings) -> int:
    folder = settings.models_folder
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free // 1_000_000
