"""
The whole engine on a few videos, without a server.

The queue, the worker and the stage processes are the server's own. They live in a hidden folder beside the results,
which goes when the command ends; results appear in their place whole or not at all.
"""

import asyncio
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path

from videoannotator.artifacts import MANIFEST, storage_trouble
from videoannotator.cli.inputs import Input
from videoannotator.cli.progress import Display, Ending
from videoannotator.errors import Conflict, Refused, VideoAnnotatorError
from videoannotator.jobs import Event, Job, JobStatus, NewJob, StageStatus, new_id
from videoannotator.logs import configure_for_a_command
from videoannotator.runner.births import Births
from videoannotator.settings import Settings, load_settings
from videoannotator.work.cache import Cache
from videoannotator.workspace import Selection, Workspace, is_in_use

EXIT_SOME_FAILED = 1
EXIT_INTERRUPTED = 130
_SCRATCH = ".videoannotator-"
CACHE = ".annotations-cache"
"""The folder beside the results in which they are remembered."""

_ENDINGS = frozenset({"job.complete", "job.error", "job.cancelled"})


def annotate(
    inputs: Sequence[Input],
    selection: Selection,
    *,
    output: Path,
    show: Display,
    browser_copy: bool = False,
    births: Births | None = None,
) -> int:
    """
    Annotate every video and return the exit code. `births`: as `Workspace.open` takes them.

    Raises:
        Refused: the selection cannot be run on any video; nothing was begun.
        StorageTrouble: the output cannot be written; nothing was begun.
    """
    configure_for_a_command()
    with _scratch(output) as folder, show:
        usual = load_settings()
        places = {"models_dir": usual.models_folder, "environments_dir": usual.environments_folder}
        # Whoever sits here may read what they may read: directories that parameters name may lie anywhere.
        here = {"storage_dir": folder, "browser_copy": browser_copy, "data_roots": [Path("/")]}
        settings = load_settings(here | places)
        # Beside the results, where whoever removes them sees it; and not linked to them, since they may be edited.
        cache = Cache(output / CACHE, settings.cache_bytes, links_out=False) if settings.cache == "on" else None
        return asyncio.run(_Run(inputs, selection, show).work(settings, cache, births))


class _Run:
    def __init__(self, inputs: Sequence[Input], selection: Selection, show: Display) -> None:
        self._inputs = inputs
        self._selection = selection
        self._show = show
        self._waiting: dict[str, Input] = {}
        self._all_well = True

    async def work(self, settings: Settings, cache: Cache | None, births: Births | None) -> int:
        async with (
            _interrupts() as interrupted,
            Workspace.open(settings, cache=cache, soon=self._selection, births=births) as workspace,
        ):
            self._workspace = workspace
            await workspace.check(self._selection)
            after = await workspace.store.last_seq()
            await self._submit()
            following = asyncio.create_task(self._follow(after), name="follow")
            stop = asyncio.create_task(interrupted.wait(), name="interrupt")
            broken = asyncio.create_task(workspace.failed.wait(), name="worker watch")
            trouble = asyncio.create_task(workspace.worker.in_trouble.wait(), name="storage watch")
            watched = {following, stop, broken, trouble}
            pausing = asyncio.create_task(_tell_of_pauses(workspace), name="pauses")
            try:
                await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
                if stop.done() and not following.done():
                    await self._cancel_all()
                    await following
                if (why := workspace.worker.trouble) and not following.done():
                    raise why
                if broken.done() and not following.done():
                    raise VideoAnnotatorError("The worker ended by itself.") from workspace.failure
                if following.done():
                    following.result()
            finally:
                for task in (*watched, pausing):
                    task.cancel()
                await asyncio.wait({*watched, pausing})
            if interrupted.is_set():
                return EXIT_INTERRUPTED
            return 0 if self._all_well else EXIT_SOME_FAILED

    async def _submit(self) -> None:
        admitted: list[NewJob] = []
        for one in self._inputs:
            job_id = new_id("job")
            try:
                job = await self._workspace.admit(
                    one.video.resolve(), one.video.name, self._selection, owns_video=False, job_id=job_id
                )
            except Refused as refusal:
                self._end(Ending.refused(one, refusal))
                continue
            admitted.append(job)
            self._waiting[job_id] = one
        if admitted:
            self._show.begin(admitted)
            await self._workspace.submit(*admitted, batch_name="annotate" if len(admitted) > 1 else None)

    async def _follow(self, after: int) -> None:
        if not self._waiting:
            return
        async with aclosing(self._workspace.store.follow(after=after)) as events:
            async for event in events:
                await self._take(event)
                if not self._waiting:
                    return

    async def _take(self, event: Event) -> None:
        if event.job_id is None or event.job_id not in self._waiting:
            return
        if event.type == "job.update":
            self._show.update(event.job_id, event.data)
        elif event.type == "job.log":
            self._show.log(event.data)
        elif event.type in _ENDINGS:
            one = self._waiting[event.job_id]
            job = await self._workspace.store.get(event.job_id)
            self._end(await asyncio.to_thread(self._deliver, job, one), job.id)
            del self._waiting[event.job_id]

    def _deliver(self, job: Job, one: Input) -> Ending:
        """Put a job's results into their place; of one that failed what there is, where no earlier result would go."""
        is_part = job.status is JobStatus.FAILED and (self._workspace.artifacts.results(job.id) / MANIFEST).is_file()
        if job.status is not JobStatus.COMPLETED and (one.output.exists() or not is_part):
            return Ending.of(job, one, self._workspace.catalogue, delivered=False, log_tails=self._log_tails(job))
        try:
            _replace(self._workspace.artifacts.results(job.id), one.output)
        except OSError as exc:
            return Ending.refused(one, storage_trouble(exc, one.output))
        return Ending.of(job, one, self._workspace.catalogue, delivered=True, log_tails=self._log_tails(job))

    def _log_tails(self, job: Job) -> dict[str, tuple[str, ...]]:
        failed = (s.pipeline for s in job.stages if s.status is StageStatus.FAILED)
        return {pipeline: _tail(self._workspace.artifacts.log(job.id, pipeline)) for pipeline in failed}

    def _end(self, ending: Ending, job_id: str | None = None) -> None:
        self._all_well = self._all_well and ending.is_well
        self._show.end(ending, job_id)

    async def _cancel_all(self) -> None:
        for job_id in list(self._waiting):
            try:
                await self._workspace.cancel(job_id)
            except Conflict:
                continue  # it ended on its own just now


async def _tell_of_pauses(workspace: Workspace) -> None:
    """A disk that is nearly full lets nothing begin; who waits must know for what. On standard error, once each."""
    told = None
    while True:
        if (why := workspace.worker.gate.low_disk) is not told:
            sys.stderr.write(f"[WARNING] {why}\n" if why else "[OK] There is space again; it goes on.\n")
            told = why
        await asyncio.sleep(1)


@asynccontextmanager
async def _interrupts() -> AsyncIterator[asyncio.Event]:
    """An event that Ctrl-C and SIGTERM set, instead of tearing the loop apart."""
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, asked.set)
    try:
        yield asked
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


@contextmanager
def _scratch(output: Path) -> Iterator[Path]:
    """A hidden folder beside the results, so that they can be moved into place; what killed runs left is cleared."""
    made = not output.exists()
    try:
        output.mkdir(parents=True, exist_ok=True)
        for left in output.glob(f"{_SCRATCH}*"):
            if not is_in_use(left):
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=output))
    except OSError as exc:
        raise storage_trouble(exc, output) from exc
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if made and not any(output.iterdir()):
            output.rmdir()


def _replace(results: Path, target: Path) -> None:
    """Move a folder of results to its place; an earlier result there goes once the new one stands."""
    earlier = results.with_name(f"{results.name}.earlier")
    if target.exists():
        target.rename(earlier)
    results.rename(target)
    shutil.rmtree(earlier, ignore_errors=True)


def _tail(log: Path, lines: int = 5) -> tuple[str, ...]:
    if not log.is_file():
        return ()
    with log.open("rb") as content:
        content.seek(max(0, log.stat().st_size - 4096))
        return tuple(content.read().decode(errors="replace").splitlines()[-lines:])
