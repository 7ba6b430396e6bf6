"""`pipelines`, `presets`, `version`: what there is to choose from. They print and change nothing."""

import argparse
import sys
from typing import Any


def add_to(commands: Any) -> None:
    pipelines = commands.add_parser("pipelines", help="list the pipelines, or show the parameters of one")
    pipelines.add_argument("name", nargs="?", help="a pipeline to show in full")
    pipelines.add_argument("--json", action="store_true", help="print the declarations as JSON")
    pipelines.set_defaults(run=show_pipelines)
    presets = commands.add_parser("presets", help="list the presets")
    presets.add_argument("--json", action="store_true", help="print the presets as JSON")
    presets.set_defaults(run=show_presets)
    commands.add_parser("version", help="print the version").set_defaults(run=show_version)


def show_pipelines(given: argparse.Namespace) -> int:
    from videoannotator.pipelines.catalogue import Catalogue
    from videoannotator.settings import load_settings

    catalogue = Catalogue.of(load_settings())
    chosen = [catalogue.get(given.name)] if given.name else list(catalogue)
    if given.json:
        _say_json(chosen)
    elif given.name:
        _show_one(chosen[0])
    else:
        for pipeline in chosen:
            _say(f"{pipeline.name:<20} {pipeline.display_name}. {_first_sentence(pipeline.description)}")
            if why := catalogue.lack(pipeline.name):
                _say_lack("not available", why)
    return 0


def show_presets(given: argparse.Namespace) -> int:
    from videoannotator.pipelines.catalogue import Catalogue
    from videoannotator.presets import builtin_presets
    from videoannotator.settings import load_settings

    presets, catalogue = builtin_presets(), Catalogue.of(load_settings())
    if given.json:
        _say_json(list(presets.values()))
        return 0
    for preset in presets.values():
        _say(f"{preset.name:<20} {preset.version}: {_first_sentence(preset.description)}")
        _say(f"{'':<20} runs {', '.join(preset.pipelines)}")
        _say(f"{'':<20} {preset.cost.strip()}")
        for lack in catalogue.lacks(preset.pipelines, preset.pipelines):
            _say_lack("not yet", lack)
    return 0


def _say_lack(how: str, lack: Any) -> None:
    for line in (f"{how}: {lack.message}", *lack.fix.splitlines()):
        _say(f"{'':<20} {line}")


def show_version(_: argparse.Namespace) -> int:
    from videoannotator import __version__

    _say(f"videoannotator {__version__}")
    return 0


def _show_one(pipeline: Any) -> None:
    _say(f"{pipeline.name} {pipeline.version}: {pipeline.display_name}")
    _say(pipeline.description.strip())
    _say("\nParameters")
    for parameter in pipeline.parameters:
        allowed = ", ".join(choice.value for choice in parameter.enum) or _range(parameter)
        _say(f"  {parameter.name} = {_plain(parameter.default)}  ({parameter.type}{'; ' + allowed if allowed else ''})")
        _say(f"      {' '.join(parameter.description.split())}")
    _say("\nWrites")
    for output in pipeline.outputs:
        _say(f"  {output.name}  {output.description}")
    _say("\nKnown limits")
    for limit in pipeline.known_limits:
        _say(f"  - {limit}")


def _range(parameter: Any) -> str:
    if parameter.min is None and parameter.max is None:
        return str(parameter.unit)
    low = "" if parameter.min is None else f"{parameter.min:g}"
    high = "" if parameter.max is None else f"{parameter.max:g}"
    return f"{low}..{high} {parameter.unit}".rstrip()


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _first_sentence(text: str) -> str:
    return " ".join(text.split()).split(". ")[0].rstrip(".") + "."


def _say_json(value: Any) -> None:
    import msgspec

    _say(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
