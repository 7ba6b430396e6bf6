"""Where JSON enters: decoded once, at the border, with everything that is wrong with it said at once."""

import math
from collections.abc import Iterable
from enum import Enum
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec
from litestar import Request
from litestar.exceptions import ValidationException

from videoannotator.errors import FieldProblem, InvalidConfig, Refused

S = TypeVar("S", bound=msgspec.Struct)

MAX_BODY_BYTES = 1024**2
"""Of every request but uploads: nothing that people write into JSON is longer."""

_MOST_NESTED = 64
_MOST_FIELDS = 1000


class ApiRequest(Request[Any, Any, Any]):
    """Litestar's request, with a body that is refused in our words."""

    async def json(self) -> Any:
        body = await self.body()
        if body and self.content_type[0] != "application/json":
            hint = "Send application/json."
            raise Refused("The body has a type that is not read here.", hint=hint, code="UNSUPPORTED_MEDIA_TYPE")
        value = self.scope["state"]["json"] = parse_json(body or b"null")
        self._refuse_other_types(value)
        return value

    def _refuse_other_types(self, value: Any) -> None:
        """Litestar would take 0 for false and "5" for 5; what a caller did not say is not guessed."""
        field = self.scope["route_handler"].parsed_data_field
        if field is None:
            return
        try:
            msgspec.convert(value, field.annotation)
        except msgspec.ValidationError as exc:
            raise ValidationException(str(exc)) from exc


def parse_json(body: bytes | str) -> Any:
    """
    Any JSON value.

    Raises:
        Refused: MALFORMED_JSON: no JSON, not UTF-8, nested too deep, or a number beyond 64 bits.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError) as exc:
        raise Refused(f"This is not JSON: {exc}.", code="MALFORMED_JSON") from exc
    except RecursionError:
        raise _too_deep() from None
    _check_values(value)
    return value


def read_struct(value: Any, kind: type[S]) -> S:
    """
    A JSON value as one of our structs.

    Raises:
        InvalidConfig: with one problem for each field that is wrong.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as exc:
        raise InvalidConfig(tuple(problems_of(value, kind)) or (_problem("request", exc),)) from exc


def problems_of(value: Any, kind: type[msgspec.Struct]) -> Iterable[FieldProblem]:
    """Everything that keeps a value from being this struct, field by field."""
    if not isinstance(value, dict):
        yield FieldProblem("request", "The body must be a JSON object.", "WRONG_TYPE")
        return
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for name in sorted(value.keys() - fields.keys(), key=str):
        yield FieldProblem(str(name), f"There is no field {name!r}.", "UNKNOWN_FIELD", allowed=tuple(fields))
    for name, field in fields.items():
        if name not in value:
            if field.required:
                yield FieldProblem(name, f"{name} is missing.", "MISSING_FIELD")
            continue
        try:
            msgspec.convert(value[name], field.type)
        except msgspec.ValidationError as exc:
            yield FieldProblem(name, f"{name}: {exc}.", "INVALID_VALUE", allowed=choices(field.type))


def choices(kind: Any) -> tuple[str, ...]:
    """The values of an enum or a Literal, also of an optional one; empty for all other types."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return tuple(str(member.value) for member in kind)
    if get_origin(kind) is Literal:
        return tuple(map(str, get_args(kind)))
    return next((found for inner in get_args(kind) if (found := choices(inner))), ())


def _problem(name: str, exc: msgspec.ValidationError) -> FieldProblem:
    return FieldProblem(name, f"{name}: {exc}.", "INVALID_VALUE")


def _check_values(value: Any) -> None:
    level: list[Any] = [value]
    for _ in range(_MOST_NESTED):
        if not level:
            return
        _refuse_huge_numbers(level)
        _refuse_huge_objects(level)
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in _inside(outer)]
    if level:
        raise _too_deep()


def _refuse_huge_numbers(values: list[Any]) -> None:
    """SQLite and most other readers of JSON have 64 bits; a number beyond would come back as another one."""
    for value in values:
        if (isinstance(value, int) and not -(2**63) <= value < 2**63) or (
            isinstance(value, float) and not math.isfinite(value)
        ):
            raise Refused("A number is larger than 64 bits can hold.", code="MALFORMED_JSON")


def _refuse_huge_objects(values: list[Any]) -> None:
    """Each field that is not known would be told with all that are: seconds of work for a megabyte."""
    if any(isinstance(value, dict) and len(value) > _MOST_FIELDS for value in values):
        raise Refused(f"A JSON object here has up to {_MOST_FIELDS} fields.", code="MALFORMED_JSON")


def _inside(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _too_deep() -> Refused:
    return Refused(f"The JSON is nested deeper than {_MOST_NESTED} levels.", code="MALFORMED_JSON")
