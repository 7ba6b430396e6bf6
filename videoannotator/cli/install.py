"""`install`: build, check and remove the environments that some engines run in."""

import argparse
import sys
from typing import Any


def add_to(commands: Any) -> None:
    parser = commands.add_parser(
        "install",
        help="build an environment that some engines need, WhisperX's say",
        description="Without a name: which environments there are. It may be repeated: what is there is used again.",
    )
    parser.add_argument("name", nargs="?", metavar="ENVIRONMENT")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--verify", action="store_true", help="load its libraries, and build nothing")
    what.add_argument("--remove", action="store_true", help="delete it")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    from videoannotator.errors import Refused
    from videoannotator.pipelines.supplies import Supplies
    from videoannotator.settings import load_settings

    settings = load_settings()
    environments = Supplies.of(settings).environments
    if given.name is None:
        if given.verify or given.remove:
            raise Refused("No environment is named.", hint="videoannotator install lists them.", code="MISSING_FIELD")
        for name in environments.names:
            _say(f"{name:<20} {environments.state(name):<10} {environments.path(name)}")
    elif given.remove:
        _say(f"[OK] {given.name} removed" if environments.remove(given.name) else f"{given.name} was not here")
    elif given.verify:
        python = environments.interpreter(given.name)
        environments.check(given.name)
        note = "" if environments.is_of_this_lock(given.name) else "; the lock file has changed since it was built"
        _say(f"[OK] {given.name}: {python}{note}")
    else:
        environments.install(given.name, offline=settings.offline, say=_say)
        _say(f"[OK] {given.name}: {environments.interpreter(given.name)}")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
