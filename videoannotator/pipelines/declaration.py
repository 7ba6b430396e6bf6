"""What a pipeline's YAML file says: the form of a declaration."""

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from videoannotator.jobs import Video

Scalar = bool | int | float | str


class Choice(msgspec.Struct, frozen=True, omit_defaults=True):
    value: str
    label: str = ""
    cost: float = 1.0
    """How many times as long as with the default it takes, roughly."""

    engines: tuple[str, ...] = ()
    """Which engines can do it; empty where all can."""


class Parameter(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    name: str
    type: Literal["boolean", "integer", "number", "string", "enum", "multiselect"]
    label: str
    description: str
    default: Scalar | tuple[str, ...]
    min: float | None = None
    max: float | None = None
    step: float | None = None
    unit: str = ""
    enum: tuple[Choice, ...] = ()
    group: str = ""
    advanced: bool = False
    holds: Literal["", "pictures"] = ""
    """`pictures`: the absolute path of a directory with pictures, NAME.jpg or NAME/1.jpg; empty for none."""

    engines: tuple[str, ...] = ()
    """Which engines have it; empty where all have."""

    def engines_for(self, value: object) -> tuple[str, ...]:
        """Which engines can do what this value asks; empty where all can. Its default asks for nothing."""
        chosen = next((choice.engines for choice in self.enum if choice.value == value), ())
        return chosen or (self.engines if value != self.default else ())


class Need(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """A model that an engine loads."""

    name: str
    """Its name in the model catalogue; `{parameter}` stands for the parameter's value."""

    when: dict[str, tuple[Scalar, ...]] = {}
    """Only with these values of these parameters."""

    welcome: bool = False
    """Used if it is here, and not missed otherwise; the name may hold `*`."""

    def applies(self, values: Mapping[str, Any]) -> bool:
        return all(values.get(parameter) in allowed for parameter, allowed in self.when.items())


class Engine(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """A library that can do the pipeline's work."""

    name: str
    description: str
    environment: str = "default"
    modules: tuple[str, ...] = ()
    """What must be importable for it to run."""

    models: tuple[Need, ...] = ()
    """Models of the model catalogue that it loads."""

    realtime_factor: float | None = None
    """Where it differs from the pipeline's own."""

    memory_mb: int | None = None
    gpu_memory_bytes: int | None = None
    """It computes on a GPU where there is one, and takes so much of its memory at most."""

    unavailable: str = ""
    """Why it cannot be chosen yet; empty where it can."""

    def models_for(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """The models without which it cannot run with these parameters."""
        return tuple(need.name.format(**values) for need in self.models if need.applies(values) and not need.welcome)

    def welcome_for(self, values: Mapping[str, Any], known: Iterable[str]) -> tuple[str, ...]:
        """The models that it uses if they are here."""
        patterns = [need.name.format(**values) for need in self.models if need.applies(values) and need.welcome]
        return tuple(name for name in known if any(fnmatch.fnmatch(name, pattern) for pattern in patterns))


class Component(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """A part of what the pipeline finds."""

    name: str
    description: str
    engines: tuple[str, ...] = ()
    available: bool = True
    reason: str = ""


class DeclaredOutput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: str
    """With `*` in it where there are several, numbered."""

    format: str
    role: str
    media_type: str
    description: str
    in_zip: bool = True
    optional: bool = False
    """Left out where there is nothing to say, an RTTM without speech say."""


class Model(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    name: str
    size_bytes: int
    licence: str
    source: str
    engines: tuple[str, ...] = ()
    """Which engines load it; empty where all do."""


class Resources(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    device: Literal["cpu", "gpu"] = "cpu"
    memory_mb: int
    gpu_memory_bytes: int = 0
    """Of a stage on a GPU, at most; it starts when a card has as much free."""

    realtime_factor: float
    """Seconds of video in a second, on two laptop cores: a guide, not a promise."""


class Declaration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One pipeline, as its YAML file says."""

    name: str
    version: str
    display_name: str
    family: str
    description: str
    needs: Literal["video", "audio"]
    frames: Literal["all", "sampled"] | None = None
    """Which it reads, through `Frames` with `stage.sharing`, so that stages of a job can share one decoder; or none in
    this way."""

    without_it: Literal["skipped", "empty"] = "skipped"
    """What becomes of a stage on a file that lacks it: not run, or completed with nothing found and a note."""

    engines: tuple[Engine, ...]
    components: tuple[Component, ...] = ()
    parameters: tuple[Parameter, ...]
    outputs: tuple[DeclaredOutput, ...]
    models: tuple[Model, ...] = ()
    resources: Resources
    warm: bool = False
    """Its process may be kept for the next job with the same engine and models: to load them takes longer than it
    costs to hold them."""

    known_limits: tuple[str, ...]
    default_enabled: bool = True
    automatic: bool = False
    """The program adds it where it is needed; users do not see it in lists and cannot select it."""

    after: tuple[str, ...] = ()
    """Pipelines that it waits for where they are in the same job, because it uses what they make."""

    ordered: tuple[tuple[str, str], ...] = ()
    """Pairs of parameters of which the first must not be larger than the second; 0 stands for unknown."""

    counted_as: tuple[str, str] = ("annotation", "annotations")
    """What one of its annotations is called, and several."""

    @property
    def defaults(self) -> dict[str, Any]:
        return {p.name: list(p.default) if isinstance(p.default, tuple) else p.default for p in self.parameters}

    def gpu_memory_bytes(self, values: Mapping[str, Any]) -> int | None:
        """What a stage may take of a GPU's memory; None where it computes on the processor."""
        device, engine = values.get("device", "auto"), self.engine(values)
        if device == "cpu":
            return None
        if engine.gpu_memory_bytes is not None:
            return engine.gpu_memory_bytes
        return self.resources.gpu_memory_bytes if self.resources.device == "gpu" or device == "cuda" else None

    def cost(self, values: Mapping[str, Any]) -> float:
        """How many times as long as with the defaults it takes, as far as the chosen values say."""
        factor = 1.0
        for parameter in self.parameters:
            factor *= next((c.cost for c in parameter.enum if c.value == values.get(parameter.name)), 1.0)
        return factor

    def memory_mb(self, values: Mapping[str, Any]) -> int:
        """Of a stage, roughly."""
        return self.engine(values).memory_mb or self.resources.memory_mb

    def lacks_its_track(self, video: Video) -> bool:
        """Whether the file has no sound, or no picture, where this needs it."""
        return not (video.has_audio if self.needs == "audio" else video.has_video)

    def engine(self, values: Mapping[str, Any]) -> Engine:
        """The engine that these parameters choose; the first declared where they choose none."""
        return next((engine for engine in self.engines if engine.name == values.get("engine")), self.engines[0])
