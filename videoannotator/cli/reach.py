"""How a command reaches what it works on: the storage directory itself, or the server that holds it."""

import argparse
from pathlib import Path
from typing import Any


def add_server_to(parser: Any) -> None:
    parser.add_argument("--server", metavar="URL", help="the server's address (default: the settings host and port)")
    parser.add_argument("--key", help="a key of the server's (default: VIDEOANNOTATOR_API_KEY)")


def add_storage_to(parser: Any) -> None:
    parser.add_argument("--storage-dir", type=Path, help="where database, videos and results live")


def settings_of(given: argparse.Namespace) -> Any:
    """The `Settings`, with what the command line said."""
    from videoannotator.settings import load_settings

    return load_settings({"storage_dir": getattr(given, "storage_dir", None)})


def client_of(given: argparse.Namespace, settings: Any) -> Any:
    """A `Client`, to be used in a `with`."""
    from videoannotator.client import Client

    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(settings.host, settings.host)  # noqa: S104
    return Client(given.server or f"http://{host}:{settings.port}", key=given.key or settings.api_key)
