"""
What a pipeline is, and how to add one.

A pipeline is two files side by side in this folder: `NAME.yaml` declares it (the only source of its parameters,
defaults, ranges, choices, outputs and known limits), and `NAME.py` has the code:

    def run(stage: Stage) -> Result: ...

`run` is called in a process of its own that may be killed at any moment. It imports its model library inside the
function, reads `stage.video_path`, writes files into `stage.output_folder`, calls `stage.report.progress` often (it is
cheap) and raises to fail: `StageFailed` for what the user can understand, anything else counts as a bug. There is
nothing to clean up; who breaks off half-way may keep what there is with `stage.keep_partial`. A function `prepare()`
beside it, where there is one, imports what `run` will need; it is called while a process waits for its job. Work of
more than some minutes should be kept in `stage.chunks()`, so that an attempt that was interrupted is continued:
`looking.py` does it for whatever looks at frames one by one. The same input, parameters and versions must give the same
bytes: no clock, no ids, no paths in what it writes.
`tests/pipelines/test_pipelines.py` holds every pipeline to this.

What it needs beside its code stands in the declaration, with the engine that needs it: `modules` of this environment,
or another `environment`; `models` of the model catalogue, which arrive verified as `stage.models`. A folder of
pipelines from elsewhere may bring both: `models/*.yaml`, and `environments/NAME/` with pyproject.toml and uv.lock.
`after` names pipelines of the same job whose files it uses; they arrive as `stage.earlier`. Pictures in a directory
that a parameter names (`holds: pictures`) arrive with their hashes as `stage.pictures`.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from videoannotator.jobs import Interval, Ledger, ModelFiles, ModelUsed, Named, NamedPicture, Output, Video
from videoannotator.media.shared import Sharing
from videoannotator.pipelines.chunks import Chunks

P = TypeVar("P")


class Report(Protocol):
    """How a running stage makes itself heard. Both calls are cheap: progress is thinned out before it is sent."""

    def progress(self, done_seconds: float) -> None:
        """How far on the video's timeline the work is, in seconds, up to `video.duration_seconds`."""

    def log(self, level: Literal["debug", "info", "warning", "error"], message: str) -> None:
        """A sentence for the job's log."""


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """What a pipeline is given."""

    video_path: Path
    video: Video
    config: dict[str, Any]
    """Every declared parameter, checked and complete."""

    output_folder: Path
    threads: int
    max_lost_frames: float
    report: Report
    models: tuple[ModelFiles, ...] = ()
    """What the declaration's engine needs with these parameters, and what it welcomes as far as that is here."""

    pictures: tuple[NamedPicture, ...] = ()
    """Those in the directories that parameters name; read them with `pictures.content`."""

    earlier: Mapping[str, Path] = {}
    """Files of the pipelines that the declaration's `after` names, by name; of those that ended well in this job."""

    chunks_folder: Path | None = None
    """Where `chunks` are kept from one attempt to the next; None where they need not outlive the process."""

    chunk_seconds: float = 60.0

    sharing: Sharing | None = None
    """For `Frames`: which stages of the job share one decoder; None where this one decodes for itself."""

    def keep_partial(self, outputs: Iterable[Output]) -> None:
        """
        The files are whole and hold what was found until now; the last thing to do before what broke off the work is
        raised. They are kept, marked in their names, if no other attempt follows.
        """
        for output in outputs:
            (self.output_folder / output.name).rename(self.output_folder / output.partial.name)

    def chunks(self) -> Chunks:
        """What an interrupted attempt at this very stage has kept, and where to keep more. Ask once."""
        return Chunks(self.chunks_folder, self.chunk_seconds)

    def model(self, name: str) -> ModelFiles | None:
        """A model by its name in the catalogue; None only for one that the declaration calls welcome."""
        return next((model for model in self.models if model.name == name), None)

    def parameters(self, kind: type[P]) -> P:
        """The configuration as a struct of the pipeline's own; its fields are the declared parameters."""
        return msgspec.convert(self.config, kind)


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What `run` returns when the files are written."""

    annotations: int
    """How many scenes, faces, turns … were found."""

    outputs: tuple[Output, ...]
    engine: str
    libraries: tuple[str, ...]
    """Distribution names of what computed; their versions are looked up by the runner."""

    ledger: Ledger
    intervals: tuple[Interval, ...] = ()
    models: tuple[ModelUsed, ...] = ()
    named: tuple[Named, ...] = ()
    """Tracks that were recognised on `stage.pictures`, or were not."""

    warnings: tuple[str, ...] = ()
    not_shown: tuple[str, ...] = ()
    """What the Viewer would show wrongly, a sentence each; what breaks its rules for files is found without this."""

    device: str = "cpu"
