"""
The stage process: `python -m videoannotator.runner.child PARENT`. The conversation is told in `__init__.py`.

It starts for nearly every stage, so it loads little: no asyncio, no YAML, nothing of the server.
"""

import gc
import math
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from stat import S_ISREG
from typing import Literal, NoReturn

from videoannotator.errors import StageEnded, StageFailed, VideoAnnotatorError
from videoannotator.formats import viewer
from videoannotator.jobs import Ledger, Output, Provenance
from videoannotator.pipelines.contract import Result, Stage
from videoannotator.runner import frames, leftovers, sandbox
from videoannotator.runner.dwelling import Dwelling
from videoannotator.runner.entry import Mouth, end_with_group, flush, leave, load, plain, settle_in
from videoannotator.runner.failures import failed
from videoannotator.runner.messages import Done, Failed, Log, Order, Prepare, Progress, Start, Waiting

MANIFEST = "manifest.json"
"""The job's own."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Names become addresses, entries of a ZIP and files on other people's disks."""

REPORT_SECONDS = 0.1
DESCENDANTS_SECONDS = 1.0


class Reporter:
    """The `Report` of a running stage: thins progress out to ten messages a second, and keeps the last for `flush`."""

    def __init__(self, mouth: Mouth, total_seconds: float) -> None:
        self.mouth = mouth
        self._total = total_seconds
        self._said_at = -math.inf
        self._unsaid: float | None = None

    def progress(self, done_seconds: float) -> None:
        self._unsaid = done_seconds
        if time.monotonic() - self._said_at >= REPORT_SECONDS:
            self.flush()

    def log(self, level: Literal["debug", "info", "warning", "error"], message: str) -> None:
        self.mouth.say(Log(level, plain(message)))

    def flush(self) -> None:
        done, self._unsaid = self._unsaid, None
        if done is None or not math.isfinite(done):
            return
        self._said_at = time.monotonic()
        self.mouth.say(Progress(min(max(0.0, float(done)), self._total), self._total))


def main(parent: int) -> NoReturn:
    hearing, mouth = settle_in(parent)
    network, dwelling = _Network(), Dwelling()
    start = _first_start(hearing, network)
    network.cut(start.network)
    # Only now a second thread: the network is cut for the thread that asks, and for what it starts.
    coming: SimpleQueue[Start] = SimpleQueue()
    threading.Thread(target=_hear, args=(hearing, coming), name="parent", daemon=True).start()
    while _work(start, mouth, network, dwelling):
        mouth.say(Waiting())
        start = coming.get()
    leave()


def _first_start(hearing: int, network: "_Network") -> Start:
    said: Order | None = frames.read(hearing, Order)
    if isinstance(said, Prepare):
        network.cut(said.network)
        _prepare(said.code)
        said = frames.read(hearing, Start)
    if not isinstance(said, Start):
        leave()
    return said


def _work(start: Start, mouth: Mouth, network: "_Network", dwelling: Dwelling) -> bool:
    """One stage, to its last word. Whether this process is fit for another one."""
    reporter = Reporter(mouth, start.video.duration_seconds)
    threads = threading.active_count()
    try:
        ending = _carry_out(start, network, dwelling, reporter)
    except SystemExit as exc:
        # A pipeline has no business to exit. Without a result its exit status is all there is to tell.
        leave(exc.code if isinstance(exc.code, int) else 1)
    # Here and not only by the server: what threw its environment away is found in the family tree alone, and that falls
    # apart when this process ends.
    leftovers.end_descendants(within_seconds=DESCENDANTS_SECONDS)
    reporter.flush()
    stays = start.stays and isinstance(ending, Done) and threading.active_count() <= threads
    if stays:
        flush()
    _say_last(mouth, ending)
    if stays:
        dwelling.move_out()
    return stays


def _prepare(code: str) -> None:
    """Load what the pipeline will need. What goes wrong here goes wrong again, and is told, when its stage begins."""
    gc.disable()  # what is loaded now stays: looking for garbage in it would cost a tenth of the time
    try:
        function = load(code)
        prepare = getattr(sys.modules[function.__module__], "prepare", None)
        if prepare is not None:
            prepare()
    except Exception:
        traceback.print_exc()
    gc.freeze()
    gc.enable()


def _hear(hearing: int, coming: "SimpleQueue[Start]") -> None:
    # The parent never closes its end while it lives. Read the descriptor, not `sys.stdin`: a thread waiting inside
    # `sys.stdin` holds a lock that crashes Python at its exit.
    while (start := frames.read(hearing, Start)) is not None:
        coming.put(start)
    end_with_group()


def _carry_out(start: Start, network: "_Network", dwelling: Dwelling, reporter: Reporter) -> Done | Failed:
    try:
        dwelling.move_in(start)
        network.tell(start, reporter)
        return _done(start, load(start.code)(_stage(start, reporter)))
    except VideoAnnotatorError as exc:
        retryable = isinstance(exc, StageEnded) and exc.retryable
        return Failed(code=exc.code, message=plain(exc.message), hint=plain(exc.hint), retryable=retryable)
    except Exception as exc:
        traceback.print_exc()
        return failed(start.pipeline, exc)


class _Network:
    """Cut once, before there is a second thread; every stage hears what came of it."""

    def __init__(self) -> None:
        self._is_settled = False
        self._why_not: sandbox.CannotCut | None = None

    def cut(self, policy: Literal["none", "auto", "host"]) -> None:
        if policy == "host" or self._is_settled:
            return
        self._is_settled = True
        try:
            sandbox.cut_network()
        except sandbox.CannotCut as exc:
            self._why_not = exc

    def tell(self, start: Start, reporter: Reporter) -> None:
        """Raises StageFailed where the stage may not run with a network."""
        if self._why_not is None:
            return
        if start.network == "none":
            message = f"{start.pipeline} may not reach the network, and {self._why_not}."
            hint = "Set stage_network to auto to run it all the same."
            raise StageFailed(message, code="NETWORK_NOT_CUT", hint=hint) from self._why_not
        reporter.log("debug", f"{start.pipeline} runs with a network: {self._why_not}.")


def _stage(start: Start, reporter: Reporter) -> Stage:
    return Stage(
        video_path=Path(start.video_path),
        video=start.video,
        config=start.config,
        output_folder=Path(start.output_folder),
        threads=start.threads,
        max_lost_frames=start.max_lost_frames,
        report=reporter,
        models=start.models,
        pictures=start.pictures,
        earlier={name: Path(path) for name, path in start.earlier.items()},
        chunks_folder=Path(start.chunks_folder) if start.chunks_folder else None,
        chunk_seconds=start.chunk_seconds,
        sharing=start.sharing,
    )


def _done(start: Start, result: object) -> Done:
    if not isinstance(result, Result):
        raise TypeError(f"{start.code} returned {type(result).__name__}, not a Result")
    _check_ledger(start, result.ledger)
    _check_outputs(start, result.outputs)
    verdicts = {o.name: viewer.judge(Path(start.output_folder) / o.name) for o in result.outputs if o.in_zip}
    provenance = Provenance(
        pipeline_version=start.pipeline_version,
        engine=result.engine,
        libraries=_versions(result.libraries),
        models=result.models,
        pictures=tuple(picture.used for picture in start.pictures),
        named=result.named,
        device=result.device,
        environment=start.environment,
        ledger=result.ledger,
        known_limits=start.known_limits,
        warnings=result.warnings,
        viewer_tracks={name: verdict.track for name, verdict in verdicts.items() if verdict.track},
        not_shown=result.not_shown
        + tuple(f"{name}: {verdict.trouble}." for name, verdict in verdicts.items() if verdict.trouble),
    )
    return Done(
        annotations=result.annotations, outputs=result.outputs, intervals=result.intervals, provenance=provenance
    )


def _check_ledger(start: Start, ledger: Ledger) -> None:
    if ledger.lost_share > start.max_lost_frames:
        whole = ledger.decoded + ledger.failed
        raise StageFailed(
            f"{ledger.failed} of {whole} frames of {start.video.filename} could not be decoded "
            f"({ledger.lost_share:.1%}); at most {start.max_lost_frames:.1%} may be lost.",
            code="FRAMES_LOST",
            hint="The file is damaged or cut: get a whole one, or raise max_lost_frames.",
        )
    if not ledger.closes:
        raise StageFailed(
            f"{start.pipeline} does not account for every frame of {start.video.filename}: "
            f"expected {'an unknown number' if ledger.expected is None else ledger.expected}, "
            f"decoded {ledger.decoded}, failed {ledger.failed}, "
            f"processed {ledger.processed}, skipped {ledger.skipped}.",
            code="LEDGER_OPEN",
            hint="The file is damaged or cut, or the pipeline left frames out.",
        )


def _check_outputs(start: Start, outputs: Sequence[Output]) -> None:
    """Every declared output is a plain file with a plain name, and nothing else is in the folder."""
    if bad := [
        output.name for output in outputs if not _NAME.fullmatch(output.name) or output.name.lower() == MANIFEST
    ]:
        names = plain(", ".join(map(repr, bad))).translate({ord(char): None for char in "<>&"})
        raise StageFailed(f"{start.pipeline} names a file as none can be named: {names}.", code="OUTPUT_NOT_A_FILE")
    with os.scandir(start.output_folder) as entries:
        found = {entry.name: entry.stat(follow_symlinks=False) for entry in entries}
    declared = {output.name for output in outputs}
    if more := sorted(found.keys() - declared):
        names = plain(", ".join(more))
        raise StageFailed(f"{start.pipeline} wrote what it does not declare: {names}.", code="OUTPUT_NOT_DECLARED")
    if missing := sorted(declared - found.keys()):
        names = plain(", ".join(missing))
        raise StageFailed(f"{start.pipeline} declares and did not write: {names}.", code="OUTPUT_MISSING")
    if odd := sorted(name for name, stat in found.items() if not S_ISREG(stat.st_mode) or stat.st_nlink != 1):
        raise StageFailed(f"{start.pipeline} wrote no plain file: {plain(', '.join(odd))}.", code="OUTPUT_NOT_A_FILE")


def _versions(distributions: Sequence[str]) -> dict[str, str]:
    if not distributions:
        return {}
    from importlib.metadata import version  # costs more than all else here, and not every stage needs it

    return {name: version(name) for name in distributions}


def _say_last(mouth: Mouth, ending: Done | Failed) -> None:
    try:
        mouth.say(ending)
    except frames.FrameTooLong as exc:
        mouth.say(Failed(code="RESULT_TOO_LARGE", message=f"The index of the result does not fit: {exc}."))


if __name__ == "__main__":
    main(int(sys.argv[1]))
