"""The engine below HTTP, as tests give it work."""

from pathlib import Path

from videoannotator.jobs import Job
from videoannotator.workspace import Selection, Workspace


async def submit(workspace: Workspace, clip: Path, *pipelines: str, **config: object) -> Job:
    """The queued job; `config` is that of each of its pipelines."""
    selection = Selection(pipelines=pipelines, config={name: dict(config) for name in pipelines} if config else {})
    (job,) = await workspace.submit(await workspace.admit(clip, clip.name, selection, owns_video=False))
    return job
