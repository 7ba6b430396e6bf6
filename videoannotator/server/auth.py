"""
Who is calling, and what that caller may do.

A key is `va_` and 256 random bits. The store holds its SHA-256 only, which is enough for a secret that nobody can
guess. Every route names the scope it needs in its `opt` (READ, WRITE, ADMIN or OPEN below); one that names none needs
`admin`, so that a forgotten line locks instead of opening.
"""

import hashlib
import hmac
import re
import secrets
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import msgspec
from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from videoannotator.errors import Forbidden
from videoannotator.jobs import Token, new_id
from videoannotator.settings import Settings
from videoannotator.store import Store

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

OPEN: dict[str, Any] = {"scope": None}
READ: dict[str, Any] = {"scope": "read"}
WRITE: dict[str, Any] = {"scope": "write"}
ADMIN: dict[str, Any] = {"scope": "admin"}
READ_ALSO_BY_TOKEN: dict[str, Any] = {"scope": "read", "token": True}
"""For EventSource and <video>, which cannot send headers: `?token=` is taken too."""

_KEY = re.compile(r"va_[A-Za-z0-9_-]{20,200}")
_HINT = "Send a key as 'Authorization: Bearer va_...' or 'X-API-Key: va_...'."


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    scope: Scope
    expires_at: datetime | None = None

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """What the key allows; each scope includes those before it."""
        return SCOPES[: SCOPES.index(self.scope) + 1]


class Keys:
    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._outside = settings.api_key.encode()
        self.required = settings.require_auth

    async def first(self) -> str | None:
        """The admin key of a new storage directory, to be shown once; None where there are keys or none is needed."""
        if not self.required or self._outside or await self._store.tokens():
            return None
        secret = new_secret()
        token = Token(id=new_id("tok"), name="first admin key", scope="admin", created_at=datetime.now(UTC))
        await self._store.add_token(token, secret_hash(secret))
        return secret

    async def caller(self, offered: str | None) -> Caller:
        """
        Whose key this is.

        Raises:
            Forbidden: KEY_MISSING, KEY_MALFORMED, KEY_UNKNOWN, KEY_EXPIRED or KEY_REVOKED.
        """
        if not self.required:
            return Caller(name="anyone", scope="admin")
        if not offered:
            raise Forbidden("API key required.", hint=_HINT, code="KEY_MISSING")
        if self._outside and hmac.compare_digest(offered.encode(), self._outside):
            return Caller(name="VIDEOANNOTATOR_API_KEY", scope="admin")
        if not _KEY.fullmatch(offered):
            raise Forbidden("Unauthorized: this is not the form of a key.", hint=_HINT, code="KEY_MALFORMED")
        return _usable(await self._store.token_by_hash(secret_hash(offered)))


def new_secret() -> str:
    return f"va_{secrets.token_urlsafe(32)}"


def secret_hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Litestar's guard for every route: who is calling is in the connection's state afterwards."""
    keys: Keys = connection.app.state.api_keys
    needed: Scope | None = handler.opt.get("scope", "admin")
    offered = _offered(connection, by_token=handler.opt.get("token", False))
    if needed is None:
        connection.state["caller"] = await _caller_if_known(keys, offered)
        return
    caller = connection.state["caller"] = await keys.caller(offered)
    if needed not in caller.scopes:
        message = f"This needs a key with the scope '{needed}'; yours has '{caller.scope}'."
        raise Forbidden(message, hint="Ask an administrator of this server for one.", code="SCOPE_TOO_SMALL")


async def _caller_if_known(keys: Keys, offered: str | None) -> Caller | None:
    """An open route answers everybody, a wrong key included; a right one may get to see more."""
    try:
        return await keys.caller(offered)
    except Forbidden:
        return None


def _usable(token: Token | None) -> Caller:
    if token is None:
        raise Forbidden("Unauthorized: nobody has this key here.", hint=_HINT, code="KEY_UNKNOWN")
    if token.revoked_at is not None:
        raise Forbidden("Unauthorized: this key was revoked.", hint="Ask for a new one.", code="KEY_REVOKED")
    if token.expires_at is not None and token.expires_at <= datetime.now(UTC):
        raise Forbidden("Unauthorized: this key has expired.", hint="Ask for a new one.", code="KEY_EXPIRED")
    return Caller(name=token.name, scope=token.scope, expires_at=token.expires_at)


def _offered(connection: ASGIConnection[Any, Any, Any, Any], *, by_token: bool) -> str | None:
    if (header := connection.headers.get("authorization")) is not None:
        scheme, _, key = header.partition(" ")
        return key.strip() if scheme.lower() == "bearer" else header
    if (plain := connection.headers.get("x-api-key")) is not None:
        return plain
    return connection.query_params.get("token") if by_token else None
