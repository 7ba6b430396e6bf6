"""What the holder of a key would otherwise say each time."""

import asyncio
from pathlib import Path

from litestar import get, put
from litestar.di import NamedDependency
from litestar.params import JSONBody

from videoannotator.errors import FieldProblem, InvalidConfig
from videoannotator.jobs import Preferences
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
    """A link may lead to it; what counts is where it ends, and every job looks again."""
    if said.output_directory is None:
        return None
    try:
        directory = Path(said.output_directory)
        roots = [root.resolve() for root in workspace.settings.data_roots]
        fits = directory.is_absolute() and directory.is_dir()
        if fits and any(directory.resolve(strict=True).is_relative_to(root) for root in roots):
            return None
    except (OSError, ValueError, RuntimeError):  # a loop of links, a NUL: no directory either
        pass
    message = "This is no directory inside the allowed roots."
    hint = "The operator names directories in VIDEOANNOTATOR_DATA_ROOTS."
    return FieldProblem("output_directory", message, "PATH_NOT_ALLOWED", hint)


ROUTES = [get_preferences, put_preferences]
