"""Makes pipelines of the modules in `tests/misbehaving/`, so that a whole engine can run them like its own."""

from pathlib import Path

_CODE = """\
import sys

sys.path.append({top!r})

from tests.misbehaving.{name} import run
"""
_YAML = """\
name: {name}
version: "1.0.0"
display_name: {name}
family: test
description: A pipeline of the tests.
needs: video
engines: [{{name: none, description: does nothing useful}}]
parameters:
  - {{name: steps, type: integer, label: Steps, description: pieces of work, default: 1, min: 1}}
  - {{name: step_seconds, type: number, label: Step, description: length of one, default: 0, min: 0, unit: s}}
{more}  - {{name: pids, type: string, label: Pids, description: file that the processes are named in, default: {pids}}}
outputs:
  - {{name: out.json, format: json, role: annotations, media_type: application/json, description: an empty object}}
resources: {{memory_mb: 50, realtime_factor: 1}}
warm: {warm}
known_limits: []
"""
_BATCH = "  - {name: batch_size, type: integer, label: Batch, description: frames at once, default: 8, min: 1}\n"
_MODULES = Path(__file__).parent / "misbehaving"


def declare(folder: Path, *names: str, warm: bool = False) -> Path:
    """A directory for the setting `pipeline_dirs`, with the named modules; `folder/pids` names their processes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.py").write_text(_CODE.format(name=name, top=str(Path(__file__).parents[1])))
        more = _BATCH if "batch_size" in (_MODULES / f"{name}.py").read_text() else ""
        (folder / f"{name}.yaml").write_text(
            _YAML.format(name=name, pids=folder / "pids", more=more, warm=str(warm).lower())
        )
    return folder
