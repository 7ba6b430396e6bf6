"""
The HTTP API: `app.py` puts it together, one file for each noun of the API has its routes, `run.py` starts and stops it.

Nothing of it is imported before `serve` is called: the command line must stay fast.
"""

import sys

from videoannotator.settings import Settings


def serve(settings: Settings) -> int:
    """
    Serve until SIGTERM or SIGINT. Returns the exit code: 0 stopped as asked, 1 the worker ended by itself, 2 it could
    not begin (port or storage directory in use, storage trouble); then one line on standard error says why.
    """
    _import_structlog_without_rich()
    from videoannotator.server.run import run

    return run(settings)


def _import_structlog_without_rich() -> None:
    """structlog loads rich for tracebacks in colour, which a server's log does not have: 170 of 850 ms at start."""
    if "rich" in sys.modules or "structlog" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # an import of it fails now, which structlog is made for
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]
