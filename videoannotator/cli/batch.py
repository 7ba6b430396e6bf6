"""
`videoannotator batch`: a directory of videos through a server that goes on when this command is gone. (`annotate` does
the same without a server, for as long as it runs.)
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from videoannotator.cli.reach import add_server_to, client_of, settings_of

LOOK_SECONDS = 1.0
_LINE_SECONDS = 30.0
"""Where there is no terminal a line is written when something ended, but not more often than this."""

EXIT_INTERRUPTED = 130


def add_to(commands: Any) -> None:
    parser = commands.add_parser(
        "batch",
        help="annotate a directory of videos through a server, with a report at the end",
        description="Videos that the server sees itself (below its data_roots) are annotated in place, others are sent "
        "to it. Ctrl-C leaves the batch to the server; `batch --follow ID` comes back to it. Exit code 0: every video "
        "has a full result, 1: some have not (the report says why), 2: the call cannot be understood.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("videos", nargs="?", metavar="DIRECTORY|DATASET", help="a directory, or a dataset's name or id")
    what.add_argument("--follow", metavar="ID", help="come back to a batch")
    parser.add_argument("--pattern", help="which files, '*.mp4' say (default: whose names end as videos' names do)")
    parser.add_argument(
        "--recursive", action=argparse.BooleanOptionalAction, default=True, help="also in folders below (default)"
    )
    parser.add_argument("--skip-done", action="store_true", help="leave out what went through the same stages before")
    parser.add_argument(
        "--no-cache", action="store_true", help="compute everything, also what was done before; and remember nothing"
    )
    parser.add_argument("--preset", help="a named choice of pipelines; see `videoannotator presets`")
    parser.add_argument("--pipelines", default="", help="pipelines separated by commas; see `videoannotator pipelines`")
    parser.add_argument(
        "--set", action="append", default=[], metavar="PIPELINE.PARAM=VALUE", help="change a parameter; may be repeated"
    )
    parser.add_argument("--tag", action="append", default=[], help="a tag for each job; may be repeated")
    parser.add_argument("--priority", type=int, default=0, help="-100 to 100, higher goes first")
    parser.add_argument("--name", help="a name for people (default: the directory's)")
    parser.add_argument("--report", type=Path, help="where the report goes, .csv or .json (default: ID_report.csv)")
    parser.add_argument("--output", type=Path, help="fetch the results into a folder for each video here")
    parser.add_argument("--no-wait", action="store_true", help="submit, say the batch's id, and leave")
    add_server_to(parser)
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    settings = settings_of(given)
    _check_report(given.report)
    with client_of(given, settings) as client:
        batch_id, names = (given.follow, {}) if given.follow else _submit(client, given, settings)
        if given.no_wait:
            _say(batch_id)
            return 0
        try:
            batch = _follow(client, batch_id)
        except KeyboardInterrupt:
            _say(f"\nThe server goes on with it. Come back with: videoannotator batch --follow {batch_id}")
            return EXIT_INTERRUPTED
        report = client.report(batch_id)
        _save(client, batch_id, given.report or Path(f"{batch_id}_report.csv"), names)
        if given.output is not None:
            _fetch(client, report, given.output, names)
        return _conclude(batch, report, names)


# -- submit


def _submit(client: Any, given: argparse.Namespace, settings: Any) -> tuple[str, dict[str, str]]:
    """The batch, and the name of each upload."""
    order = _order(given, settings)
    folder = Path(given.videos)
    if not folder.is_dir():
        submitted = client.submit_batch(order | _choice(given) | {"dataset_id": _dataset(client, given.videos)})
    elif (dataset_id := _registered(client, folder)) is not None:
        submitted = client.submit_batch(order | _choice(given) | {"dataset_id": dataset_id})
    else:
        return _send(client, given, order, folder)
    _require_some(submitted, given)
    _told(submitted, {})
    return submitted["id"], {}


def _require_some(submitted: dict[str, Any], given: argparse.Namespace) -> None:
    """A pattern with a typo must not look like a night's work that went well. Raises Refused (NO_VIDEO_FOUND)."""
    from videoannotator.errors import Refused

    if not any(submitted[what] for what in ("jobs", "rejected", "skipped", "waiting")):
        which = f" that {given.pattern} fits" if given.pattern else ""
        raise Refused(f"There is no video in {given.videos}{which}.", code="NO_VIDEO_FOUND")


def _order(given: argparse.Namespace, settings: Any) -> dict[str, Any]:
    from videoannotator.cli.inputs import parse_settings
    from videoannotator.pipelines.catalogue import Catalogue

    order: dict[str, Any] = {
        "name": given.name or Path(given.videos).resolve().name or "batch",
        "selected_pipelines": [name.strip() for name in given.pipelines.split(",") if name.strip()],
        "config": parse_settings(given.set, Catalogue.of(settings).type_of),
        "tags": given.tag,
        "priority": given.priority,
        "skip_done": given.skip_done,
        "cache": not given.no_cache,
    }
    return order | ({"preset": given.preset} if given.preset else {})


def _choice(given: argparse.Namespace) -> dict[str, Any]:
    return {"recursive": given.recursive} | ({"pattern": given.pattern} if given.pattern else {})


def _dataset(client: Any, said: str) -> str:
    from videoannotator.errors import Refused

    known = client.datasets()
    found = [one["id"] for one in known if said in (one["id"], one["name"])]
    if not found:
        names = ", ".join(one["name"] for one in known) or "none"
        message = f"{said} is no directory here and no dataset there."
        raise Refused(message, hint=f"Datasets: {names}.", code="NO_VIDEO_FOUND")
    return str(found[0])


def _registered(client: Any, folder: Path) -> str | None:
    """The directory as a dataset; None where the server does not see it, or may not."""
    from videoannotator.errors import Conflict, Refused

    place = folder.resolve()
    known = [one for one in client.datasets() if one.get("base_path") == str(place)]
    if known:
        return str(known[0]["id"])
    for name in (place.name, str(place)[-200:]):
        try:
            return str(client.add_dataset(name or "videos", place)["id"])
        except Conflict:
            continue  # the name is taken by another directory
        except Refused as refusal:
            if refusal.code != "PATH_NOT_ALLOWED":
                raise
            return None
    return None


def _send(client: Any, given: argparse.Namespace, order: dict[str, Any], folder: Path) -> tuple[str, dict[str, str]]:
    """File by file, so that the server begins with the first while the others are on their way."""
    from videoannotator.errors import Refused
    from videoannotator.server.gathering import videos_below

    paths = videos_below(folder, pattern=given.pattern, recursive=given.recursive)
    if not paths:
        raise Refused(f"There is no video in {folder}.", code="NO_VIDEO_FOUND")
    names: dict[str, str] = {}
    batch_id = ""
    for number, path in enumerate(paths, start=1):
        _say(f"[...] sending {path} ({number} of {len(paths)})")
        upload_id = client.upload(folder / path)
        names[upload_id] = path
        if batch_id:
            _told(client.add_videos(batch_id, [upload_id]), names)
        else:
            submitted = client.submit_batch(order | {"videos": [upload_id]})
            batch_id = submitted["id"]
            _told(submitted, names)
    return batch_id, names


def _told(submitted: dict[str, Any], names: dict[str, str]) -> None:
    for one in submitted["rejected"]:
        _say(f"[REJECTED] {names.get(one['video'], one['video'])}: {one['error']['message']}")
    for one in submitted["skipped"]:
        _say(f"[SKIPPED] {names.get(one['video'], one['video'])}: done before by {one['job_id']}")


# -- follow


def _follow(client: Any, batch_id: str) -> dict[str, Any]:
    """Until nothing of it is left to do, also over restarts of the server."""
    from videoannotator.errors import Refused, StorageTrouble

    line = _Line()
    while True:
        try:
            batch: dict[str, Any] = client.batch(batch_id)
            paused = client.health()["worker_info"]["worker_status"] == "paused"
        except (Refused, StorageTrouble) as trouble:
            if trouble.code not in ("SERVER_NOT_REACHED", "SHUTTING_DOWN"):
                raise
            line.show(f"{trouble.message} Trying again.", ended=-1)
        else:
            line.show(
                _progress(batch) + (", the server is paused: its disk is low" if paused else ""), ended=_ended(batch)
            )
            if batch["state"] == "finished":
                line.close()
                return batch
        time.sleep(LOOK_SECONDS)


class _Line:
    """One line that changes on a terminal; elsewhere a line now and then."""

    def __init__(self) -> None:
        self._on_terminal = sys.stdout.isatty()
        self._shown: tuple[str, int] = ("", -2)
        self._at = 0.0

    def show(self, text: str, *, ended: int) -> None:
        if self._on_terminal:
            sys.stdout.write(f"\r\033[K{text}")
            sys.stdout.flush()
        elif ended != self._shown[1] and time.monotonic() - self._at >= _LINE_SECONDS:
            _say(text)
            self._at = time.monotonic()
            self._shown = (text, ended)

    def close(self) -> None:
        if self._on_terminal:
            sys.stdout.write("\r\033[K")


def _progress(batch: dict[str, Any]) -> str:
    counts = batch["counts"]
    parts = [f"{_ended(batch)} of {batch['videos']} videos", f"{batch['progress_pct']:.0f} %"]
    parts += [f"{counts['running']} running"] if counts["running"] else []
    parts += [f"{counts['failed'] + counts['rejected']} failed"] if counts["failed"] + counts["rejected"] else []
    parts += ["paused"] if batch["state"] == "paused" else []
    if "videos_per_hour" in batch:
        parts.append(f"{batch['videos_per_hour']:.1f} videos/h")
    if "eta_seconds" in batch:
        parts.append(f"{_time(batch['eta_seconds'])} left")
    return ", ".join(parts)


def _ended(batch: dict[str, Any]) -> int:
    states = ("completed", "failed", "cancelled", "rejected", "skipped", "removed")
    return sum(int(batch["counts"][state]) for state in states)


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{round(seconds)} s" if minutes < 2 else f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


# -- the end


def _check_report(path: Path | None) -> None:
    from videoannotator.errors import Refused

    if path is not None and path.suffix.lower() not in (".csv", ".json"):
        raise Refused(f"A report is a .csv or a .json file, not {path.name}.", code="INVALID_ASSIGNMENT")


def _save(client: Any, batch_id: str, path: Path, names: dict[str, str]) -> None:
    from videoannotator.artifacts import storage_trouble

    if path.suffix.lower() == ".json":
        import msgspec

        content = msgspec.json.format(msgspec.json.encode(_named(client.report(batch_id), names)), indent=2)
    else:
        content = client.report_table(batch_id)
        for upload_id, name in names.items():
            content = content.replace(upload_id.encode(), _csv_cell(name))
    try:
        path.write_bytes(content)
    except OSError as exc:
        raise storage_trouble(exc, path) from exc
    _say(f"Report: {path}")


def _named(report: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    videos = [line | {"video": names.get(line["video"], line["video"])} for line in report["videos"]]
    return report | {"videos": videos}


def _csv_cell(name: str) -> bytes:
    """In place of an id, which stands in its cell without quotes. RFC 4180."""
    safe = f"'{name}" if name.startswith(("=", "+", "-", "@")) else name
    quoted = safe.replace('"', '""')
    return f'"{quoted}"'.encode()


def _fetch(client: Any, report: dict[str, Any], output: Path, names: dict[str, str]) -> None:
    """`day2/session.mp4` goes to `OUTPUT/day2/session/`."""
    done = [line for line in report["videos"] if line["state"] == "completed"]
    for line in done:
        path = Path(names.get(line["video"], line["video"]))
        client.fetch(line["job_id"], output / path.with_suffix(""))
    _say(f"Results of {len(done)} videos: {output}")


def _conclude(batch: dict[str, Any], report: dict[str, Any], names: dict[str, str]) -> int:
    for line in report["videos"]:
        if line["state"] in ("failed", "rejected", "removed") or line.get("outcome") == "partial":
            mark = "PARTIAL" if line.get("outcome") == "partial" else line["state"].upper()
            said = line.get("error_message", "")
            _say(f"[{mark}] {names.get(line['video'], line['video'])}{': ' + said if said else ''}")
    counts = batch["counts"]
    well = counts["completed"] - counts["partial"] + counts["skipped"]
    mark = "[OK]" if well == batch["videos"] else "[ERROR]"
    rate = f", {batch['videos_per_hour']:.1f} videos/h" if "videos_per_hour" in batch else ""
    told = ", ".join(f"{number} {state}" for state, number in counts.items() if number) or "no video"
    _say(f"{mark} {batch['name']}: {told}{rate}")
    return 0 if well == batch["videos"] else 1


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
