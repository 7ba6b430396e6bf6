"""A job once more: a new one on the same video, which keeps what is finished and still good of the old one."""

from videoannotator.artifacts import Artifacts, link_or_copy
from videoannotator.errors import Conflict
from videoannotator.jobs import Job, NewJob, NewStage, Stage, StageStatus, new_id
from videoannotator.pipelines.catalogue import Catalogue


def again(old: Job, catalogue: Catalogue, artifacts: Artifacts, *, from_scratch: bool) -> NewJob:
    """Raises Conflict: JOB_NOT_FINISHED, or JOB_SUCCEEDED where nothing is left to do again."""
    if not old.status.is_final:
        raise Conflict(f"Job {old.id} is {old.status}.", hint="Cancel it first.", code="JOB_NOT_FINISHED")
    if len(_finished(old)) == len(old.stages) and not _perhaps_undelivered(old) and not from_scratch:
        hint = 'Send {"from_scratch": true} to run it again all the same.'
        raise Conflict(f"Every stage of job {old.id} is completed.", hint=hint, code="JOB_SUCCEEDED")
    name = new_id("job")
    keep = () if from_scratch else _still_good(old, catalogue)
    return NewJob(
        id=name,
        video=old.video,
        video_path=artifacts.video_folder(name) / old.video_path.name if old.owns_video else old.video_path,
        owns_video=old.owns_video,
        stages=tuple(_stage_again(stage, carried_over=stage.pipeline in keep) for stage in old.stages),
        config=old.config,
        preset=old.preset,
        preset_content=old.preset_content,
        tags=old.tags,
        priority=old.priority,
        batch_id=old.batch_id,
        owner=old.owner,
        retry_of=old.id,
        cache=old.cache and not from_scratch,
        errands=old.errands,
    )


def bring_video(old: Job, new: NewJob) -> None:
    """Put the video where the new job looks for it. Raises Conflict (VIDEO_GONE)."""
    if old.awaits_video:
        return
    if not old.video_path.is_file():
        raise Conflict(f"The video of job {old.id} is gone.", hint="Submit it again.", code="VIDEO_GONE")
    if new.owns_video:
        new.video_path.parent.mkdir(mode=0o700, parents=True)
        link_or_copy(old.video_path, new.video_path)


def _still_good(old: Job, catalogue: Catalogue) -> tuple[str, ...]:
    """What is finished, but for what did without the files of a stage that runs now."""
    done = (StageStatus.COMPLETED, StageStatus.SKIPPED)
    runs = {stage.pipeline for stage in old.stages if stage.status not in done}
    while more := {name for name in _finished(old) if name not in runs and runs & catalogue.after(name)}:
        runs |= more
    return tuple(name for name in _finished(old) if name not in runs)


def _finished(job: Job) -> tuple[str, ...]:
    return tuple(stage.pipeline for stage in job.stages if stage.status is StageStatus.COMPLETED)


def _perhaps_undelivered(job: Job) -> bool:
    """Results were to go elsewhere, and something about the job was not as it should be."""
    return job.outcome == "partial" and bool(job.errands.output_directory or job.errands.db_location)


def _stage_again(stage: Stage, *, carried_over: bool) -> NewStage:
    skipped = stage.error if stage.status is StageStatus.SKIPPED else None
    return NewStage(stage.pipeline, stage.config, skipped, carried_over)
