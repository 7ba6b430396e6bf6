"""
A small client of the HTTP API, for the command line and for notebooks: submit, follow, fetch.

    with Client("http://127.0.0.1:18011", key="va_...") as client:
        batch = client.submit_batch({"dataset_id": "ds_...", "preset": "quick"})
        for event in client.follow(batch_id=batch["id"]):
            ...

Answers are the JSON objects of docs/api.md. What the server refuses is raised as the error that it would be in the
server, with the same code; a server that cannot be reached is Refused (SERVER_NOT_REACHED).
"""

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from videoannotator.errors import Conflict, Forbidden, NotFound, Refused, StorageTrouble, VideoAnnotatorError

_TUS = {"Tus-Resumable": "1.0.0"}
_PIECE_BYTES = 8 * 1024**2
_TRIES = 6
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
_KINDS: dict[int, type[VideoAnnotatorError]] = {
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    503: StorageTrouble,
}


class ServerEvent(msgspec.Struct, frozen=True):
    seq: int
    type: str
    data: dict[str, Any]


class Client:
    def __init__(self, url: str, *, key: str = "") -> None:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=_TIMEOUT)
        self._url = url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def health(self) -> dict[str, Any]:
        return self._object("GET", "/system/health")

    # -- jobs and batches

    def job(self, job_id: str) -> dict[str, Any]:
        return self._object("GET", f"/jobs/{job_id}")

    def submit_batch(self, order: dict[str, Any]) -> dict[str, Any]:
        return self._object("POST", "/batches", json=order)

    def add_videos(self, batch_id: str, videos: list[str]) -> dict[str, Any]:
        return self._object("POST", f"/batches/{batch_id}/videos", json={"videos": videos})

    def batch(self, batch_id: str) -> dict[str, Any]:
        return self._object("GET", f"/batches/{batch_id}")

    def batches(self) -> list[dict[str, Any]]:
        """The newest hundred."""
        return list(self._object("GET", "/batches?per_page=100")["batches"])

    def change_batch(self, batch_id: str, action: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """`action` is cancel, pause, resume or retry."""
        return self._object("POST", f"/batches/{batch_id}/{action}", json=body)

    def report(self, batch_id: str) -> dict[str, Any]:
        return self._object("GET", f"/batches/{batch_id}/report")

    def report_table(self, batch_id: str) -> bytes:
        """CSV."""
        return self._call("GET", f"/batches/{batch_id}/report.csv").content

    # -- videos

    def datasets(self) -> list[dict[str, Any]]:
        return list(self._object("GET", "/datasets")["datasets"])

    def add_dataset(self, name: str, base_path: Path) -> dict[str, Any]:
        return self._object("POST", "/datasets", json={"name": name, "base_path": str(base_path)})

    def upload(self, file: Path) -> str:
        """Send a file piece by piece, going on where it broke off; the upload's id."""
        size = file.stat().st_size
        name = base64.b64encode(file.name.encode()).decode()
        begin = _TUS | {"Upload-Length": str(size), "Upload-Metadata": f"filename {name}"}
        place = self._call("POST", "/uploads", headers=begin).headers["location"]
        upload_id = str(place).rstrip("/").rpartition("/")[2]
        offset, left = 0, _TRIES
        with file.open("rb") as content:
            while offset < size:
                try:
                    offset = self._send_piece(upload_id, content.seek(offset), content.read(_PIECE_BYTES))
                    left = _TRIES
                except (httpx.TransportError, Conflict):
                    left -= 1
                    if left == 0:
                        raise
                    time.sleep(1)
                    offset = self._received(upload_id)
        return upload_id

    def _send_piece(self, upload_id: str, offset: int, piece: bytes) -> int:
        headers = _TUS | {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        answer = self._call("PATCH", f"/uploads/{upload_id}", headers=headers, content=piece, through=True)
        return int(answer.headers["upload-offset"])

    def _received(self, upload_id: str) -> int:
        return int(self._call("HEAD", f"/uploads/{upload_id}", headers=_TUS).headers["upload-offset"])

    # -- keys

    def tokens(self) -> list[dict[str, Any]]:
        return list(self._object("GET", "/tokens")["tokens"])

    def make_token(self, name: str, scope: str, days: float | None = None) -> dict[str, Any]:
        """The key with its `secret`, which nobody sees again; without `days` it does not expire."""
        expiry = {} if days is None else {"expires_in_seconds": max(1, round(days * 86400))}
        return self._object("POST", "/tokens", json={"name": name, "scope": scope} | expiry)

    def revoke_token(self, token_id: str) -> None:
        self._call("DELETE", f"/tokens/{token_id}")

    # -- results

    def results(self, job_id: str) -> dict[str, Any]:
        return self._object("GET", f"/jobs/{job_id}/results")

    def fetch(self, job_id: str, folder: Path) -> list[Path]:
        """Every file that the job made, and its manifest, into `folder`, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        names = [file["name"] for result in self.results(job_id)["results"].values() for file in result["files"]]
        return [self._fetch_file(job_id, name, folder / name) for name in (*names, "manifest.json")]

    def _fetch_file(self, job_id: str, name: str, target: Path) -> Path:
        part = target.with_name(f".{target.name}.part")
        with self._http.stream("GET", f"/api/v1/jobs/{job_id}/files/{name}") as answer:
            if answer.status_code != 200:
                answer.read()
                raise _refusal(answer)
            with part.open("wb") as out:
                for block in answer.iter_bytes():
                    out.write(block)
        return part.replace(target)

    # -- what happens

    def follow(self, *, batch_id: str = "", job_id: str = "", after: int | None = None) -> Iterator[ServerEvent]:
        """
        Every event after `after`, or from now on, in order and without a gap, also over a connection that breaks and a
        server that is started again. Ends when nothing answers any more for about half a minute.
        """
        asked = {"batch_id": batch_id, "job_id": job_id}
        place, left = after, _TRIES
        while left:
            parameters = {name: value for name, value in asked.items() if value}
            parameters |= {} if place is None else {"after": str(place)}
            try:
                for event in self._stream(parameters):
                    place, left = event.seq, _TRIES
                    yield event
            except httpx.TransportError:
                pass
            left -= 1
            time.sleep(5)

    def _stream(self, parameters: dict[str, str]) -> Iterator[ServerEvent]:
        waiting = httpx.Timeout(60.0, connect=10.0)
        with self._http.stream("GET", "/api/v1/events/stream", params=parameters, timeout=waiting) as answer:
            if answer.status_code != 200:
                answer.read()
                raise _refusal(answer)
            fields: dict[str, str] = {}
            for line in answer.iter_lines():
                if line:
                    name, _, value = line.partition(":")
                    fields[name] = value.removeprefix(" ")
                elif fields:
                    if "id" in fields:
                        yield ServerEvent(int(fields["id"]), fields["event"], msgspec.json.decode(fields["data"]))
                    fields = {}

    # -- the keeping of the server

    def cleanup(self, *, older_than_days: float, dry_run: bool) -> dict[str, Any]:
        body = {"older_than_days": older_than_days, "dry_run": dry_run}
        return self._object("POST", "/system/cleanup", json=body)

    def erase(self, order: dict[str, Any]) -> dict[str, Any]:
        return self._object("POST", "/system/erase", json=order, timeout=None)

    # -- one call

    def _object(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._call(method, path, **options).json()
        return answer

    def _call(self, method: str, path: str, *, through: bool = False, **options: Any) -> httpx.Response:
        """With `through`, a connection that breaks is the caller's to see."""
        try:
            answer = self._http.request(method, f"/api/v1{path}", **options)
        except httpx.TransportError as exc:
            if through:
                raise
            message = f"The server at {self._url} cannot be reached ({type(exc).__name__})."
            hint = "Start it with `videoannotator serve`, or name another with --server."
            raise Refused(message, hint=hint, code="SERVER_NOT_REACHED") from exc
        if answer.status_code >= 400:
            raise _refusal(answer)
        return answer


def _refusal(answer: httpx.Response) -> VideoAnnotatorError:
    kind = _KINDS.get(answer.status_code, Refused if answer.status_code < 500 else VideoAnnotatorError)
    try:
        error = msgspec.json.decode(answer.content)["error"]
        return kind(str(error["message"]), hint=str(error["hint"] or ""), code=str(error["code"]))
    except (msgspec.DecodeError, KeyError, TypeError):
        message = f"The server answered {answer.status_code} to {answer.request.method} {answer.request.url.path}."
        return kind(message, hint="Is it a VideoAnnotator, of this version?")
