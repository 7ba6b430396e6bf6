"""`videoannotator annotate`: what its words mean. The work itself is in `run.py`, the screen in `progress.py`."""

import argparse
from pathlib import Path
from typing import Any


def add_to(commands: Any) -> None:
    parser = commands.add_parser(
        "annotate",
        help="annotate videos on this machine, without a server",
        description="Annotate videos; the results of clip.mp4 go to OUTPUT/clip/. Exit code 0: all done, 1: some "
        "failed, 2: the call cannot be understood, 130: stopped by Ctrl-C.",
    )
    parser.add_argument("videos", nargs="+", type=Path, metavar="VIDEO", help="a video, or a directory of videos")
    parser.add_argument("--preset", help="a named choice of pipelines; see `videoannotator presets` (default quick)")
    parser.add_argument("--pipelines", default="", help="pipelines separated by commas; see `videoannotator pipelines`")
    parser.add_argument(
        "--set", action="append", default=[], metavar="PIPELINE.PARAM=VALUE", help="change a parameter; may be repeated"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("annotations"), help="where results go (default: the folder annotations)"
    )
    parser.add_argument(
        "--browser-copy", action="store_true", help="also make an H.264 copy of videos that browsers do not play"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON line for each video, and nothing else")
    parser.add_argument(
        "--no-cache", action="store_true", help="compute everything, also what was done before; and remember nothing"
    )
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    # Before all else is loaded: there is a core that has nothing to do meanwhile.
    from videoannotator.runner.process import births_ahead

    with births_ahead() as births:
        return _run(given, births)


def _run(given: argparse.Namespace, births: Any) -> int:
    from videoannotator.cli.inputs import find_inputs, on_this_machine, parse_settings
    from videoannotator.cli.progress import display
    from videoannotator.cli.run import annotate
    from videoannotator.pipelines.catalogue import Catalogue
    from videoannotator.settings import load_settings
    from videoannotator.workspace import Selection

    catalogue = Catalogue.of(load_settings())
    selection = Selection(
        cache=not given.no_cache,
        preset=given.preset,
        pipelines=tuple(name.strip() for name in given.pipelines.split(",") if name.strip()),
        config=on_this_machine(parse_settings(given.set, catalogue.type_of), catalogue),
    )
    inputs = find_inputs(given.videos, given.output)
    return annotate(
        inputs,
        selection,
        output=given.output,
        show=display(as_json=given.json),
        browser_copy=given.browser_copy,
        births=births,
    )
