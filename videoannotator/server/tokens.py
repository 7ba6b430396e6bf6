"""Keys to the API, and tickets: keys that may stand in an address."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec
from litestar import Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from videoannotator.errors import FieldProblem, InvalidConfig
from videoannotator.jobs import Token, new_id
from videoannotator.media.names import shown_words
from videoannotator.server.auth import ADMIN, READ, Caller, Keys, Scope, limited, new_secret, secret_hash
from videoannotator.server.tickets import is_plain
from videoannotator.workspace import Workspace

_LONGEST_LIFE_SECONDS = 10 * 366 * 86400
_API = "/api/v1/"


class NewToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
    """Who or what it is for, so that it can be told from the others."""

    scope: Scope = "write"
    expires_in_seconds: Annotated[int, msgspec.Meta(ge=1, le=_LONGEST_LIFE_SECONDS)] | None = None
    """From now on; left out, the key does not expire."""

    expires_at: datetime | None = None
    """The same as a time with a zone; one of the two."""


class TokenAnswer(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    id: str
    name: str
    scope: Scope
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


class MadeToken(TokenAnswer, frozen=True, omit_defaults=True, kw_only=True):
    secret: str
    """The key itself. It is shown in this answer and never again: only its hash is kept."""


class TokenList(msgspec.Struct, frozen=True):
    tokens: tuple[TokenAnswer, ...]
    total: int


class NewTicket(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    path: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
    """What it opens, with all below: `/api/v1/jobs/job_x`, or `/api/v1/events/stream`."""


class TicketAnswer(msgspec.Struct, frozen=True, kw_only=True):
    token: str
    """For `?token=` in the address of an event stream, a video, a file or a ZIP."""

    expires_at: datetime


@get("/api/v1/tokens", opt=ADMIN)
async def list_tokens(workspace: NamedDependency[Workspace]) -> TokenList:
    """Every key that was ever made, without its secret, expired and revoked ones included."""
    tokens = tuple(describe(token) for token in await workspace.store.tokens())
    return TokenList(tokens, len(tokens))


@post("/api/v1/tokens", status_code=201, opt=ADMIN)
async def make_token(workspace: NamedDependency[Workspace], data: JSONBody[NewToken]) -> Response[MadeToken]:
    """Make a key. Its secret is in this answer and nowhere else."""
    token, secret = new_token(data.name, data.scope, _expiry(data))
    await workspace.store.add_token(token, secret_hash(secret))
    kept = describe(await workspace.store.token(token.id))
    made = MadeToken(**msgspec.structs.asdict(kept), secret=secret)
    return Response(made, status_code=201, headers={"location": f"/api/v1/tokens/{token.id}"})


@delete("/api/v1/tokens/{token_id:str}", opt=ADMIN)
async def revoke_token(
    workspace: NamedDependency[Workspace], api_keys: NamedDependency[Keys], token_id: FromPath[str]
) -> None:
    """From now on the key is refused, and so is every ticket that was made with it. It stays in the list."""
    await workspace.store.revoke_token(token_id, keep_an_admin=not api_keys.has_another_way_in)


@post("/api/v1/tickets", status_code=201, opt=limited(READ, "tickets"))
async def make_ticket(
    api_keys: NamedDependency[Keys], caller: NamedDependency[Caller], data: JSONBody[NewTicket]
) -> TicketAnswer:
    """
    A key for one path and ten minutes, which may stand in an address: what cannot send headers (EventSource, <video>, a
    download link) sends it as `?token=`. It reads what its maker may read, changes nothing, and ends with the server.
    """
    if not (is_plain(data.path) and data.path.startswith(_API)):
        message = "A ticket is for a path of this API, written plainly: without '..', '%', '?' or a host."
        raise InvalidConfig((FieldProblem("path", message, "PATH_NOT_ALLOWED", "As in /api/v1/jobs/job_x."),))
    token, expires_at = api_keys.tickets.issue(caller.id, data.path)
    return TicketAnswer(token=token, expires_at=expires_at)


def new_token(name: str, scope: Scope, expires_at: datetime | None) -> tuple[Token, str]:
    """
    A key that is not stored yet, and its secret.

    Raises:
        InvalidConfig: of the name nothing is left that can be shown.
    """
    shown = shown_words(name)
    if not shown:
        message = "The name has no character that can be shown."
        raise InvalidConfig((FieldProblem("name", message, "INVALID_VALUE", "Say who or what the key is for."),))
    token = Token(id=new_id("tok"), name=shown, scope=scope, created_at=datetime.now(UTC), expires_at=expires_at)
    return token, new_secret()


def describe(token: Token) -> TokenAnswer:
    return TokenAnswer(
        id=token.id,
        name=token.name,
        scope=token.scope,
        created_at=token.created_at,
        expires_at=token.expires_at,
        revoked_at=token.revoked_at,
    )


def _expiry(asked: NewToken) -> datetime | None:
    now = datetime.now(UTC)
    if asked.expires_at is None:
        return None if asked.expires_in_seconds is None else now + timedelta(seconds=asked.expires_in_seconds)
    if asked.expires_in_seconds is not None:
        raise _wrong_expiry("Give expires_at or expires_in_seconds, not both.")
    if asked.expires_at.tzinfo is None:
        raise _wrong_expiry("expires_at needs a time zone: end it with Z for UTC.")
    if not now < asked.expires_at <= now + timedelta(seconds=_LONGEST_LIFE_SECONDS):
        raise _wrong_expiry("expires_at must lie in the next ten years.")
    return asked.expires_at.astimezone(UTC)


def _wrong_expiry(message: str) -> InvalidConfig:
    return InvalidConfig((FieldProblem("expires_at", message, "INVALID_VALUE"),))


ROUTES = [list_tokens, make_token, revoke_token, make_ticket]
