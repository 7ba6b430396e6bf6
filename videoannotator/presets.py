"""The presets that come with the program: one YAML file each in `presets/`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from videoannotator.errors import FieldProblem, InvalidConfig, Refused, there_are
from videoannotator.jobs import Preset
from videoannotator.settings import bundled

DEFAULT_PRESET = "quick"


def builtin_presets(folder: Path | None = None) -> dict[str, Preset]:
    """
    Presets by name, in the order of their names.

    Raises:
        Refused: INVALID_PRESET, a file that breaks the form or names another preset than itself.
    """
    files = sorted((folder or bundled("presets")).glob("*.yaml"))
    return {preset.name: preset for preset in map(_read, files)}


def chosen(
    presets: Mapping[str, Preset], name: str | None, pipelines: tuple[str, ...], config: Mapping[str, dict[str, Any]]
) -> tuple[tuple[str, ...], dict[str, dict[str, Any]]]:
    """
    The pipelines that are asked for and their parameters: those given, over those of the preset.

    Without a name, pipelines alone are no preset's; with neither it is the default one.

    Raises:
        InvalidConfig: PRESET_NOT_FOUND.
    """
    if name is None and pipelines:
        return pipelines, dict(config)
    wanted = name or DEFAULT_PRESET
    if wanted not in presets:
        known, message = tuple(presets), f"No preset is called {wanted!r}."
        raise InvalidConfig((FieldProblem("preset", message, "PRESET_NOT_FOUND", there_are(wanted, known), known),))
    preset = presets[wanted]
    picked = pipelines or tuple(preset.pipelines)
    merged = {pipeline: values for pipeline, values in preset.pipelines.items() if pipeline in picked and values}
    for pipeline, values in config.items():
        merged[pipeline] = merged.get(pipeline, {}) | values
    return picked, merged


def _read(file: Path) -> Preset:
    try:
        preset = msgspec.yaml.decode(file.read_bytes(), type=Preset)
    except msgspec.MsgspecError as exc:
        raise Refused(f"{file} is no preset: {exc}.", code="INVALID_PRESET") from exc
    if preset.name != file.stem:
        hint = "File and preset have the same name."
        raise Refused(f"{file} holds the preset {preset.name!r}.", hint=hint, code="INVALID_PRESET")
    return preset
