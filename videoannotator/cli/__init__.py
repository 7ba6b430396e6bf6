"""
The command line: one file for each group of commands. `serve` and `annotate` work alone.

Exit codes: 0 all done, 1 some failed, 2 the call itself cannot be understood, 130 stopped by Ctrl-C. Libraries are
imported by the command that needs them, so that `--help` answers at once.
"""

import argparse
import sys
from collections.abc import Sequence

from videoannotator import __version__
from videoannotator.cli import (
    annotate,
    backup,
    batch,
    catalogue,
    importing,
    install,
    keeping,
    models,
    plan,
    serve,
    tokens,
)
from videoannotator.errors import InvalidConfig, NotFound, Refused, VideoAnnotatorError

EXIT_FAILED = 1
EXIT_USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = _parser().parse_args(arguments)
    try:
        code: int = given.run(given)
    except InvalidConfig as error:
        for problem in error.problems:
            sys.stderr.write(f"[ERROR] {problem.message} {problem.hint}".rstrip() + "\n")
        return EXIT_USAGE
    except VideoAnnotatorError as error:
        sys.stderr.write(f"[ERROR] {error}\n")
        return EXIT_USAGE if isinstance(error, Refused | NotFound) else EXIT_FAILED
    except BrokenPipeError:
        # The reader of our output left, as `| head` does. Python would complain once more while it closes stdout.
        sys.stderr.close()
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="videoannotator",
        description="Annotate videos of behaviour: scenes, faces, voice activity, in standard formats.",
    )
    parser.add_argument("--version", action="version", version=f"videoannotator {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (annotate, plan, serve, catalogue, models, install, keeping, backup, batch, importing, tokens):
        group.add_to(commands)
    return parser
