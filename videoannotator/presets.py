"""The presets that come with the program: one YAML file each in `presets/`."""

from pathlib import Path

import msgspec

from videoannotator.errors import Refused
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


def _read(file: Path) -> Preset:
    try:
        preset = msgspec.yaml.decode(file.read_bytes(), type=Preset)
    except msgspec.MsgspecError as exc:
        raise Refused(f"{file} is no preset: {exc}.", code="INVALID_PRESET") from exc
    if preset.name != file.stem:
        hint = "File and preset have the same name."
        raise Refused(f"{file} holds the preset {preset.name!r}.", hint=hint, code="INVALID_PRESET")
    return preset
