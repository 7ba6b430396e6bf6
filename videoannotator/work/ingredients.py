"""
What a stage is made from beside its video: interpreter, models, named pictures and the files of the stages before it.

All of it as it is at the moment of asking: models and environments may be removed while a job waits.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from videoannotator.errors import Refused, StageFailed
from videoannotator.jobs import Artifact, Job, ModelFiles, NamedPicture, Stage
from videoannotator.pipelines.catalogue import Catalogue
from videoannotator.settings import Settings
from videoannotator.work.fingerprint import fingerprint


class Ingredients:
    """Of one pipeline's stage of a job. Each method blocks, and says StageFailed where something is not there."""

    def __init__(self, catalogue: Catalogue, settings: Settings, job: Job, pipeline: str) -> None:
        self._catalogue, self._settings, self._job = catalogue, settings, job
        self._declaration = catalogue.get(pipeline)
        self._pictures: tuple[NamedPicture, ...] | None = None
        """As the fingerprint knows them; None where they could not be read."""

        self.earlier: tuple[Artifact, ...] = ()
        """What the pipelines made that this one comes after."""

    def environment(self, stage: Stage) -> str:
        return self._declaration.engine(stage.used_config).environment

    def interpreter(self, stage: Stage) -> Path:
        with _failing():
            return self._catalogue.supplies.environments.interpreter(self.environment(stage))

    def missing_models(self, stage: Stage) -> tuple[str, ...]:
        """Those that have to be fetched before it can run."""
        return self._catalogue.supplies.missing_models(self._declaration, stage.used_config)

    def files(self, stage: Stage) -> tuple[tuple[ModelFiles, ...], tuple[NamedPicture, ...]]:
        """Models, verified at this moment, and pictures."""
        return self._models(stage), self._named_pictures(stage) if self._pictures is None else self._pictures

    def _models(self, stage: Stage) -> tuple[ModelFiles, ...]:
        with _failing():
            return self._catalogue.supplies.models(self._declaration, stage.used_config)

    def _named_pictures(self, stage: Stage) -> tuple[NamedPicture, ...]:
        with _failing():
            return self._catalogue.pictures(stage.pipeline, stage.used_config)

    def fingerprint(self, stage: Stage) -> str | None:
        """None where a model, a picture or the environment is missing now; the attempt says so."""
        self._pictures = None
        try:
            self._pictures = self._named_pictures(stage)
            models, interpreter = self._models(stage), self.interpreter(stage)
        except StageFailed:
            return None
        return fingerprint(
            video=self._job.video,
            pipeline=stage.pipeline,
            version=self._declaration.version,
            code=self._catalogue.code_of(stage.pipeline),
            config=stage.used_config,
            models=models,
            pictures=self._pictures,
            earlier=self.earlier,
            max_lost_frames=self._settings.max_lost_frames,
            interpreter=interpreter,
        )


@contextmanager
def _failing() -> Iterator[None]:
    """What was there at the submission and is not there now fails the stage."""
    try:
        yield
    except Refused as refusal:
        raise StageFailed(refusal.message, code=refusal.code, hint=refusal.hint) from refusal
