"""
Who is calling, and what that caller may do.

A key is `va_` and 256 random bits. The store holds its SHA-256 only, which is enough for a secret that nobody can
guess. Every route names the scope it needs in its `opt` (READ, WRITE, ADMIN or OPEN below); one that names none needs
`admin`, so that a forgotten line locks instead of opening.
"""

import asyncio
import hashlib
import hmac
import re
import secrets
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import msgspec
from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from videoannotator.errors import Forbidden, NotFound, Refused, TooManyRequests
from videoannotator.jobs import Token, new_id
from videoannotator.server.limits import Kind, Limits, address_of
from videoannotator.server.tickets import PREFIX as TICKET_PREFIX
from videoannotator.server.tickets import Tickets
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
_WRONG = frozenset({"KEY_MALFORMED", "KEY_UNKNOWN", "KEY_EXPIRED", "KEY_REVOKED", "TICKET_INVALID", "TICKET_EXPIRED"})
_SHORTEST_OUTSIDE = 16
_REFUSED_AFTER_SECONDS = 0.02
_HINT = "Send a key as 'Authorization: Bearer va_...' or 'X-API-Key: va_...'."


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    """Of the key, not of the person: what belongs to a caller hangs on it."""

    name: str
    scope: Scope
    expires_at: datetime | None = None

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """What the key allows; each scope includes those before it."""
        return SCOPES[: SCOPES.index(self.scope) + 1]


_ANYONE = Caller(id="anyone", name="anyone", scope="admin")
_OUTSIDE = Caller(id="outside", name="VIDEOANNOTATOR_API_KEY", scope="admin")


class Keys:
    """
    Whose key is whose. A key from outside is compared in constant time; of all others only the hash is looked up, and
    nobody can steer the hash of a guess towards that of a key.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        if 0 < len(settings.api_key) < _SHORTEST_OUTSIDE:
            message = f"VIDEOANNOTATOR_API_KEY is shorter than {_SHORTEST_OUTSIDE} characters, so it can be guessed."
            hint = "Make one with: python -c 'import secrets; print(\"va_\" + secrets.token_urlsafe(32))'."
            raise Refused(message, hint=hint, code="INVALID_SETTING")
        self._outside = settings.api_key.encode()
        self.required = settings.require_auth
        self.tickets = Tickets()
        self.limits = Limits(settings)

    @property
    def has_another_way_in(self) -> bool:
        """Whether an administrator gets in without any stored key."""
        return bool(self._outside) or not self.required

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
            return _ANYONE
        if not offered:
            raise Forbidden("API key required.", hint=_HINT, code="KEY_MISSING")
        if self._outside and hmac.compare_digest(offered.encode(), self._outside):
            return _OUTSIDE
        if not _KEY.fullmatch(offered):
            raise Forbidden("Unauthorized: this is not the form of a key.", hint=_HINT, code="KEY_MALFORMED")
        return _usable(await self._store.token_by_hash(secret_hash(offered)))

    async def is_still_good(self, caller: Caller) -> bool:
        """Whether the caller's key has been neither revoked nor expired since it was shown."""
        if caller.id in (_ANYONE.id, _OUTSIDE.id):
            return True
        try:
            _usable(await self._store.token(caller.id))
        except (Forbidden, NotFound):
            return False
        return True

    async def caller_in_address(self, offered: str | None, path: str) -> Caller:
        """
        The same for what stands as `?token=` in the address of this path: a key, or a ticket, which reads only.

        Raises:
            Forbidden: as `caller` and `Tickets.holder`.
        """
        if offered is None or not self.required or not offered.startswith(TICKET_PREFIX):
            return await self.caller(offered)
        holder = self.tickets.holder(offered, path)
        known = _OUTSIDE if holder == _OUTSIDE.id else _usable(await self._store.token(holder))
        return msgspec.structs.replace(known, scope="read")


def new_secret() -> str:
    return f"va_{secrets.token_urlsafe(32)}"


def secret_hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Litestar's guard for every route: who is calling is in the connection's state afterwards."""
    keys: Keys = connection.app.state.api_keys
    needed: Scope | None = handler.opt.get("scope", "admin")
    if needed is None:
        caller = await _caller_if_known(keys, _in_header(connection))
    else:
        caller = await _caller(keys, connection, by_token=handler.opt.get("token", False))
        _require(caller, needed)
    connection.state["caller"] = caller
    if (kind := handler.opt.get("limit")) is not None:
        await _spend(keys, kind, caller.id if caller else address_of(connection.client))


async def _spend(keys: Keys, kind: Kind, who: str) -> None:
    """Raises TooManyRequests, and not at once: so a flood slows itself down, and leaves the loop to everybody else."""
    try:
        keys.limits.spend(kind, who)
    except TooManyRequests:
        await asyncio.sleep(_REFUSED_AFTER_SECONDS)
        raise


def limited(opt: dict[str, Any], kind: Kind) -> dict[str, Any]:
    """A route's `opt`, with a limit on how often one caller may use it."""
    return opt | {"limit": kind}


async def _caller(keys: Keys, connection: ASGIConnection[Any, Any, Any, Any], *, by_token: bool) -> Caller:
    """
    A right key is always let in. Wrong ones are counted by address, and beyond the limit get 429: a limit that locked
    right keys out with them would be a switch in the hands of every stranger behind the same proxy.
    """
    offered = _in_header(connection)
    try:
        if offered is None and by_token:
            return await keys.caller_in_address(connection.query_params.get("token"), connection.scope["path"])
        return await keys.caller(offered)
    except NotFound:
        refusal = Forbidden("Unauthorized: the key of this ticket is gone.", code="TICKET_INVALID")
    except Forbidden as forbidden:
        refusal = forbidden
    if refusal.code in _WRONG:
        await _spend(keys, "wrong_keys", address_of(connection.client))
    raise refusal


def _require(caller: Caller, needed: Scope) -> None:
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
    return Caller(id=token.id, name=token.name, scope=token.scope, expires_at=token.expires_at)


def _in_header(connection: ASGIConnection[Any, Any, Any, Any]) -> str | None:
    if (header := connection.headers.get("authorization")) is not None:
        scheme, _, key = header.partition(" ")
        return key.strip() if scheme.lower() == "bearer" else header
    return connection.headers.get("x-api-key")
