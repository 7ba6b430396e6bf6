"""
Bringing a model from where its authors put it. Only this module and `environments.py` open outbound connections, and
only when somebody asked.

What was fetched of a file stays on disk when a fetch breaks off, and the next one goes on from there. A token for gated
models is read from the environment (HF_TOKEN) when it is needed, sent to the hub, and neither stored nor logged.
"""

import fnmatch
import hashlib
import os
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import msgspec

from videoannotator.errors import Refused, StorageTrouble, VideoAnnotatorError
from videoannotator.models.catalogue import File, Model
from videoannotator.models.shelf import Record, RecordedFile, Shelf, recorded, sha256, trouble

OnProgress = Callable[[int, int | None], None]
"""Bytes that are here, and bytes in all where that is known."""

LOOK_SECONDS = 0.2
ATTEMPTS = 4
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_BLOCK = 1 << 18
_KEEP_FREE = 256 * 1024**2


class FetchFailed(VideoAnnotatorError):
    """A model could not be brought; what has come of it is kept."""

    code = "MODEL_FETCH_FAILED"


class _HubFile(msgspec.Struct, frozen=True):
    path: str
    size: int | None
    sha256: str
    """Of a large file, as the hub says; empty for one that git itself holds."""

    blob_sha1: str
    """Git's own id of the content."""


def pull(shelf: Shelf, name: str, on_progress: OnProgress) -> Record:
    """
    Have a model here, whole and verified; what is here already is verified and left alone.

    Raises:
        FetchFailed: no connection, or what came is not what was announced.
        Refused: MODEL_GATED, the hub wants a token or consent; OFFLINE.
        StorageTrouble: no space, or the folder cannot be written.
    """
    model = shelf.models.get(name)
    with shelf.fetching_alone(name) as folder:
        if shelf.state(name) in ("ready", "unchecked"):
            try:
                return shelf.verify(name)
            except Refused as damaged:
                if damaged.code != "MODEL_DAMAGED":
                    raise
        record = _from_hub(model, folder, on_progress) if model.hub else _from_addresses(model, folder, on_progress)
        if lacks := model.lacks(file.path for file in record.files):
            raise FetchFailed(f"What came as {name} lacks {lacks}.", hint=f"Look at {model.page}")
        shelf.place(folder, record)
        return record


# The Hugging Face Hub


def _from_hub(model: Model, folder: Path, on_progress: OnProgress) -> Record:
    commit, files = _announced(model)
    wanted = _wanted(model, files)
    sizes = [file.size for file in wanted]
    total = sum(size for size in sizes if size is not None) if None not in sizes else None
    _check_space(folder, total, _size_of(folder))
    _watched(lambda: _download(model, commit, wanted, folder), folder, total, on_progress)
    got = tuple(_checked(model, folder, file) for file in sorted(wanted, key=lambda file: file.path))
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    return Record(name=model.name, origin=model.hub, revision=commit, checked_against="the hub's checksums", files=got)


def _announced(model: Model) -> tuple[str, list[_HubFile]]:
    """The commit that the revision stands for, and what the hub says of each of its files."""
    hub = _hub_library()
    info = _asking_hub(
        model,
        lambda: hub.HfApi(endpoint=_endpoint(), token=_token()).model_info(
            model.hub, revision=model.revision, files_metadata=True, timeout=30
        ),
    )
    files = [
        _HubFile(sibling.rfilename, sibling.size, sibling.lfs.sha256 if sibling.lfs else "", sibling.blob_id or "")
        for sibling in info.siblings or ()
    ]
    return str(info.sha), files


def _wanted(model: Model, files: list[_HubFile]) -> list[_HubFile]:
    there = {file.path for file in files}
    weights = next((path for path in model.one_of if path in there), None)
    return [
        file for file in files if file.path == weights or any(fnmatch.fnmatch(file.path, p) for p in model.patterns)
    ]


def _download(model: Model, commit: str, files: Iterable[_HubFile], folder: Path) -> None:
    hub = _hub_library()
    for file in files:
        get = partial(hub.hf_hub_download, model.hub, file.path, revision=commit, local_dir=folder)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                _asking_hub(model, partial(get, endpoint=_endpoint(), token=_token()))
                break
            except FetchFailed:
                if attempt == ATTEMPTS:
                    raise


def _checked(model: Model, folder: Path, file: _HubFile) -> RecordedFile:
    """What came, compared with what the hub announced. A file that differs is removed, so that it is fetched again."""
    got = recorded(folder, file.path)
    if file.sha256:
        right = got.sha256 == file.sha256
    else:
        content = (folder / file.path).read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        right = blob == file.blob_sha1
    if not right:
        shutil.rmtree(folder, ignore_errors=True)
        message = f"{file.path} of {model.name} is not what the hub announced."
        raise FetchFailed(message, hint="Nothing of it is kept. Try again.", code="MODEL_DAMAGED")
    return got


def _asking_hub(model: Model, ask: Callable[[], Any]) -> Any:
    import requests
    from huggingface_hub import errors

    try:
        return ask()
    except errors.GatedRepoError as exc:
        raise _gated(model) from exc
    except errors.RepositoryNotFoundError as exc:
        # The hub answers so to strangers where it does not want to say whether there is such a thing.
        if model.gated:
            raise _gated(model) from exc
        raise FetchFailed(f"The hub has no {model.hub} for you.", hint=f"Look at {model.page}") from exc
    except errors.HfHubHTTPError as exc:
        if exc.response is not None and exc.response.status_code == 401 and _token() is not False:
            hint = "Put a valid one there, or take it out where the model is not gated."
            raise FetchFailed(f"The hub does not accept the token in HF_TOKEN for {model.name}.", hint=hint) from exc
        raise _unreachable(model, exc) from exc
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as exc:
        raise _unreachable(model, exc) from exc
    except requests.RequestException as exc:
        raise _unreachable(model, exc) from exc
    except OSError as exc:
        raise trouble(exc, Path(model.name)) from exc


def _gated(model: Model) -> Refused:
    has_token = _token() is not False
    what = "and the token in HF_TOKEN is not allowed to have it" if has_token else "and there is no token in HF_TOKEN"
    hint = f"Accept the conditions at {model.page}, put a token of your account into HF_TOKEN, and pull again."
    return Refused(f"The model {model.name} is gated, {what}.", hint=hint, code="MODEL_GATED")


def _hub_library() -> Any:
    try:
        import huggingface_hub
    except ImportError as exc:
        message = "Models of the Hugging Face Hub need the package huggingface-hub."
        hint = "Run: uv sync, or pip install 'videoannotator[vision]'"
        raise Refused(message, hint=hint, code="MODULE_MISSING") from exc
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    return huggingface_hub


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def _token() -> str | bool:
    return next((token for name in TOKENS if (token := os.environ.get(name))), False)


def _watched(work: Callable[[], None], folder: Path, total: int | None, on_progress: OnProgress) -> None:
    """Do the work in a thread and tell how much has come meanwhile; what it raises is raised here."""
    raised: list[BaseException] = []

    def do() -> None:
        try:
            work()
        except BaseException as exc:
            raised.append(exc)

    thread = threading.Thread(target=do, name="fetch", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(LOOK_SECONDS)
        on_progress(min(_size_of(folder), total or _size_of(folder)), total)
    if raised:
        raise raised[0]


# Other addresses


def _from_addresses(model: Model, folder: Path, on_progress: OnProgress) -> Record:
    got: list[RecordedFile] = []
    for file in model.files:
        target = folder / (f".{PurePosixPath(file.url).name}" if file.unpack else file.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            _fetch(model, file, target, on_progress)
        if file.sha256 and sha256(target) != file.sha256:
            target.unlink()
            message = f"{file.url} is not what {model.name} declares: its checksum is another."
            raise FetchFailed(message, hint="It was removed. Try again.", code="MODEL_DAMAGED")
        if file.unpack:
            got += _unpacked(model, target, folder, file.path)
        else:
            got.append(recorded(folder, file.path))
    return Record(
        name=model.name,
        origin=", ".join(file.url for file in model.files),
        checked_against=model.how_checked,
        files=tuple(sorted(got, key=lambda file: file.path)),
    )


def _fetch(model: Model, file: File, target: Path, on_progress: OnProgress) -> None:
    """Into `target`, by way of a file beside it that a later call goes on with."""
    import httpx

    part, tag = target.with_name(f".{target.name}.part"), target.with_name(f".{target.name}.tag")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with httpx.Client(follow_redirects=True, timeout=30) as client:
                if _take(client, file.url, part, tag, on_progress):
                    part.replace(target)
                    tag.unlink(missing_ok=True)
                    return
        except httpx.HTTPStatusError as exc:
            if attempt == ATTEMPTS or exc.response.status_code < 500:
                raise _unreachable(model, exc) from exc
        except httpx.HTTPError as exc:
            if attempt == ATTEMPTS:
                raise _unreachable(model, exc) from exc
        except OSError as exc:
            raise trouble(exc, target.parent) from exc
    raise FetchFailed(f"{file.url} broke off {ATTEMPTS} times.", hint="Try again: it goes on from there.")


def _take(client: Any, url: str, part: Path, tag: Path, on_progress: OnProgress) -> bool:
    """One request, from where the last one ended if the file is still the same there; whether all has come."""
    have = part.stat().st_size if part.exists() and tag.exists() else 0
    headers = {"accept-encoding": "identity"}
    if have:
        headers |= {"range": f"bytes={have}-", "if-range": tag.read_text()}
    with client.stream("GET", url, headers=headers) as answer:
        if answer.status_code == 416:
            part.unlink()
            return False
        answer.raise_for_status()
        resumed = answer.status_code == 206
        have = have if resumed else 0
        length = answer.headers.get("content-length")
        total = have + int(length) if length else None
        _check_space(part.parent, total, have)
        _keep_tag(tag, answer.headers.get("etag", ""))
        with part.open("ab" if resumed else "wb") as out:
            for block in answer.iter_raw(_BLOCK):
                out.write(block)
                have += len(block)
                on_progress(have, total)
    return total is None or have == total


def _keep_tag(tag: Path, etag: str) -> None:
    """Only a strong one tells that the rest belongs to what is here (RFC 9110, 13.1.5)."""
    if etag and not etag.startswith("W/"):
        tag.write_text(etag)
    else:
        tag.unlink(missing_ok=True)


_MOST_UNPACKED = 20
"""Times the archive's own size. Weights hardly shrink; what shrinks more was made to fill a disk."""


def _unpacked(model: Model, archive: Path, folder: Path, inside: str) -> list[RecordedFile]:
    """The archive's files, written below `inside`; the archive itself goes."""
    try:
        with zipfile.ZipFile(archive) as content:
            names = [info.filename for info in content.infolist() if not info.is_dir()]
            if odd := [n for n in names if n.startswith(("/", ".")) or ".." in PurePosixPath(n).parts or "\\" in n]:
                raise FetchFailed(f"The archive of {model.name} holds odd names: {odd[0]!r}.", code="MODEL_DAMAGED")
            if sum(info.file_size for info in content.infolist()) > _MOST_UNPACKED * archive.stat().st_size:
                raise FetchFailed(f"The archive of {model.name} would fill the disk.", code="MODEL_DAMAGED")
            content.extractall(folder / inside, names)
    except zipfile.BadZipFile as exc:
        archive.unlink()
        raise FetchFailed(f"The archive of {model.name} is damaged.", hint="Try again.", code="MODEL_DAMAGED") from exc
    archive.unlink()
    return [recorded(folder, str(PurePosixPath(inside) / name)) for name in names]


def _unreachable(model: Model, exc: Exception) -> FetchFailed:
    address = (_endpoint() or "https://huggingface.co") if model.hub else model.files[0].url
    hint = "What has come is kept; try again. Without a network: videoannotator models import DIR."
    where = urlsplit(address).hostname
    return FetchFailed(f"The model {model.name} could not be fetched from {where}: {_reason(exc)}.", hint=hint)


def _reason(exc: BaseException) -> str:
    """What the innermost error says, in one line: libraries wrap the system's own words up to five times."""
    seen = {id(exc)}
    while (inner := _inside(exc)) is not None and id(inner) not in seen:
        seen.add(id(inner))
        exc = inner
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0].rstrip(".")


def _inside(exc: BaseException) -> BaseException | None:
    reason = getattr(exc, "reason", None)  # urllib3's
    wrapped = exc.args[0] if exc.args else None  # requests'
    inner = (reason, exc.__cause__, wrapped, exc.__context__)
    return next((one for one in inner if isinstance(one, BaseException)), None)


def _check_space(folder: Path, total: int | None, have: int) -> None:
    free = shutil.disk_usage(folder).free
    if total is not None and total - have > free - _KEEP_FREE:
        message = f"{(total - have) / 1e6:.0f} MB have to be fetched, and {free / 1e6:.0f} MB are free in {folder}."
        raise StorageTrouble(message, hint="Free some, or choose another models_dir.", code="STORAGE_FULL")


def _size_of(folder: Path) -> int:
    """Of all files below; some may come or go meanwhile."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(place) / name).lstat().st_size
            except OSError:
                continue
    return total
