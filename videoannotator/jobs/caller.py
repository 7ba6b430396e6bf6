"""Who asks, and what they would otherwise say each time."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A key to the API. The secret itself is never stored."""

    id: str
    name: str
    scope: Literal["read", "write", "admin"]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


class Idempotency(msgspec.Struct, frozen=True, kw_only=True):
    """A request that may be sent twice and is done once: whose, under which key, and what was in it."""

    caller: str
    key: str
    body_sha256: str


class Preferences(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """What the holder of a key would otherwise say each time."""

    default_preset: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None
    """For jobs that name neither a preset nor pipelines."""

    output_directory: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)] | None = None
    """Where results are published beside the server's own storage; inside the allowed roots."""


class Preset(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Named pipelines with parameters. `presets/*.yaml` holds the built-in ones."""

    name: str
    version: str
    description: str
    pipelines: dict[str, dict[str, Any]]
    """Pipeline to the parameters that differ from its defaults."""

    cost: str = ""
    """What to expect in time and hardware, in words."""
