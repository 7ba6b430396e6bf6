"""What a pipeline needs beside its own code: libraries, an environment, models. And the command that brings it."""

import importlib.util
import os
from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

from videoannotator.environments import DEFAULT, Environments
from videoannotator.jobs import ModelFiles
from videoannotator.models.catalogue import Models
from videoannotator.models.fetch import TOKENS
from videoannotator.models.shelf import Shelf
from videoannotator.pipelines.declaration import Declaration, Engine
from videoannotator.settings import Settings


class Lack(msgspec.Struct, frozen=True):
    """Why something cannot run here."""

    message: str
    fix: str
    """What to do about it, a line for each thing; where a command does it, the command."""

    code: str = "PIPELINE_UNAVAILABLE"


class Supplies:
    """What is here. Quick: nothing is read through and nothing is started."""

    def __init__(self, shelf: Shelf, environments: Environments, *, auto_download: bool = False) -> None:
        self.shelf = shelf
        self.environments = environments
        self.auto_download = auto_download

    @classmethod
    def of(cls, settings: Settings) -> "Supplies":
        models = Models.load(folder / "models" for folder in settings.pipeline_dirs)
        return cls(
            Shelf(settings.models_folder, models),
            Environments(settings.environments_folder, settings.pipeline_dirs),
            auto_download=settings.auto_download and not settings.offline,
        )

    def lack(self, declaration: Declaration, values: Mapping[str, Any]) -> Lack | None:
        """
        All that keeps the pipeline from running with these parameters; None where it can. Nobody shall fetch gigabytes
        to be told then of a token.
        """
        engine = declaration.engine(values)
        both = self._lack_of_libraries(declaration, engine), self._lack_of_models(declaration, engine, values)
        lacks = [lack for lack in both if lack]
        if not lacks:
            return None
        return Lack(" ".join(lack.message for lack in lacks), "\n".join(lack.fix for lack in lacks))

    def missing_models(self, declaration: Declaration, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Those that have to be fetched before it can run."""
        names = declaration.engine(values).models_for(values)
        return tuple(name for name in names if self.shelf.state(name) in ("missing", "damaged"))

    def models(self, declaration: Declaration, values: Mapping[str, Any]) -> tuple[ModelFiles, ...]:
        """
        The models for a stage, verified; those that are welcome and not needed where they are here. May read for long.

        Raises:
            Refused: MODEL_MISSING or MODEL_DAMAGED.
        """
        engine = declaration.engine(values)
        needed = engine.models_for(values)
        welcome = [n for n in engine.welcome_for(values, self.shelf.models.names) if n not in needed]
        there = [name for name in welcome if self.shelf.state(name) in ("ready", "unchecked")]
        return tuple(self.shelf.require(name) for name in (*needed, *there))

    def _lack_of_libraries(self, declaration: Declaration, engine: Engine) -> Lack | None:
        if engine.environment == DEFAULT:
            missing = sorted(module for module in engine.modules if not _is_installed(module))
            what = f"{declaration.name} needs {', '.join(missing)}, which is not installed."
            return Lack(what, "Run: uv sync") if missing else None
        state = self.environments.state(engine.environment)
        if state == "ready":
            return None
        what = f"{declaration.name} with {engine.name} needs the environment {engine.environment}, which is {state}."
        return Lack(what, self.environments.how_to_get(engine.environment))

    def _lack_of_models(self, declaration: Declaration, engine: Engine, values: Mapping[str, Any]) -> Lack | None:
        missing = self.missing_models(declaration, values)
        if not missing or (self.auto_download and not any(self._needs_token(name) for name in missing)):
            return None
        megabytes = sum(self.shelf.models.get(name).about_mb for name in missing)
        states = {name: self.shelf.state(name) for name in missing}
        told = ", ".join(f"{name} ({'damaged' if s == 'damaged' else 'not here'})" for name, s in states.items())
        what = f"{declaration.name} with {engine.name} needs the model {told}; about {megabytes} MB."
        return Lack(what, self.shelf.how_to_get(*missing))

    def _needs_token(self, name: str) -> bool:
        return self.shelf.models.get(name).gated and not any(os.environ.get(token) for token in TOKENS)


@cache
def _is_installed(module: str) -> bool:
    """Looked up once: what is installed while the server runs is seen when it starts again."""
    return importlib.util.find_spec(module) is not None
