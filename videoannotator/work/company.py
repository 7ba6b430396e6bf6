"""Which stages of a job share one decoder: those that read its frames and can be expected to run at the same time."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from videoannotator.jobs import Stage, Video
from videoannotator.media.shared import Sharing
from videoannotator.pipelines.catalogue import Catalogue
from videoannotator.runner.process import Runner
from videoannotator.settings import Settings

LEAST_PIXELS = 0.5e9
"""Of all frames together. To decode fewer takes less than a second, and to wait for each other takes as long."""


class Company:
    """
    `members` in this order: the first one gives. Made for one run of a job; a second attempt of a stage is alone, since
    the others are far ahead by then.
    """

    def __init__(self, members: Sequence[str] = (), *, address: Path = Path(), most_bytes: int = 0) -> None:
        self._coming = list(members)
        self._here: set[str] = set()
        self._told: set[str] = set()
        self._address = address
        self._most_bytes = most_bytes

    def enter(self, pipeline: str) -> None:
        """It has its slot: its process begins in a moment."""
        self._here.add(pipeline)

    def sharing(self, pipeline: str, *, free_slots: int) -> Sharing | None:
        """
        What its stage is told when its process begins; None where it decodes for itself.

        Those that have a slot are waited for, or will find one at once: so many are free.
        """
        if pipeline not in self._coming or pipeline in self._told:
            return None
        gives = pipeline == self._coming[0]
        others = self._coming[1:] if gives else self._coming[:1]
        here = sum(other in self._here for other in others)
        expected = here + min(free_slots, len(others) - here)
        if not expected:
            return None
        self._told.add(pipeline)
        return Sharing(address=str(self._address), gives=gives, takers=expected, most_bytes=self._most_bytes)

    def withdraw(self, pipeline: str) -> None:
        """It will have no process."""
        if pipeline in self._coming and pipeline not in self._told:
            self._coming.remove(pipeline)


@asynccontextmanager
async def company(
    stages: Sequence[Stage], video: Video, *, catalogue: Catalogue, settings: Settings, runner: Runner
) -> AsyncIterator[Company]:
    """Of the stages that are about to run. Raises StorageTrouble where there is no temporary folder to meet in."""
    members = _members(stages, video, catalogue, settings)
    if len(members) < 2:
        yield Company()
        return
    async with runner.scratch() as folder:
        yield Company(members, address=folder / "frames", most_bytes=settings.shared_frames_bytes)


def _members(stages: Sequence[Stage], video: Video, catalogue: Catalogue, settings: Settings) -> list[str]:
    if settings.shared_frames_bytes <= 0 or not hasattr(os, "memfd_create"):
        return []
    if video.width * video.height * video.frame_rate * video.duration_seconds < LEAST_PIXELS:
        return []
    declared = [catalogue.get(stage.pipeline) for stage in stages if stage.retry_at is None]
    readers = [pipeline for pipeline in declared if pipeline.frames is not None and not pipeline.after]
    # Who reads all frames is the quickest: it does little with each, and holds up nobody.
    readers.sort(key=lambda pipeline: pipeline.frames != "all")
    return [pipeline.name for pipeline in readers[: settings.stage_slots]]
