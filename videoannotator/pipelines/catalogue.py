"""
Which pipelines there are, what they take, and whether a configuration fits.

Reads the YAML declarations beside it and nothing else: no pipeline's code is imported here, so that the server stays
free of model libraries.
"""

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import msgspec

from videoannotator.environments import Environments
from videoannotator.errors import FieldProblem, InvalidConfig, NotFound, Refused, there_are
from videoannotator.jobs import BROWSER_COPY, PEOPLE, NamedPicture, NewStage, StageError, Video
from videoannotator.media.playable import browsers_play
from videoannotator.models.catalogue import Models
from videoannotator.models.shelf import Shelf
from videoannotator.pipelines import pictures
from videoannotator.pipelines.declaration import Declaration, Model, Parameter
from videoannotator.pipelines.supplies import Lack, Supplies
from videoannotator.settings import Settings

_NOWHERE = Path(os.devnull)
_MOST_PROBLEMS = 100


class Catalogue:
    """All declared pipelines; lists and names hold those that users may select, in the order of their names."""

    def __init__(self, files: Iterable[Path], supplies: Supplies, data_roots: Sequence[Path] = ()) -> None:
        """Directories that parameters name must lie in one of `data_roots`."""
        self.supplies = supplies
        self._data_roots = data_roots
        found = {file: _read(file) for file in files}
        self._by_name = {d.name: d for d in sorted(found.values(), key=lambda d: d.name)}
        self._code = {d.name: _code(file) for file, d in found.items()}

    @classmethod
    def load(
        cls, more: Iterable[Path] = (), *, supplies: Supplies | None = None, data_roots: Sequence[Path] = ()
    ) -> "Catalogue":
        """
        Read every `NAME.yaml` of this folder and of the others named; a later folder wins over an earlier one.

        Without supplies there are no models and no environment but the default one.

        Raises:
            Refused: INVALID_DECLARATION, a file that breaks the form.
        """
        if supplies is None:
            supplies = Supplies(Shelf(_NOWHERE, Models.load()), Environments(_NOWHERE))
        files = (file for folder in (Path(__file__).parent, *more) for file in sorted(folder.glob("*.yaml")))
        return cls(files, supplies, data_roots)

    @classmethod
    def of(cls, settings: Settings) -> "Catalogue":
        """What there is with these settings. Raises Refused, as `load` does."""
        return cls.load(settings.pipeline_dirs, supplies=Supplies.of(settings), data_roots=settings.data_roots)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(d.name for d in self)

    def __iter__(self) -> Any:
        return iter([d for d in self._by_name.values() if not d.automatic])

    def get(self, name: str) -> Declaration:
        """Raises NotFound with the code PIPELINE_NOT_FOUND."""
        if name not in self._by_name:
            raise NotFound.of("pipeline", name, f"There are: {', '.join(self.names)}.")
        return self._by_name[name]

    def after(self, name: str) -> frozenset[str]:
        """Whose files it gets when they run in the same job; none where it is no longer known."""
        return frozenset(self._by_name[name].after) if name in self._by_name else frozenset()

    def lack(self, name: str) -> Lack | None:
        """What keeps a pipeline from running with its defaults; None where it can."""
        declaration = self.get(name)
        return self.supplies.lack(declaration, declaration.defaults)

    def models_of(self, name: str) -> tuple[Model, ...]:
        """The models of the model catalogue that the engines of a pipeline may load, whatever its parameters say."""
        patterns = {_any_value(need.name) for engine in self.get(name).engines for need in engine.models}
        return tuple(
            Model(name=m.name, size_bytes=m.about_bytes, licence=m.licence, source=m.page)
            for m in self.supplies.shelf.models
            if any(fnmatch(m.name, pattern) for pattern in patterns)
        )

    def code_of(self, name: str) -> str:
        """Where a pipeline's code is: `module:function` for ours, `file.py:function` for one from elsewhere."""
        self.get(name)
        return self._code[name]

    def type_of(self, pipeline: str, parameter: str) -> str | None:
        """The declared type of a parameter; None where there is no such thing."""
        if pipeline not in self.names:
            return None
        return next((p.type for p in self._by_name[pipeline].parameters if p.name == parameter), None)

    def names_a_directory(self, pipeline: str, parameter: str) -> bool:
        return pipeline in self.names and any(
            p.name == parameter and p.holds for p in self._by_name[pipeline].parameters
        )

    def check(
        self, selected: Iterable[str], config: Mapping[str, Mapping[str, Any]]
    ) -> tuple[dict[str, dict[str, Any]], tuple[FieldProblem, ...]]:
        """
        Complete configurations of the selected pipelines, and everything that is wrong, all at once; of hundreds of
        problems the first hundred or so.
        """
        complete: dict[str, dict[str, Any]] = {}
        problems: list[FieldProblem] = []
        chosen = list(dict.fromkeys(selected))
        for name in chosen:
            if len(problems) >= _MOST_PROBLEMS:
                break
            if name not in self.names:
                problems.append(self._unknown(name, "selected_pipelines"))
                continue
            values, wrong = _check_one(self._by_name[name], config.get(name, {}))
            complete[name] = values
            wrong += self._outside(self._by_name[name], values)
            problems += wrong
            if not wrong and (why := self.supplies.lack(self._by_name[name], values)):
                problems.append(FieldProblem("selected_pipelines", why.message, why.code, why.fix))
        for name in config:
            if name not in self.names:
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

    def require_intact(self, complete: Mapping[str, Mapping[str, Any]]) -> None:
        """
        Read models through that were touched since they were last verified; those that will be fetched are left out.
        Look into the directories of pictures.

        Raises:
            Refused: MODEL_DAMAGED, with the command that helps.
            InvalidConfig: PICTURES_UNUSABLE, PATH_NOT_ALLOWED.
        """
        for name, values in complete.items():
            for parameter in _of_pictures(self.get(name), values):
                try:
                    pictures.look(values[parameter.name], self._data_roots)
                except Refused as refusal:
                    raise InvalidConfig((_problem_with(name, parameter, refusal),)) from refusal
            if not self.supplies.missing_models(self.get(name), values):
                self.supplies.models(self.get(name), values)

    def compares_with_pictures(self, name: str, values: Mapping[str, Any]) -> bool:
        """Whether the result depends on files that may be others tomorrow, under the same parameters."""
        return bool(_of_pictures(self.get(name), values))

    def pictures(self, name: str, values: Mapping[str, Any]) -> tuple[NamedPicture, ...]:
        """Of the directories that these parameters name, each with its hash. Raises Refused. Reads all of them."""
        return tuple(
            picture
            for parameter in _of_pictures(self.get(name), values)
            for picture in pictures.hashed(parameter.name, values[parameter.name], self._data_roots)
        )

    def plan(
        self, video: Video, selected: Iterable[str], config: Mapping[str, Mapping[str, Any]]
    ) -> tuple[NewStage, ...]:
        """
        The stages of a job on this video; one more where faces and people can be put together.

        Raises:
            InvalidConfig: with every problem found; also when the video lacks what each of the pipelines needs.
        """
        return self.stages(video, self.require(selected, config))

    def stages(self, video: Video, complete: Mapping[str, dict[str, Any]]) -> tuple[NewStage, ...]:
        """The same where the configurations are complete. Raises InvalidConfig, where the video lacks what all need."""
        stages = tuple(self.stage(video, name, values) for name, values in complete.items())
        if (lacks := [s.skip_because for s in stages if s.skip_because]) and len(lacks) == len(stages):
            raise InvalidConfig((FieldProblem("video", lacks[0].message, lacks[0].code),))
        if set(self.get(PEOPLE).after) <= {stage.pipeline for stage in stages if stage.skip_because is None}:
            return (*stages, NewStage(PEOPLE, self.get(PEOPLE).defaults))
        return stages

    def stage(self, video: Video, name: str, values: dict[str, Any]) -> NewStage:
        """One of them, with parameters that are complete; it may say why it is to be skipped."""
        return NewStage(name, values, _lacks(self.get(name), video))

    def lacks(self, selected: Iterable[str], config: Mapping[str, Mapping[str, Any]]) -> tuple[Lack, ...]:
        """What keeps these pipelines from running here, each thing once; parameters that do not fit are left alone."""
        complete, _ = self.check(selected, config)
        found = (self.supplies.lack(self.get(name), values) for name, values in complete.items())
        return tuple(dict.fromkeys(lack for lack in found if lack is not None))

    def copying(self, video: Video) -> tuple[NewStage, ...]:
        """The stage that copies a video for browsers, where they do not play it as it is."""
        if not video.has_video or browsers_play(video):
            return ()
        return (NewStage(BROWSER_COPY, self.get(BROWSER_COPY).defaults),)

    def _outside(self, pipeline: Declaration, values: Mapping[str, Any]) -> list[FieldProblem]:
        problems = []
        for parameter in _of_pictures(pipeline, values):
            try:
                pictures.refuse_outside(values[parameter.name], self._data_roots)
            except Refused as refusal:
                problems.append(_problem_with(pipeline.name, parameter, refusal))
        return problems

    def _unknown(self, name: str, field: str) -> FieldProblem:
        hint = there_are(name, self.names)
        return FieldProblem(field, f"No pipeline is called {name!r}.", "PIPELINE_NOT_FOUND", hint, self.names)


def _read(file: Path) -> Declaration:
    try:
        declaration = _declared(file.read_bytes())
    except (msgspec.MsgspecError, OSError) as exc:
        raise Refused(f"{file} declares no pipeline: {exc}.", code="INVALID_DECLARATION") from exc
    if declaration.name != file.stem:
        message = f"{file} declares the pipeline {declaration.name!r}."
        raise Refused(message, hint="File and pipeline have the same name.", code="INVALID_DECLARATION")
    return declaration


@lru_cache(maxsize=64)
def _declared(content: bytes) -> Declaration:
    """Once for a command that asks twice what there is: it takes longer than all else before the first process."""
    return msgspec.yaml.decode(content, type=Declaration)


def _any_value(template: str) -> str:
    return re.sub(r"\{\w+\}", "*", template)


def _code(file: Path) -> str:
    if file.parent == Path(__file__).parent:
        return f"videoannotator.pipelines.{file.stem}:run"
    return f"{file.with_suffix('.py').absolute()}:run"


def _lacks(pipeline: Declaration, video: Video) -> StageError | None:
    if pipeline.without_it == "empty" or not pipeline.lacks_its_track(video):
        return None
    code, track = ("NO_AUDIO", "sound track") if pipeline.needs == "audio" else ("NO_VIDEO", "picture")
    what = f"{video.filename} has no {track}, which {pipeline.name} needs."
    return StageError(code, f"{what} Leave {pipeline.name} out for such files.")


def _check_one(pipeline: Declaration, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[FieldProblem]]:
    known = {p.name: p for p in pipeline.parameters}
    values, problems = pipeline.defaults, []
    if not isinstance(given, Mapping):
        return values, [FieldProblem(pipeline.name, f"The parameters of {pipeline.name} are no object.", "WRONG_TYPE")]
    for name, value in given.items():
        field = f"{pipeline.name}.{name}"
        if name not in known:
            message = f"{pipeline.name} has no parameter {name!r}."
            hint = there_are(name, known, "It has")
            problems.append(FieldProblem(field, message, "UNKNOWN_PARAMETER", hint, tuple(known)))
        elif problem := _problem(field, known[name], value):
            problems.append(problem)
        else:
            values[name] = float(value) if known[name].type == "number" else value
    if not problems:
        problems = _disordered(pipeline, values)
    return values, problems + _unusable_engine(pipeline, values) + _not_of_engine(pipeline, values)


def _of_pictures(pipeline: Declaration, values: Mapping[str, Any]) -> list[Parameter]:
    """The parameters that name a directory of pictures now."""
    return [parameter for parameter in pipeline.parameters if parameter.holds and values[parameter.name]]


def _problem_with(pipeline: str, parameter: Parameter, refusal: Refused) -> FieldProblem:
    return FieldProblem(f"{pipeline}.{parameter.name}", refusal.message, refusal.code, refusal.hint)


def _disordered(pipeline: Declaration, values: Mapping[str, Any]) -> list[FieldProblem]:
    return [
        FieldProblem(
            f"{pipeline.name}.{low}",
            f"{pipeline.name}.{low} is {values[low]:g}, more than {high}, which is {values[high]:g}.",
            "OUT_OF_RANGE",
        )
        for low, high in pipeline.ordered
        if values[low] and values[high] and values[low] > values[high]
    ]


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
        return FieldProblem(
            field, message, "NOT_A_CHOICE", _choices(parameter, [str(v) for v in picked if v not in allowed]), allowed
        )
    return None


def _choices(parameter: Parameter, wrong_ones: Sequence[str]) -> str:
    """What to choose from; whoever gave a choice's name ("English", "EN") is told its value first."""
    allowed, wrong = tuple(choice.value for choice in parameter.enum), wrong_ones[0]
    meant = [c for c in parameter.enum if wrong and wrong.casefold() in (c.value.casefold(), c.label.casefold())]
    if meant:
        return f"Did you mean {meant[0].value}? Choose from: {', '.join(allowed)}."
    return there_are(wrong, allowed, "Choose from")


def _is_sane(value: float) -> bool:
    """A number that fits into 64 bits: no NaN, no infinity, and none of Python's endless integers, nor True."""
    return not isinstance(value, bool) and (abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value))


def _range(parameter: Parameter) -> str:
    low = "" if parameter.min is None else f"{parameter.min:g}"
    high = "" if parameter.max is None else f"{parameter.max:g}"
    return f"{low}..{high} {parameter.unit}".rstrip()


def _not_of_engine(pipeline: Declaration, values: Mapping[str, Any]) -> list[FieldProblem]:
    """What is asked of an engine that cannot do it would be left out in silence."""
    problems = []
    for parameter in pipeline.parameters:
        engines = parameter.engines_for(values[parameter.name])
        if engines and values.get("engine") not in engines:
            field, needed = f"{pipeline.name}.{parameter.name}", " or ".join(engines)
            message = f"{field} {values[parameter.name]!r} needs the engine {needed}."
            hint = f"Set {pipeline.name}.engine to {needed}, or leave {parameter.name} out."
            problems.append(FieldProblem(field, message, "NOT_A_CHOICE", hint, engines))
    return problems


def _unusable_engine(pipeline: Declaration, values: Mapping[str, Any]) -> list[FieldProblem]:
    for engine in pipeline.engines:
        if engine.name == values.get("engine") and engine.unavailable:
            usable = tuple(e.name for e in pipeline.engines if not e.unavailable)
            message = f"The engine {engine.name} is not available: {engine.unavailable}"
            return [FieldProblem(f"{pipeline.name}.engine", message, "ENGINE_UNAVAILABLE", allowed=usable)]
    return []
