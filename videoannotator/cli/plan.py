"""`plan`: what would run on a video, where, with which models and licences, and what it would cost. Nothing starts."""

import argparse
import sys
from pathlib import Path
from typing import Any

EXIT_CANNOT_RUN = 1


def add_to(commands: Any) -> None:
    parser = commands.add_parser(
        "plan",
        help="say what a preset would do to a video, and what it needs, before anything starts",
        description="Exit code 0: it can run as it is, 1: something is missing, and the commands that bring it are "
        "printed, 2: the call cannot be understood.",
    )
    parser.add_argument("video", type=Path, metavar="VIDEO")
    parser.add_argument("--preset", help="a named choice of pipelines; see `videoannotator presets` (default quick)")
    parser.add_argument("--pipelines", default="", help="pipelines separated by commas; see `videoannotator pipelines`")
    parser.add_argument(
        "--set", action="append", default=[], metavar="PIPELINE.PARAM=VALUE", help="change a parameter; may be repeated"
    )
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    from videoannotator.cli.inputs import on_this_machine, parse_settings
    from videoannotator.errors import InvalidConfig
    from videoannotator.logs import configure_for_a_command
    from videoannotator.machine.devices import Nvml
    from videoannotator.media.probe import probe
    from videoannotator.pipelines.catalogue import Catalogue
    from videoannotator.plan import plan
    from videoannotator.presets import builtin_presets, chosen
    from videoannotator.settings import load_settings

    configure_for_a_command()
    settings = load_settings({"data_roots": [Path("/")]})  # whoever sits here may read what they may read
    catalogue = Catalogue.of(settings)
    pipelines = tuple(name.strip() for name in given.pipelines.split(",") if name.strip())
    config = on_this_machine(parse_settings(given.set, catalogue.type_of), catalogue)
    pipelines, config = chosen(builtin_presets(), given.preset, pipelines, config)
    complete, problems = catalogue.check(pipelines, config)
    if wrong := tuple(problem for problem in problems if problem.code != "PIPELINE_UNAVAILABLE"):
        raise InvalidConfig(wrong)
    made = plan(probe(given.video), complete, catalogue, settings, gpus=len(Nvml().cards()))
    if given.json:
        import msgspec

        _say(msgspec.json.format(msgspec.json.encode(made), indent=2).decode())
    else:
        _show(made)
    return 0 if made.can_run else EXIT_CANNOT_RUN


def _show(plan: Any) -> None:
    video = plan.video
    _say(f"{video.filename}: {video.duration_seconds:.1f} s, {'sound' if video.has_audio else 'no sound'}")
    for stage in plan.stages:
        _say("")
        _show_stage(stage)
    _say("")
    _say(f"In all about {_time(plan.seconds)} on the processor; {plan.free_mb} MB are free.")
    if plan.fetch_mb:
        _say(f"About {plan.fetch_mb} MB have to be fetched first:")
    for fix in plan.fixes:
        _say(f"  {fix}")
    _say("[OK] It can run." if plan.can_run else "[ERROR] It cannot run yet.")


def _show_stage(stage: Any) -> None:
    if stage.skipped:
        _say(f"{stage.pipeline:<20} is skipped: {stage.skipped}")
        return
    gpu = "" if stage.gpu_memory_mb is None else f", GPU memory {stage.gpu_memory_mb} MB where there is a GPU"
    where = f"{stage.engine}, environment {stage.environment}, {stage.device.upper()}"
    _say(f"{stage.pipeline:<20} {where}: about {_time(stage.seconds)}, memory {stage.memory_mb} MB{gpu}")
    if stage.empty:
        _say(f"{'':<20} finds nothing: {stage.empty} Its files will be empty.")
    for model in stage.models:
        use = {True: "commercial use allowed", False: "NOT for commercial use", None: "commercial use unclear"}
        gated = "; gated" if model.gated else ""
        _say(f"{'':<20} model {model.name}: {model.state}, {model.size_mb} MB, {model.licence}, "
             f"{use[model.commercial_use]}{gated}")  # fmt: skip
    for inside in stage.inside:
        _say(f"{'':<20} inside its package: {inside}")
    if stage.lacks:
        _say(f"{'':<20} [ERROR] {stage.lacks}")


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
