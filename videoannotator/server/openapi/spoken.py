"""What people wrote about the routes: the YAML files of this folder, read into Structs."""

from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import yaml

Codes = dict[int, tuple[str, ...]]
"""Status to the codes of refusals that an answer with it may carry."""


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    description: str
    content: dict[str, Any] = {}
    """Media type to the name of a Struct, `binary`, `text`, or a JSON schema."""

    headers: dict[str, str] = {}
    example: Any = msgspec.UNSET


class Operation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    summary: str
    errors: Codes = {}
    also: tuple[str, ...] = ()
    """Names of groups of errors."""

    parameters: dict[str, Any] = {}
    """Name to an example, where another one than the usual is needed."""

    headers: tuple[str, ...] = ()
    """Headers that the handler reads itself."""

    body: dict[str, Any] = {}
    """Media type to the name of a Struct or a JSON schema, where the handler reads the body itself."""

    send: Any = msgspec.UNSET
    """An example of a body."""

    answers: dict[int, Answer] = {}
    """In place of what the handler's annotation says, status by status."""

    example: Any = msgspec.UNSET
    """An example of the JSON that is answered; `$name` stands for a shared one."""

    extra: dict[str, Any] = {}
    """Further keys of the operation, as they are."""


class Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One file: a noun of the API."""

    tag: str
    description: str
    operations: dict[str, Operation]
    schemas: dict[str, Any] = {}
    """JSON schemas of what no Struct describes."""

    examples: dict[str, Any] = {}


class Parameter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    description: str
    example: Any
    schema: dict[str, Any] = msgspec.field(default_factory=lambda: {"type": "string"})
    """Of a header that a handler reads itself."""

    required: bool = False


class Shared(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    title: str
    description: str
    parameters: dict[str, Parameter]
    headers: dict[str, str]
    groups: dict[str, Codes]
    always: Codes
    with_key: Codes
    by_token: Codes
    limited: Codes
    changing: Codes
    with_json: Codes
    with_values: Codes
    in_jobs: tuple[str, ...]
    """Codes that stand in a job or its stages, and in no answer of their own."""


@cache
def shared() -> Shared:
    return msgspec.convert(_read(_FOLDER / _SHARED), Shared, strict=False)


@cache
def pages() -> tuple[Page, ...]:
    files = sorted(file for file in _FOLDER.glob("*.yaml") if file.name != _SHARED)
    return tuple(msgspec.convert(_read(file), Page, strict=False) for file in files)


_FOLDER = Path(__file__).parent
_SHARED = "shared.yaml"


def _read(file: Path) -> Any:
    return yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 (a safe one)
