"""
Which pipelines there are, what they take, and whether a configuration fits.

Reads the YAML declarations beside it and nothing else: no pipeline's code is imported here, so that the server stays
free of model libraries.
"""

import importlib.util
import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec

from videoannotator.errors import FieldProblem, InvalidConfig, NotFound, Refused
from videoannotator.jobs import NewStage, StageError, Video

Scalar = bool | int | float | str


class Choice(msgspec.Struct, frozen=True, omit_defaults=True):
    value: str
    label: str = ""


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


class Engine(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """A library that can do the pipeline's work."""

    name: str
    description: str
    environment: str = "default"
    modules: tuple[str, ...] = ()
    """What must be importable for it to run."""

    unavailable: str = ""
    """Why it cannot be chosen yet; empty where it can."""


class Component(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """A part of what the pipeline finds."""

    name: str
    description: str
    engines: tuple[str, ...] = ()
    available: bool = True
    reason: str = ""


class DeclaredOutput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: str
    format: str
    role: str
    media_type: str
    description: str
    in_zip: bool = True
    optional: bool = False
    """Left out where there is nothing to say, an RTTM without speech say."""


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: str
    size_bytes: int
    licence: str
    source: str


class Resources(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    device: Literal["cpu", "gpu"] = "cpu"
    memory_mb: int
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
    engines: tuple[Engine, ...]
    components: tuple[Component, ...] = ()
    parameters: tuple[Parameter, ...]
    outputs: tuple[DeclaredOutput, ...]
    models: tuple[Model, ...] = ()
    resources: Resources
    known_limits: tuple[str, ...]
    default_enabled: bool = True
    counted_as: tuple[str, str] = ("annotation", "annotations")
    """What one of its annotations is called, and several."""

    @property
    def defaults(self) -> dict[str, Any]:
        return {p.name: list(p.default) if isinstance(p.default, tuple) else p.default for p in self.parameters}

    @property
    def unavailable(self) -> StageError | None:
        """Why it cannot run here, with the command that helps; None where it can."""
        missing = [m for e in self.engines if not e.unavailable for m in e.modules if not _is_installed(m)]
        if not missing:
            return None
        return StageError(
            "PIPELINE_UNAVAILABLE",
            f"{self.name} needs {', '.join(sorted(set(missing)))}, which is not installed. Run: uv sync",
        )


class Catalogue:
    """All declared pipelines, in the order of their names."""

    def __init__(self, files: Iterable[Path]) -> None:
        found = {file: _read(file) for file in files}
        self._by_name = {d.name: d for d in sorted(found.values(), key=lambda d: d.name)}
        self._code = {d.name: _code(file) for file, d in found.items()}

    @classmethod
    def load(cls, more: Iterable[Path] = ()) -> "Catalogue":
        """
        Read every `NAME.yaml` of this folder and of the others named; a later folder wins over an earlier one.

        Raises:
            Refused: INVALID_DECLARATION, a file that breaks the form.
        """
        return cls(file for folder in (Path(__file__).parent, *more) for file in sorted(folder.glob("*.yaml")))

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(self._by_name)

    def __iter__(self) -> Any:
        return iter(self._by_name.values())

    def get(self, name: str) -> Declaration:
        """Raises NotFound with the code PIPELINE_NOT_FOUND."""
        if name not in self._by_name:
            raise NotFound.of("pipeline", name, f"There are: {', '.join(self.names)}.")
        return self._by_name[name]

    def code_of(self, name: str) -> str:
        """Where a pipeline's code is: `module:function` for ours, `file.py:function` for one from elsewhere."""
        self.get(name)
        return self._code[name]

    def type_of(self, pipeline: str, parameter: str) -> str | None:
        """The declared type of a parameter; None where there is no such thing."""
        if pipeline not in self._by_name:
            return None
        return next((p.type for p in self._by_name[pipeline].parameters if p.name == parameter), None)

    def check(
        self, selected: Iterable[str], config: Mapping[str, Mapping[str, Any]]
    ) -> tuple[dict[str, dict[str, Any]], tuple[FieldProblem, ...]]:
        """Complete configurations of the selected pipelines, and everything that is wrong, all at once."""
        complete: dict[str, dict[str, Any]] = {}
        problems: list[FieldProblem] = []
        chosen = list(dict.fromkeys(selected))
        for name in chosen:
            if name not in self._by_name:
                problems.append(self._unknown(name, "selected_pipelines"))
                continue
            if why := self._by_name[name].unavailable:
                problems.append(FieldProblem("selected_pipelines", why.message, why.code))
            values, wrong = _check_one(self._by_name[name], config.get(name, {}))
            complete[name] = values
            problems += wrong
        for name in config:
            if name not in self._by_name:
                problems.append(self._unknown(name, name))
            elif name not in chosen:
                hint = f"Add {name} to the selected pipelines, or leave its parameters out."
                problems.append(FieldProblem(name, f"{name} is configured and not selected.", "NOT_SELECTED", hint))
        return complete, tuple(problems)

    def require(self, selected: Iterable[str], config: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """Complete configurations of the selected pipelines. Raises InvalidConfig with every problem found."""
        complete, problems = self.check(selected, config)
        if not problems and not complete:
            problems = (FieldProblem("selected_pipelines", "No pipeline is selected.", "NOTHING_SELECTED"),)
        if problems:
            raise InvalidConfig(problems)
        return complete

    def plan(
        self, video: Video, selected: Iterable[str], config: Mapping[str, Mapping[str, Any]]
    ) -> tuple[NewStage, ...]:
        """
        The stages of a job on this video.

        Raises:
            InvalidConfig: with every problem found; also when the video lacks what each of the pipelines needs.
        """
        complete = self.require(selected, config)
        stages = tuple(NewStage(n, values, _lacks(self._by_name[n], video)) for n, values in complete.items())
        if (lacks := [s.skip_because for s in stages if s.skip_because]) and len(lacks) == len(stages):
            raise InvalidConfig((FieldProblem("video", lacks[0].message, lacks[0].code),))
        return stages

    def _unknown(self, name: str, field: str) -> FieldProblem:
        hint = f"There are: {', '.join(self.names)}."
        return FieldProblem(field, f"No pipeline is called {name!r}.", "PIPELINE_NOT_FOUND", hint, self.names)


def _read(file: Path) -> Declaration:
    try:
        declaration = msgspec.yaml.decode(file.read_bytes(), type=Declaration)
    except (msgspec.MsgspecError, OSError) as exc:
        raise Refused(f"{file} declares no pipeline: {exc}.", code="INVALID_DECLARATION") from exc
    if declaration.name != file.stem:
        message = f"{file} declares the pipeline {declaration.name!r}."
        raise Refused(message, hint="File and pipeline have the same name.", code="INVALID_DECLARATION")
    return declaration


def _code(file: Path) -> str:
    if file.parent == Path(__file__).parent:
        return f"videoannotator.pipelines.{file.stem}:run"
    return f"{file.with_suffix('.py').absolute()}:run"


def _lacks(pipeline: Declaration, video: Video) -> StageError | None:
    if pipeline.needs == "audio" and not video.has_audio:
        what = f"{video.filename} has no sound track, which {pipeline.name} needs."
        return StageError("NO_AUDIO", f"{what} Leave {pipeline.name} out for such files.")
    if pipeline.needs == "video" and not video.has_video:
        what = f"{video.filename} has no picture, which {pipeline.name} needs."
        return StageError("NO_VIDEO", f"{what} Leave {pipeline.name} out for such files.")
    return None


def _check_one(pipeline: Declaration, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[FieldProblem]]:
    known = {p.name: p for p in pipeline.parameters}
    values, problems = pipeline.defaults, []
    if not isinstance(given, Mapping):
        return values, [FieldProblem(pipeline.name, f"The parameters of {pipeline.name} are no object.", "WRONG_TYPE")]
    for name, value in given.items():
        field = f"{pipeline.name}.{name}"
        if name not in known:
            message = f"{pipeline.name} has no parameter {name!r}."
            hint = f"It has: {', '.join(known)}."
            problems.append(FieldProblem(field, message, "UNKNOWN_PARAMETER", hint, tuple(known)))
        elif problem := _problem(field, known[name], value):
            problems.append(problem)
        else:
            values[name] = float(value) if known[name].type == "number" else value
    return values, problems + _unusable_engine(pipeline, values)


def _problem(field: str, parameter: Parameter, value: object) -> FieldProblem | None:
    allowed = tuple(c.value for c in parameter.enum)
    match parameter.type:
        case "boolean":
            fits = isinstance(value, bool)
        case "integer":
            fits = isinstance(value, int) and _is_sane(value)
        case "number":
            fits = isinstance(value, int | float) and _is_sane(value)
        case "multiselect":
            fits = isinstance(value, list) and all(isinstance(v, str) for v in value)
        case "string" | "enum":
            fits = isinstance(value, str)
    if not fits:
        return FieldProblem(field, f"{field} must be of type {parameter.type}.", "WRONG_TYPE", allowed=allowed)
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = parameter.min, parameter.max
        if (low is not None and value < low) or (high is not None and value > high):
            message = f"{field} is {value:g}, outside {_range(parameter)}."
            return FieldProblem(field, message, "OUT_OF_RANGE", f"Choose a value in {_range(parameter)}.")
    picked = value if isinstance(value, list) else [value]
    if allowed and any(v not in allowed for v in picked):
        message = f"{field} cannot be {value!r}."
        return FieldProblem(field, message, "NOT_A_CHOICE", f"Choose from: {', '.join(allowed)}.", allowed)
    return None


def _is_sane(value: float) -> bool:
    """A number that fits into 64 bits: no NaN, no infinity, and none of Python's endless integers, nor True."""
    return not isinstance(value, bool) and (abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value))


def _range(parameter: Parameter) -> str:
    low = "" if parameter.min is None else f"{parameter.min:g}"
    high = "" if parameter.max is None else f"{parameter.max:g}"
    return f"{low}..{high} {parameter.unit}".rstrip()


def _unusable_engine(pipeline: Declaration, values: Mapping[str, Any]) -> list[FieldProblem]:
    for engine in pipeline.engines:
        if engine.name == values.get("engine") and engine.unavailable:
            usable = tuple(e.name for e in pipeline.engines if not e.unavailable)
            message = f"The engine {engine.name} is not available: {engine.unavailable}"
            return [FieldProblem(f"{pipeline.name}.engine", message, "ENGINE_UNAVAILABLE", allowed=usable)]
    return []


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
