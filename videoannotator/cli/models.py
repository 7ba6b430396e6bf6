"""`models list | pull | verify | import | remove | where`: the weights that do not come inside a package."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

EXIT_SOME_FAILED = 1
_SAY_SECONDS = 0.2
"""Progress as JSON comes no faster."""


def add_to(commands: Any) -> None:
    parser = commands.add_parser("models", help="list, fetch, verify, import and remove models")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="which models there are, which are here, and what their licences allow")
    listing.add_argument("--json", action="store_true", help="print them as JSON")
    listing.set_defaults(run=show)
    pulling = actions.add_parser("pull", help="fetch models; goes on where an earlier fetch broke off")
    pulling.add_argument("names", nargs="+", metavar="NAME")
    pulling.add_argument("--json", action="store_true", help="print progress as JSON lines")
    pulling.set_defaults(run=pull)
    verifying = actions.add_parser("verify", help="read models through and compare them with what was fetched")
    verifying.add_argument("names", nargs="*", metavar="NAME", help="default: all that are here")
    verifying.set_defaults(run=verify)
    importing = actions.add_parser("import", help="take models from a folder, for machines without a network")
    importing.add_argument("folder", type=Path, metavar="DIR", help="a models folder of another machine, or one model")
    importing.add_argument("--name", help="which model the files in DIR are, where they do not say it themselves")
    importing.set_defaults(run=bring_in)
    removing = actions.add_parser("remove", help="delete models")
    removing.add_argument("names", nargs="+", metavar="NAME")
    removing.set_defaults(run=remove)
    asking = actions.add_parser("where", help="print the folder that models lie in, or that of one")
    asking.add_argument("name", nargs="?", metavar="NAME")
    asking.set_defaults(run=where)


def show(given: argparse.Namespace) -> int:
    shelf = _shelf()
    rows = [_row(shelf, model) for model in shelf.models]
    if given.json:
        import msgspec

        _say(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())
        return 0
    for row in rows:
        size = f"{row['size_mb']} MB" if row["size_is_exact"] else f"about {row['size_mb']} MB"
        use = {True: "commercial use allowed", False: "NOT for commercial use", None: "commercial use unclear"}
        gated = "; gated" if row["gated"] else ""
        _say(f"{row['name']:<24} {row['state']:<10} {size:>14}  {row['licence']}, {use[row['commercial_use']]}{gated}")
        _say(f"{'':<24} {row['title']}. Checks: {row['checked_against']}.")
    _say(f"\nThey lie in {shelf.folder}")
    return 0


def pull(given: argparse.Namespace) -> int:
    from videoannotator.errors import Refused
    from videoannotator.models.fetch import pull as fetch
    from videoannotator.settings import load_settings

    shelf = _shelf()
    names = list(dict.fromkeys(shelf.models.get(name).name for name in given.names))
    if load_settings().offline:
        message = "The setting offline forbids every outbound connection."
        raise Refused(message, hint="Take them from a folder: videoannotator models import DIR", code="OFFLINE")
    with _bars(as_json=given.json) as bars:
        for name in names:
            model = shelf.models.get(name)
            bars.say(f"{name}: {model.licence}, {model.page}")
            record = fetch(shelf, name, bars.progress_of(name))
            size = f"{record.size / 1e6:.1f} MB"
            bars.say(f"[OK] {name}: {size}, sha256 {record.sha256[:16]}, checked against {record.checked_against}")
    return 0


def verify(given: argparse.Namespace) -> int:
    from videoannotator.errors import Refused

    shelf = _shelf()
    here = [model.name for model in shelf.models if shelf.state(model.name) != "missing"]
    wrong = 0
    for name in given.names or here:
        try:
            record = shelf.verify(name)
        except Refused as refusal:
            wrong += 1
            sys.stderr.write(f"[ERROR] {refusal}\n")
        else:
            _say(f"[OK] {name}: {len(record.files)} files, {record.size / 1e6:.1f} MB, sha256 {record.sha256}")
    if not given.names and not here:
        _say("No model is here.")
    return EXIT_SOME_FAILED if wrong else 0


def bring_in(given: argparse.Namespace) -> int:
    from videoannotator.errors import NotFound, Refused
    from videoannotator.models.shelf import RECORD

    shelf = _shelf()
    if not given.folder.is_dir():
        raise Refused(f"{given.folder} is no folder.", code="NOT_A_FOLDER")
    if given.name:
        found = {given.name: given.folder}
    elif (given.folder / RECORD).exists() or given.folder.name in shelf.models:
        found = {given.folder.name: given.folder}
    else:
        found = {entry.parent.name: entry.parent for entry in sorted(given.folder.glob(f"*/{RECORD}"))}
    if not found:
        hint = "Say which model it is: --name NAME"
        raise NotFound(f"{given.folder} holds no model that says its name.", hint=hint, code="MODEL_NOT_FOUND")
    for name, folder in found.items():
        record = shelf.bring_in(folder, name)
        size = f"{record.size / 1e6:.1f} MB"
        _say(f"[OK] {name}: {size}, sha256 {record.sha256[:16]}, checked against {record.checked_against}")
    return 0


def remove(given: argparse.Namespace) -> int:
    shelf = _shelf()
    for name in given.names:
        _say(f"[OK] {name} removed" if shelf.remove(name) else f"{name} was not here")
    return 0


def where(given: argparse.Namespace) -> int:
    shelf = _shelf()
    _say(str(shelf.path(shelf.models.get(given.name).name) if given.name else shelf.folder))
    return 0


def _shelf() -> Any:
    from videoannotator.pipelines.supplies import Supplies
    from videoannotator.settings import load_settings

    return Supplies.of(load_settings()).shelf


def _row(shelf: Any, model: Any) -> dict[str, Any]:
    record = shelf.record(model.name)
    return {
        "name": model.name,
        "title": model.title,
        "state": shelf.state(model.name),
        "size_mb": round(record.size / 1e6) if record else model.about_mb,
        "size_is_exact": record is not None,
        "engine": model.engine,
        "licence": model.licence,
        "commercial_use": model.commercial_use,
        "gated": model.gated,
        "citation": model.citation,
        "page": model.page,
        "checked_against": record.checked_against if record else model.how_checked,
        "sha256": record.sha256 if record else None,
        "revision": record.revision if record else model.revision,
    }


class _Lines:
    """Progress where there is no terminal: a line for each tenth; or as JSON, a line for each report that is news."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._told: dict[str, int] = {}
        self._said_at = 0.0

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def say(self, line: str) -> None:
        if not self._as_json:
            _say(line)

    def progress_of(self, name: str) -> Any:
        def on_progress(have: int, total: int | None) -> None:
            step = have * 10 // total if total else have // 10_000_000
            if self._as_json and (have == total or time.monotonic() - self._said_at >= _SAY_SECONDS):
                self._said_at = time.monotonic()
                _say_json({"model": name, "bytes": have, "total": total})
            elif self._as_json:
                return
            elif step > self._told.get(name, 0):
                self._told[name] = step
                _say(f"  {name}: {have / 1e6:.0f}" + (f" of {total / 1e6:.0f}" if total else "") + " MB")

        return on_progress


class _Bars:
    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.progress import TransferSpeedColumn as SpeedColumn

        self._console = Console(highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), DownloadColumn(), SpeedColumn())
        self._progress = Progress(*columns, TimeRemainingColumn(), console=self._console, transient=True)

    def __enter__(self) -> "_Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)

    def progress_of(self, name: str) -> Any:
        task = self._progress.add_task(name, total=None)

        def on_progress(have: int, total: int | None) -> None:
            self._progress.update(task, completed=have, total=total)

        return on_progress


def _bars(*, as_json: bool) -> Any:
    return _Bars() if sys.stdout.isatty() and not as_json else _Lines(as_json=as_json)


def _say_json(value: Any) -> None:
    import msgspec

    _say(msgspec.json.encode(value).decode())


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
