"""
Resumable uploads over HTTP: tus 1.0.0 (https://tus.io/protocols/resumable-upload) with creation, expiration and
termination. What an answer acknowledges is on disk for good; a finished upload goes into a job as `upload_id`.
"""

import asyncio
import base64
import binascii
from concurrent.futures import Executor
from datetime import datetime
from email.utils import format_datetime

from litestar import Response, delete, patch, post, route
from litestar.di import NamedDependency
from litestar.params import FromPath

from videoannotator.errors import Conflict, FieldProblem, InvalidConfig, Refused
from videoannotator.jobs import ResumableUpload
from videoannotator.media.names import shown_name
from videoannotator.server.auth import OPEN, WRITE, Caller, limited
from videoannotator.server.decoding import ApiRequest
from videoannotator.server.growing import Growing, too_long
from videoannotator.server.receive import chunks
from videoannotator.workspace import Workspace

TUS = "1.0.0"
UPLOADS_PATH = "/api/v1/uploads"

_EXTENSIONS = "creation,expiration,termination"
_BODY_TYPE = "application/offset+octet-stream"
_LONGEST_METADATA = 4096
_MOST_DIGITS = 19


@route(UPLOADS_PATH, http_method="OPTIONS", opt=OPEN)
async def describe_uploads(workspace: NamedDependency[Workspace]) -> Response[None]:
    """What this server can do, for tus clients."""
    limits = {"Tus-Extension": _EXTENSIONS, "Tus-Max-Size": str(workspace.settings.max_upload_bytes)}
    return Response(None, status_code=204, headers=limits)


@post(UPLOADS_PATH, status_code=201, opt=limited(WRITE, "submissions"))
async def begin_upload(
    request: ApiRequest, workspace: NamedDependency[Workspace], caller: NamedDependency[Caller]
) -> Response[bytes]:
    """Begin an upload of `Upload-Length` bytes; `Upload-Metadata` may name the file."""
    _require_tus(request)
    length = _whole_number(request, "Upload-Length")
    if length > workspace.settings.max_upload_bytes:
        limit = workspace.settings.max_upload_bytes
        raise Refused(f"This server accepts videos of up to {limit} bytes.", code="VIDEO_TOO_LARGE")
    metadata = request.headers.get("upload-metadata", "")
    upload = await workspace.uploads.begin(caller.id, length=length, filename=_filename(metadata), metadata=metadata)
    headers = {"Location": f"{UPLOADS_PATH}/{upload.id}", "Upload-Offset": "0", **_expires(upload.expires_at)}
    return Response(b"", status_code=201, headers=headers, media_type="text/plain")


@route(UPLOADS_PATH + "/{upload_id:str}", http_method="HEAD", status_code=200, opt=WRITE)
async def look_at_upload(
    request: ApiRequest,
    workspace: NamedDependency[Workspace],
    caller: NamedDependency[Caller],
    upload_id: FromPath[str],
) -> Response[bytes]:
    """How far it is: go on from `Upload-Offset`."""
    _require_tus(request)
    upload = await workspace.uploads.find(upload_id, owner_of(caller))
    headers = {
        "Upload-Offset": str(upload.received),
        "Upload-Length": str(upload.length),
        "Cache-Control": "no-store",
        **_expires(upload.expires_at),
    }
    if upload.metadata:
        headers["Upload-Metadata"] = upload.metadata
    return Response(b"", status_code=200, headers=headers, media_type="text/plain")


@patch(UPLOADS_PATH + "/{upload_id:str}", status_code=204, request_max_body_size=None, opt=WRITE)
async def continue_upload(
    request: ApiRequest,
    workspace: NamedDependency[Workspace],
    caller: NamedDependency[Caller],
    upload_threads: NamedDependency[Executor],
    upload_id: FromPath[str],
) -> Response[None]:
    """More bytes, from `Upload-Offset` on. What arrived before a connection broke is kept."""
    _require_tus(request)
    if request.content_type[0] != _BODY_TYPE:
        hint = f"Send {_BODY_TYPE}."
        raise Refused("Bytes of an upload have another type.", hint=hint, code="UNSUPPORTED_MEDIA_TYPE")
    offset = _whole_number(request, "Upload-Offset")
    with workspace.uploads.held(upload_id):
        upload = await workspace.uploads.find(upload_id, owner_of(caller))
        _require_fit(upload, offset, request.content_length)
        received, expires = await _append(request, upload, workspace, upload_threads)
    return Response(None, status_code=204, headers={"Upload-Offset": str(received), **_expires(expires)})


@delete(UPLOADS_PATH + "/{upload_id:str}", status_code=204, opt=WRITE)
async def drop_upload(
    request: ApiRequest,
    workspace: NamedDependency[Workspace],
    caller: NamedDependency[Caller],
    upload_id: FromPath[str],
) -> None:
    """The upload and what was received of it are gone."""
    _require_tus(request)
    with workspace.uploads.held(upload_id):
        await workspace.uploads.remove(await workspace.uploads.find(upload_id, owner_of(caller)))


def owner_of(caller: Caller) -> str | None:
    """Whose uploads a caller may see: their own, and administrators all."""
    return None if caller.scope == "admin" else caller.id


async def _append(
    request: ApiRequest, upload: ResumableUpload, workspace: Workspace, threads: Executor
) -> tuple[int, datetime]:
    """Whatever ends it, what has arrived is on disk and acknowledged by the next HEAD."""
    growing = Growing(workspace.uploads.path(upload), upload, workspace.settings.min_free_bytes, threads)
    try:
        async for chunk in chunks(request):
            await growing.write(chunk)
            if growing.is_worth_noting:
                await workspace.uploads.note(upload, await growing.sync())
    finally:
        noting = asyncio.create_task(_note(growing, upload, workspace), name=f"note {upload.id}")
        noted = await asyncio.shield(noting)
    growing.raise_trouble()
    return noted


async def _note(growing: Growing, upload: ResumableUpload, workspace: Workspace) -> tuple[int, datetime]:
    received = await growing.close()
    return received, await workspace.uploads.note(upload, received)


def _require_tus(request: ApiRequest) -> None:
    if request.headers.get("tus-resumable") != TUS:
        hint = f"Send the header Tus-Resumable: {TUS}."
        raise Refused("This version of tus is not spoken here.", hint=hint, code="TUS_VERSION_NOT_SUPPORTED")


def _require_fit(upload: ResumableUpload, offset: int, coming: int | None) -> None:
    if offset != upload.received:
        message = f"Upload {upload.id} goes on at byte {upload.received}, not at {offset}."
        raise Conflict(message, hint="Ask with HEAD how far it is.", code="UPLOAD_OFFSET_WRONG")
    if coming is not None and offset + coming > upload.length:
        raise too_long(upload)


def _whole_number(request: ApiRequest, name: str) -> int:
    text = request.headers.get(name.lower())
    if text is None:
        raise _wrong(name, f"The header {name} is missing.", "MISSING_FIELD")
    if not text.isascii() or not text.isdigit() or len(text) > _MOST_DIGITS:
        raise _wrong(name, f"{name} must be a whole number of bytes, not negative.", "INVALID_VALUE")
    return int(text)


def _filename(metadata: str) -> str:
    """What the client calls the file, cleaned; pairs of a name and a value in base64, separated by commas."""
    if len(metadata) > _LONGEST_METADATA or not metadata.isascii() or not metadata.isprintable():
        raise _wrong("Upload-Metadata", f"Upload-Metadata has up to {_LONGEST_METADATA} ASCII characters.")
    for pair in filter(None, map(str.strip, metadata.split(","))):
        name, _, value = pair.partition(" ")
        if name == "filename":
            try:
                return shown_name(base64.b64decode(value, validate=True).decode())
            except (binascii.Error, UnicodeDecodeError):
                raise _wrong("Upload-Metadata", "The filename in Upload-Metadata is not UTF-8 in base64.") from None
    return shown_name("")


def _wrong(field: str, message: str, code: str = "INVALID_VALUE") -> InvalidConfig:
    return InvalidConfig((FieldProblem(field, message, code),))


def _expires(moment: datetime) -> dict[str, str]:
    return {"Upload-Expires": format_datetime(moment, usegmt=True)}


ROUTES = [describe_uploads, begin_upload, look_at_upload, continue_upload, drop_upload]
