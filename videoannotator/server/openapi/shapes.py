"""Python types to JSON schemas (2020-12, as OpenAPI 3.1 has them), with the sentences that stand under their fields."""

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, get_args

import msgspec

Schema = dict[str, Any]

_REFERENCE = "#/components/schemas/{name}"


def schemas_of(types: Iterable[Any]) -> tuple[dict[Any, Schema], dict[str, Schema]]:
    """A schema for each type, and the components that they refer to."""
    asked = list(dict.fromkeys(types))
    found, components = msgspec.json.schema_components(asked, ref_template=_REFERENCE)
    for struct in _structs(msgspec.inspect.multi_type_info(asked)):
        if struct.__name__ in components:
            _refine(components[struct.__name__], struct)
    return dict(zip(asked, found, strict=True)), components


def schema_of_value(annotation: Any) -> Schema:
    """Of one value in a path, query or header. Nothing refers to a component."""
    kinds = tuple(kind for kind in get_args(annotation) if kind is not type(None))
    plain = kinds[0] if len(kinds) == 1 and type(None) in get_args(annotation) else annotation
    if plain is datetime:
        return {"type": "string", "format": "date-time"}
    ((schema,), components) = msgspec.json.schema_components([plain], ref_template=_REFERENCE)
    if "$ref" in schema:
        (schema,) = components.values()
    return {name: value for name, value in _typed(schema).items() if name not in ("title", "description")}


def reference(name: str) -> Schema:
    return {"$ref": _REFERENCE.format(name=name)}


def _refine(schema: Schema, struct: type[msgspec.Struct]) -> None:
    """What msgspec leaves out: sentences, times as times, and that an answer's empty fields are left out, not null."""
    is_request = struct.__struct_config__.forbid_unknown_fields  # it takes null for what may be left out
    left_out = struct.__struct_config__.omit_defaults and not is_request
    said = _sentences(struct)
    for field in msgspec.structs.fields(struct):
        told = schema["properties"][field.encode_name]
        if left_out and field.default is None:
            told.pop("default", None)
            _drop_null(told)
        if datetime in (field.type, *get_args(field.type)):
            _mark_times(told)
        if field.name in said:
            told["description"] = said[field.name]


def _drop_null(schema: Schema) -> None:
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        del schema["anyOf"]
        schema |= kinds[0]


def _mark_times(schema: Schema) -> None:
    for part in (schema, *schema.get("anyOf", ())):
        if part.get("type") == "string":
            part["format"] = "date-time"


def _typed(schema: Schema) -> Schema:
    """msgspec names no type beside the choices of an enum."""
    choices = schema.get("enum", ())
    return schema | {"type": "string"} if choices and all(isinstance(choice, str) for choice in choices) else schema


def _structs(types: Iterable[Any]) -> Iterator[type[msgspec.Struct]]:
    """Every Struct that the types lead to."""
    seen: set[type[msgspec.Struct]] = set()
    waiting = list(types)
    while waiting:
        info = waiting.pop()
        if isinstance(info, msgspec.inspect.StructType) and info.cls not in seen:
            seen.add(info.cls)
            yield info.cls
            waiting += [field.type for field in info.fields]
        elif not isinstance(info, msgspec.inspect.StructType):
            waiting += _inside(info)


def _inside(info: Any) -> list[Any]:
    inner = [getattr(info, name, None) for name in ("item_type", "key_type", "value_type", "type")]
    several = (*getattr(info, "types", ()), *getattr(info, "item_types", ()))
    return [part for part in (*inner, *several) if isinstance(part, msgspec.inspect.Type)]


def _sentences(struct: type[msgspec.Struct]) -> dict[str, str]:
    """Field to the docstring below it, of the class and those it inherits from."""
    said: dict[str, str] = {}
    for kind in reversed([kind for kind in struct.__mro__ if issubclass(kind, msgspec.Struct)][:-1]):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(definition, ast.ClassDef)
        for field, below in zip(definition.body, definition.body[1:], strict=False):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    said[name] = inspect.cleandoc(text).replace("\n", " ")
    return said
