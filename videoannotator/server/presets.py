"""Named pipelines with parameters. Those that come with the program cannot be changed; users may store their own."""

import functools
import re
from typing import Any

import msgspec
from litestar import delete, get, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from videoannotator.errors import Conflict, FieldProblem, InvalidConfig
from videoannotator.jobs import Preset
from videoannotator.presets import builtin_presets
from videoannotator.server.auth import READ, WRITE
from videoannotator.workspace import Workspace

_builtin = functools.cache(builtin_presets)
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class PresetAnswer(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    name: str
    version: str
    description: str
    pipelines: dict[str, dict[str, Any]]
    cost: str
    builtin: bool
    available: bool
    reason: str | None = None
    fix: str | None = None
    """What helps, one step a line; where a command does it, the command."""


class PresetList(msgspec.Struct, frozen=True):
    presets: tuple[PresetAnswer, ...]
    total: int


class PresetContent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pipelines: dict[str, dict[str, Any]]
    version: str = "1"
    description: str = ""
    cost: str = ""


@get("/api/v1/presets", opt=READ)
async def list_presets(workspace: NamedDependency[Workspace]) -> PresetList:
    presets = tuple(_describe(preset, workspace) for preset in await workspace.presets())
    return PresetList(presets, len(presets))


@get("/api/v1/presets/{name:str}", opt=READ)
async def get_preset(workspace: NamedDependency[Workspace], name: FromPath[str]) -> PresetAnswer:
    return _describe(await workspace.preset(name), workspace)


@put("/api/v1/presets/{name:str}", opt=WRITE)
async def put_preset(
    workspace: NamedDependency[Workspace], name: FromPath[str], data: JSONBody[PresetContent]
) -> PresetAnswer:
    """Store a preset, or put another in its place. Jobs keep the content they were submitted with."""
    _refuse_builtin(name)
    if not _NAME.fullmatch(name):
        message = f"{name[:100]!r} cannot be the name of a preset."
        hint = "Use up to 64 small letters, digits, - and _."
        raise InvalidConfig((FieldProblem("name", message, "INVALID_VALUE", hint),))
    workspace.catalogue.require(data.pipelines, data.pipelines)
    preset = Preset(
        name=name, version=data.version, description=data.description, pipelines=data.pipelines, cost=data.cost
    )
    await workspace.store.put_preset(preset)
    return _describe(preset, workspace)


@delete("/api/v1/presets/{name:str}", opt=WRITE)
async def delete_preset(workspace: NamedDependency[Workspace], name: FromPath[str]) -> None:
    _refuse_builtin(name)
    await workspace.store.remove_preset(name)


def _refuse_builtin(name: str) -> None:
    if name in _builtin():
        hint = "Store yours under another name."
        raise Conflict(f"The preset {name!r} comes with the program.", hint=hint, code="PRESET_BUILT_IN")


def _describe(preset: Preset, workspace: Workspace) -> PresetAnswer:
    lacks = workspace.catalogue.lacks(preset.pipelines, preset.pipelines)
    return PresetAnswer(
        name=preset.name,
        version=preset.version,
        description=preset.description,
        pipelines=preset.pipelines,
        cost=preset.cost,
        builtin=preset.name in _builtin(),
        available=not lacks,
        reason=" ".join(lack.message for lack in lacks) or None,
        fix="\n".join(lack.fix for lack in lacks) or None,
    )


ROUTES = [list_presets, get_preset, put_preset, delete_preset]
