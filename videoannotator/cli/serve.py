"""`videoannotator serve`: the HTTP API and the queue behind it."""

import argparse
from pathlib import Path
from typing import Any


def add_to(commands: Any) -> None:
    parser = commands.add_parser("serve", help="serve the HTTP API and work through the queue")
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="TCP port to listen on (default 18011; 0 takes a free one)")
    parser.add_argument("--storage-dir", type=Path, help="where database, videos and results live")
    parser.add_argument(
        "--drain",
        type=float,
        metavar="SECONDS",
        help="what running stages get to end by themselves when the server is told to stop (default 0: put back)",
    )
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    from videoannotator.server import serve
    from videoannotator.settings import load_settings

    settings = load_settings(
        {"host": given.host, "port": given.port, "storage_dir": given.storage_dir, "drain_seconds": given.drain}
    )
    return serve(settings)
