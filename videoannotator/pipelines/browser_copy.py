"""The copy that browsers play, as a stage: killed, watched and accounted for like every other one."""

import errno

from videoannotator.errors import StageFailed
from videoannotator.jobs import Output
from videoannotator.media.copying import MOST_SIDE, Copied, browser_copy
from videoannotator.pipelines.contract import Result, Stage

COPY = Output("browser_copy.mp4", "video", "video/mp4")


def run(stage: Stage) -> Result:
    try:
        copied = browser_copy(
            stage.video_path,
            stage.video,
            stage.output_folder / COPY.name,
            threads=stage.threads,
            max_lost_frames=stage.max_lost_frames,
            on_progress=lambda seconds: stage.report.progress(min(seconds, stage.video.duration_seconds)),
        )
    except OSError as exc:
        if exc.errno != errno.ENOSPC:
            raise
        raise StageFailed("The disk is too full for the copy.", hint="Free some.", code="STORAGE_FULL") from exc
    stage.report.progress(stage.video.duration_seconds)
    return Result(
        annotations=0,
        outputs=(COPY,),
        engine="libx264",
        libraries=("av",),
        ledger=copied.ledger,
        warnings=_warnings(copied),
        not_shown=_not_shown(copied),
    )


def _warnings(copied: Copied) -> tuple[str, ...]:
    if not copied.sound_blocks_lost:
        return ()
    return (f"{copied.sound_blocks_lost} blocks of sound are damaged and silent in the copy.",)


def _not_shown(copied: Copied) -> tuple[str, ...]:
    if not copied.is_smaller:
        return ()
    fit = f"because browsers show {MOST_SIDE} a side: boxes in pixels of the original do not fit it."
    return (f"The copy is {copied.width} x {copied.height} pixels, {fit}",)
