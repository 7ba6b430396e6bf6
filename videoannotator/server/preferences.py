"""What the holder of a key would otherwise say each time."""

import asyncio
from pathlib import Path

from litestar import get, put
from litestar.di import NamedDependency
from litestar.params import JSONBody

from videoannotator.errands.possible import require_possible
from videoannotator.errors import FieldProblem, InvalidConfig
from videoannotator.jobs import Errands, Preferences
from videoannotator.server.auth import WRITE, Caller
from videoannotator.workspace import Workspace


@get("/api/v1/preferences", opt=WRITE)
async def get_preferences(workspace: NamedDependency[Workspace], caller: NamedDependency[Caller]) -> Preferences:
    """The preferences of the key that asks; empty where nothing was said yet."""
    return await workspace.store.preferences(caller.id)


@put("/api/v1/preferences", opt=WRITE)
async def put_preferences(
    workspace: NamedDependency[Workspace], caller: NamedDependency[Caller], data: JSONBody[Preferences]
) -> Preferences:
    """Put these in the place of the former ones; what is left out is as the server has it."""
    problems = [await _preset_problem(workspace, data), await asyncio.to_thread(_directory_problem, workspace, data)]
    if found := tuple(problem for problem in problems if problem is not None):
        raise InvalidConfig(found)
    await workspace.store.put_preferences(caller.id, data)
    return data


async def _preset_problem(workspace: Workspace, said: Preferences) -> FieldProblem | None:
    known = tuple(preset.name for preset in await workspace.presets())
    name = said.default_preset
    if name is None or name in known:
        return None
    hint = f"There are: {', '.join(known)}."
    return FieldProblem("default_preset", f"No preset is called {name!r}.", "PRESET_NOT_FOUND", hint, known)


def _directory_problem(workspace: Workspace, said: Preferences) -> FieldProblem | None:
    """It need not be there yet; every job looks again."""
    if said.output_directory is None:
        return None
    try:
        errands = Errands(output_directory=Path(said.output_directory))
        require_possible(errands, workspace.settings, workspace.policy)
    except InvalidConfig as refusal:
        return refusal.problems[0]
    return None


ROUTES = [get_preferences, put_preferences]
