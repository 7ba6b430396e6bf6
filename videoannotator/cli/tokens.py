"""
`tokens`: the keys to the API. They are made in the storage directory itself, which is the way back in for who lost the
last one; where a server holds it, that server is asked with an administrator's key.
"""

import argparse
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from videoannotator.cli.reach import add_server_to, add_storage_to, client_of, settings_of

_LONGEST_DAYS = 3660


def add_to(commands: Any) -> None:
    tokens = commands.add_parser("tokens", help="list, make and revoke keys to the API")
    actions = tokens.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="every key that was made, without its secret")
    making = actions.add_parser("make", help="make a key; its secret is printed this once")
    making.add_argument("name", help="who or what it is for")
    making.add_argument("--scope", choices=("read", "write", "admin"), default="write", help="default: write")
    making.add_argument("--days", type=float, metavar="DAYS", help="days until it expires (default: never)")
    revoking = actions.add_parser("revoke", help="refuse a key from now on")
    revoking.add_argument("id", help="as `tokens list` shows it")
    for action, run in ((listing, list_tokens), (making, make_token), (revoking, revoke_token)):
        add_storage_to(action)
        add_server_to(action)
        action.set_defaults(run=run)


def list_tokens(given: argparse.Namespace) -> int:
    tokens = _ask(given, "tokens")
    for token in tokens:
        _say(f"{token['id']}  {token['scope']:<6}{_state(token):<30}{token['name']}")
    return 0


def make_token(given: argparse.Namespace) -> int:
    from videoannotator.errors import Refused

    if given.days is not None and not 0 < given.days <= _LONGEST_DAYS:
        raise Refused(f"A key lasts up to {_LONGEST_DAYS} days.", hint="Say --days DAYS.", code="OUT_OF_RANGE")
    made = _ask(given, "make_token", given.name, given.scope, given.days)
    _say(f"Key {made['id']}, shown this once: {made['secret']}")
    return 0


def revoke_token(given: argparse.Namespace) -> int:
    _ask(given, "revoke_token", given.id)
    _say(f"[OK] {given.id} is refused from now on.")
    return 0


def _ask(given: argparse.Namespace, verb: str, *words: Any) -> Any:
    """The same verb of the server that holds the directory, or of the directory itself."""
    import asyncio

    from videoannotator.workspace import is_in_use

    settings = settings_of(given)
    if given.server or is_in_use(settings.storage_dir):
        with client_of(given, settings) as client:
            return getattr(client, verb)(*words)
    return asyncio.run(_alone(settings.storage_dir, verb, *words))


async def _alone(folder: Path, verb: str, *words: Any) -> Any:
    import msgspec

    from videoannotator.server.auth import secret_hash
    from videoannotator.server.tokens import describe, new_token
    from videoannotator.store.sqlite import SqliteStore

    async with SqliteStore.open(folder) as store:
        if verb == "tokens":
            return [msgspec.to_builtins(describe(token)) for token in await store.tokens()]
        if verb == "revoke_token":
            return await store.revoke_token(*words)
        name, scope, days = words
        expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
        token, secret = new_token(name, scope, expires_at)
        await store.add_token(token, secret_hash(secret))
        return msgspec.to_builtins(describe(token)) | {"secret": secret}


def _state(token: dict[str, Any]) -> str:
    if "revoked_at" in token:
        return f"revoked {token['revoked_at'][:10]}"
    if "expires_at" not in token:
        return "does not expire"
    ended = datetime.fromisoformat(token["expires_at"]) <= datetime.now(UTC)
    return f"{'expired' if ended else 'expires'} {token['expires_at'][:16].replace('T', ' ')} UTC"


def _say(line: str) -> None:
    from videoannotator.logs import ascii_only

    sys.stdout.write(ascii_only(line) + "\n")
