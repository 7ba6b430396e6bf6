"""docs/pipelines.md, written from the declarations: what there is, what it takes and makes, under which licences."""

from collections.abc import Iterable, Iterator

from videoannotator.models.catalogue import Model, Models
from videoannotator.pipelines.catalogue import Catalogue
from videoannotator.pipelines.declaration import Declaration, Engine, Parameter

HEAD = """\
<!-- Do not edit: written by `uv run scripts/pipelines` from videoannotator/pipelines/*.yaml and models/*.yaml. -->

# Pipelines

Each pipeline runs in a process of its own, without a network. Speeds are seconds of video in a second on two laptop
cores, declared and not measured on your machine; `videoannotator plan VIDEO --preset NAME` adds them up for a video.
"""

_LICENCES = """\
## Models and their licences

Those inside a package come with the installation. The others are fetched once: `videoannotator models pull NAME`.
Gated ones ask for an account of the Hugging Face Hub, consent on their page, and a token in `HF_TOKEN`. Checksums stand
in the catalogue where we know them; otherwise the hub's own are checked and recorded when a model is fetched, and ever
after (`videoannotator models verify`).
"""


def page(catalogue: Catalogue) -> str:
    """The whole page; the same declarations give the same text."""
    parts = [HEAD]
    parts += [_pipeline(declaration) for declaration in catalogue]
    parts.append(_licences(list(catalogue), catalogue.supplies.shelf.models))
    return "\n".join(parts)


def _pipeline(declaration: Declaration) -> str:
    lines = [
        f"## {declaration.name}",
        "",
        f"{declaration.display_name} {declaration.version}. {_flat(declaration.description)}",
        "",
        *_table(("engine", "what it is", "environment", "models", "speed"), _engines(declaration)),
        "",
    ]
    if declaration.after:
        lines += [f"Waits in the same job for: {', '.join(declaration.after)}.", ""]
    if declaration.components:
        found = ((c.name, _flat(c.description), ", ".join(c.engines) or "all") for c in declaration.components)
        lines += [*_table(("finds", "what it is", "engines"), found), ""]
    lines += [*_table(("parameter", "default", "values", "what it does"), _parameters(declaration)), ""]
    lines += [*_table(("file", "format", "in the ZIP", "what it holds"), _outputs(declaration)), ""]
    lines += ["Known limits:", "", *(f"- {_flat(limit)}" for limit in declaration.known_limits), ""]
    return "\n".join(lines)


def _engines(declaration: Declaration) -> Iterator[tuple[str, ...]]:
    for engine in declaration.engines:
        needs = ", ".join(_need(engine)) or "inside its packages"
        speed = engine.realtime_factor or declaration.resources.realtime_factor
        yield (f"`{engine.name}`", _flat(engine.description), engine.environment, needs, f"{speed:g}")


def _need(engine: Engine) -> Iterator[str]:
    for need in engine.models:
        when = " and ".join(f"{name} {_either(values)}" for name, values in need.when.items())
        yield f"`{need.name}`" + (" if it is here" if need.welcome else "") + (f" (with {when})" if when else "")


def _either(values: Iterable[object]) -> str:
    told = [_plain(value) for value in values]
    return " or ".join(told) if len(told) <= 3 else f"one of {', '.join(told)}"


def _parameters(declaration: Declaration) -> Iterator[tuple[str, ...]]:
    for parameter in declaration.parameters:
        only = f" Only with {' or '.join(parameter.engines)}." if parameter.engines else ""
        told = f"{_flat(parameter.description)}{only}"
        yield (f"`{parameter.name}`", f"`{_plain(parameter.default)}`", _values(parameter), told)


def _values(parameter: Parameter) -> str:
    if parameter.enum:
        return ", ".join(choice.value for choice in parameter.enum)
    if parameter.type == "boolean":
        return "true, false"
    low = "" if parameter.min is None else f"{parameter.min:g}"
    high = "" if parameter.max is None else f"{parameter.max:g}"
    return f"{low} to {high} {parameter.unit}".strip() if low or high else parameter.type


def _outputs(declaration: Declaration) -> Iterator[tuple[str, ...]]:
    for output in declaration.outputs:
        told = _flat(output.description) + (" Left out where there is nothing to say." if output.optional else "")
        yield (f"`{output.name}`", output.format, "yes" if output.in_zip else "no", told)


def _licences(declarations: list[Declaration], models: Models) -> str:
    inside = {model.name: model for declaration in declarations for model in declaration.models}
    rows: list[tuple[str, ...]] = [
        (f"`{m.name}`", m.licence, "see the licence", f"{m.size_bytes / 1e6:.1f} MB", m.source)
        for m in sorted(inside.values(), key=lambda model: model.name)
    ]
    rows += [_licence(model) for model in models]
    columns = ("model", "licence", "commercial use", "size", "source")
    citations = {model.citation: None for model in models}
    return "\n".join(
        [_LICENCES, *_table(columns, rows), "", "To be cited:", "", *(f"- {_flat(text)}" for text in citations), ""]
    )


def _licence(model: Model) -> tuple[str, ...]:
    use = {True: "allowed", False: "**not allowed**", None: "unclear"}[model.commercial_use]
    gated = ", gated" if model.gated else ""
    return (f"`{model.name}`", f"{model.licence}{gated}", use, f"about {model.about_mb} MB", model.page)


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '/') for cell in row)} |"


def _flat(text: str) -> str:
    return " ".join(text.split())


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
