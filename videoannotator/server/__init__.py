"""
The HTTP API: `app.py` puts it together, one file for each noun of the API has its routes, `run.py` starts and stops it.

Nothing of it is imported before `serve` is called: the command line must stay fast.
"""

from videoannotator.settings import Settings


def serve(settings: Settings) -> int:
    """
    Serve until SIGTERM or SIGINT. Returns the exit code: 0 stopped as asked, 1 the worker ended by itself, 2 it could
    not begin (port or storage directory in use, storage trouble); then one line on standard error says why.
    """
    from videoannotator.server.run import run

    return run(settings)
