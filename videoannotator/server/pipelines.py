"""Which pipelines there are, and whether a configuration would be accepted, before anything is sent."""

from typing import Any, Literal

import msgspec
from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from videoannotator.errors import FieldProblem
from videoannotator.pipelines.catalogue import Catalogue
from videoannotator.pipelines.declaration import (
    Component,
    DeclaredOutput,
    Engine,
    Model,
    Parameter,
    Resources,
)
from videoannotator.server.auth import OPEN, limited

Config = dict[str, dict[str, Any]]


class PipelineAnswer(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A declaration, in API.md's words and in those that the browser client reads (VIEWER.md section 6)."""

    name: str
    version: str
    display_name: str
    pipeline_family: str
    description: str
    needs: Literal["video", "audio"]
    engines: tuple[Engine, ...]
    components: tuple[Component, ...]
    parameters: tuple[Parameter, ...]
    outputs: tuple[DeclaredOutput, ...]
    output_formats: tuple[str, ...]
    models: tuple[Model, ...]
    resources: Resources
    known_limits: tuple[str, ...]
    default_enabled: bool
    available: bool
    reason: str | None = None
    fix: str | None = None
    """What helps, where a command does: the command."""


class PipelineList(msgspec.Struct, frozen=True):
    pipelines: tuple[PipelineAnswer, ...]
    total: int


class Issue(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    field: str
    message: str
    code: str
    error_code: str
    """The same as `code`, under the browser client's name for it."""

    severity: Literal["error", "warning"]
    hint: str = ""
    allowed: tuple[str, ...] = ()


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    valid: bool
    errors: tuple[Issue, ...]
    warnings: tuple[Issue, ...]
    validated_config: Config
    """Every parameter of the selected pipelines, defaults filled in."""


class OneConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    config: dict[str, Any]


class SeveralConfigs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    config: Config
    pipelines: tuple[str, ...]


class JobConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    config: Config
    selected_pipelines: tuple[str, ...] | None = None


@get("/api/v1/pipelines", opt=OPEN)
async def list_pipelines(catalogue: NamedDependency[Catalogue], all: FromQuery[bool] = False) -> PipelineList:  # noqa: A002
    """Those that can run here now, and with `?all=true` the others too, with the reason."""
    answers = tuple(answer for name in catalogue.names if (answer := _describe(catalogue, name)).available or all)
    return PipelineList(answers, len(answers))


@get(["/api/v1/pipelines/{name:str}", "/api/v1/pipelines/{name:str}/schema"], opt=OPEN)
async def get_pipeline(catalogue: NamedDependency[Catalogue], name: FromPath[str]) -> PipelineAnswer:
    return _describe(catalogue, name)


@post("/api/v1/pipelines/{name:str}/validate", status_code=200, opt=limited(OPEN, "validations"))
async def validate_one(
    catalogue: NamedDependency[Catalogue], name: FromPath[str], data: JSONBody[OneConfig]
) -> Verdict:
    catalogue.get(name)
    return _judge(catalogue, (name,), {name: data.config})


@post("/api/v1/pipelines/validate", status_code=200, opt=limited(OPEN, "validations"))
async def validate_several(catalogue: NamedDependency[Catalogue], data: JSONBody[SeveralConfigs]) -> Verdict:
    return _judge(catalogue, data.pipelines, data.config)


@post("/api/v1/config/validate", status_code=200, opt=limited(OPEN, "validations"))
async def validate_config(catalogue: NamedDependency[Catalogue], data: JSONBody[JobConfig]) -> Verdict:
    """Without `selected_pipelines` those that are configured count as selected."""
    selected = data.selected_pipelines
    if selected is None:
        selected = tuple(name for name in data.config if name in catalogue.names)
    return _judge(catalogue, selected, data.config)


def _judge(catalogue: Catalogue, selected: tuple[str, ...], config: Config) -> Verdict:
    complete, problems = catalogue.check(selected, config)
    return Verdict(
        valid=not problems,
        errors=tuple(_issue(problem) for problem in problems),
        warnings=(),
        validated_config=complete,
    )


def _issue(problem: FieldProblem) -> Issue:
    return Issue(
        field=problem.field,
        message=problem.message,
        code=problem.code,
        error_code=problem.code,
        severity="error",
        hint=problem.hint,
        allowed=problem.allowed,
    )


def _describe(catalogue: Catalogue, name: str) -> PipelineAnswer:
    declaration, why = catalogue.get(name), catalogue.lack(name)
    return PipelineAnswer(
        name=declaration.name,
        version=declaration.version,
        display_name=declaration.display_name,
        pipeline_family=declaration.family,
        description=declaration.description,
        needs=declaration.needs,
        engines=declaration.engines,
        components=declaration.components,
        parameters=declaration.parameters,
        outputs=declaration.outputs,
        output_formats=tuple(dict.fromkeys(output.format for output in declaration.outputs)),
        models=(*declaration.models, *catalogue.models_of(name)),
        resources=declaration.resources,
        known_limits=declaration.known_limits,
        default_enabled=declaration.default_enabled,
        available=why is None,
        reason=why.message if why else None,
        fix=why.fix if why else None,
    )


ROUTES = [list_pipelines, get_pipeline, validate_one, validate_several, validate_config]
