"""What callers ask to be done with a video, as a form or as JSON, and which video they mean."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import msgspec

from videoannotator.errors import FieldProblem, InvalidConfig
from videoannotator.jobs import Errands
from videoannotator.server.decoding import parse_json, read_struct
from videoannotator.workspace import Selection

_MOST_TAGS = 32
_LONGEST_TAG = 100
_LONGEST_PATH = 4096

AbsolutePath = Annotated[str, msgspec.Meta(min_length=1, max_length=_LONGEST_PATH)]
Url = Annotated[str, msgspec.Meta(min_length=1, max_length=2048)]
Priority = Annotated[int, msgspec.Meta(ge=-100, le=100)]


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to do with a video, as a form says it."""

    preset: str | None = None
    selected_pipelines: tuple[str, ...] = ()
    config: dict[str, dict[str, Any]] = {}
    tags: tuple[str, ...] = ()
    priority: Priority = 0
    cache: bool = True
    """False: nothing is taken from earlier, equal work, and nothing is remembered."""

    @property
    def selection(self) -> Selection:
        return Selection(preset=self.preset, pipelines=self.selected_pipelines, config=self.config, cache=self.cache)

    @property
    def errands(self) -> Errands:
        """What is to be done outside of the storage directory; where the video comes from is not in it."""
        return Errands()


class InDataset(msgspec.Struct, frozen=True):
    """A file below a dataset's directory, annotated in place."""

    dataset_id: str
    path: str


class Uploaded(msgspec.Struct, frozen=True):
    """A finished resumable upload, used up by the job."""

    upload_id: str


class AtUrl(msgspec.Struct, frozen=True):
    """A video on a web server, fetched when the job's turn comes."""

    video_url: str


Source = InDataset | Uploaded | AtUrl


class JsonOrder(Order, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The same as JSON, for a video that is not in the request. Exactly one source names it."""

    dataset_id: str | None = None
    path: Annotated[str, msgspec.Meta(min_length=1, max_length=_LONGEST_PATH)] | None = None
    """With `dataset_id`: relative to the dataset's directory."""

    upload_id: str | None = None
    """A finished resumable upload."""

    video_url: Url | None = None
    """http or https, on a public host."""

    output_directory: AbsolutePath | None = None
    """Results are published there too, in a folder with the job's id; inside the server's output roots."""

    db_location: AbsolutePath | None = None
    """A SQLite file that the annotations are written into too; inside the server's output roots."""

    callback_url: Url | None = None
    """Is told with a signed POST that the job is over."""

    overrides: dict[str, dict[str, Any]] = {}
    """Another name of `config`."""

    @property
    def selection(self) -> Selection:
        config = self.config or self.overrides
        return Selection(preset=self.preset, pipelines=self.selected_pipelines, config=config, cache=self.cache)

    @property
    def errands(self) -> Errands:
        return Errands(
            output_directory=None if self.output_directory is None else Path(self.output_directory),
            db_location=None if self.db_location is None else Path(self.db_location),
            callback_url=self.callback_url,
        )


def order_of_json(body: bytes) -> tuple[JsonOrder, Source]:
    """
    Raises:
        Refused: MALFORMED_JSON.
        InvalidConfig: with everything that is wrong.
    """
    order = read_struct(parse_json(body), JsonOrder)
    if problems := tuple(_contradictions(order)):
        raise InvalidConfig(problems)
    check_tags(order.tags)
    return order, _source(order)


def order_of_form(fields: dict[str, list[str]]) -> Order:
    """Raises InvalidConfig."""
    given: dict[str, Any] = {}
    for name in ("preset", "config", "priority", "cache"):
        if len(fields.get(name, ())) > 1:
            raise InvalidConfig((FieldProblem(name, f"{name} may be given once.", "DUPLICATE_FIELD"),))
        if text := "".join(fields.get(name, ())).strip():
            given[name] = text
    if "config" in given:
        given["config"] = parse_json(given["config"])
    if "priority" in given:
        given["priority"] = _whole_number("priority", given["priority"])
    if "cache" in given:
        given["cache"] = {"true": True, "false": False}.get(given["cache"].lower(), given["cache"])
    given |= {name: _listed(fields[name]) for name in ("selected_pipelines", "tags") if name in fields}
    order = read_struct(given, Order)
    check_tags(order.tags)
    return order


def check_tags(tags: tuple[str, ...]) -> None:
    """Raises InvalidConfig."""
    if len(tags) > _MOST_TAGS or any(not 1 <= len(tag) <= _LONGEST_TAG or not tag.isprintable() for tag in tags):
        message = f"A job has up to {_MOST_TAGS} tags of up to {_LONGEST_TAG} printable characters."
        raise InvalidConfig((FieldProblem("tags", message, "INVALID_VALUE"),))


def _contradictions(order: JsonOrder) -> Iterable[FieldProblem]:
    named = [name for name in ("dataset_id", "upload_id", "video_url") if getattr(order, name) is not None]
    if not named:
        hint = "Name dataset_id and path, upload_id or video_url, or send the file as multipart/form-data."
        yield FieldProblem("dataset_id", "The job names no video.", "MISSING_FIELD", hint)
    for name in named[1:]:
        yield FieldProblem(name, "A job has one video; this names a second one.", "DUPLICATE_FIELD")
    if order.dataset_id is not None and order.path is None:
        yield FieldProblem("path", "path is missing.", "MISSING_FIELD", "Name the file in the dataset.")
    if order.path is not None and order.dataset_id is None:
        yield FieldProblem("dataset_id", "dataset_id is missing.", "MISSING_FIELD", "A path stands in a dataset.")
    if order.config and order.overrides:
        yield FieldProblem("overrides", "overrides is another name of config: send one.", "DUPLICATE_FIELD")


def _source(order: JsonOrder) -> Source:
    if order.upload_id is not None:
        return Uploaded(order.upload_id)
    if order.video_url is not None:
        return AtUrl(order.video_url)
    return InDataset(order.dataset_id or "", order.path or "")


def _whole_number(name: str, text: str) -> int:
    try:
        return int(text[:20])
    except ValueError:
        raise InvalidConfig((FieldProblem(name, f"{name} must be a whole number.", "INVALID_VALUE"),)) from None


def _listed(values: Iterable[str]) -> list[str]:
    """A list in a form: repeated, or joined by commas."""
    return [part for value in values for piece in value.split(",") if (part := piece.strip())]
