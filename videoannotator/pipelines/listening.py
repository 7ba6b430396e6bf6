"""What everything that listens has in common: how much of the sound may be lost, and what a video without any gives."""

from videoannotator.errors import StageFailed
from videoannotator.jobs import Ledger, Output
from videoannotator.pipelines.contract import Result, Stage


def check(ledger: Ledger, stage: Stage) -> None:
    """Raises StageFailed (TOO_MUCH_SOUND_LOST) where more is missing or damaged than `stage.max_lost_frames` allows."""
    if ledger.lost_share <= stage.max_lost_frames:
        return
    raise StageFailed(
        f"{ledger.lost_share:.0%} of the sound of {stage.video.filename} is missing or damaged.",
        hint="Copy the file again, or raise max_lost_frames.",
        code="TOO_MUCH_SOUND_LOST",
    )


def nothing_heard(stage: Stage, engine: str, outputs: tuple[Output, ...]) -> Result:
    """Of a video without a sound track: nobody is found in it, and the result says why."""
    stage.report.progress(stage.video.duration_seconds)
    return Result(
        annotations=0,
        outputs=outputs,
        engine=engine,
        libraries=(),
        ledger=Ledger(expected=0, decoded=0, failed=0, processed=0, skipped=0),
        warnings=(f"{stage.video.filename} has no sound track: nothing was listened to.",),
    )
