"""
Which Python environment a stage runs in, and how the extra ones are built.

No single environment can hold the libraries of the field: mediapipe wants numpy 1, WhisperX numpy 2. So a pipeline's
engine names an environment, `default` is the one this program runs in, and the others are built by `uv` from the same
lock file, each in a folder of its own:

    environments/NAME/venv/              the environment
    environments/NAME/program/           a link to this package, which venv finds by a .pth file
    environments/NAME/environment.json   written when it was built and has passed its check

A pipeline from elsewhere brings its environment as `environments/NAME/pyproject.toml` and `uv.lock` beside its YAML.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

import videoannotator
from videoannotator.errors import NotFound, Refused, StorageTrouble, VideoAnnotatorError, there_are
from videoannotator.settings import bundled

DEFAULT = "default"
SPEECH = "speech"
RECORD = "environment.json"
State = Literal["ready", "outdated", "broken", "missing"]
"""`outdated`: of another version of this program; `broken`: begun and not finished, or gone in part."""

# Found by importing, because a library that is there and cannot be loaded is of no use.
_MODULES = {SPEECH: ("whisperx.asr", "whisperx.alignment", "whisperx.diarize")}
_CHECK = "import importlib, sys; [importlib.import_module(m) for m in sys.argv[1:]]"
_OURS = ("videoannotator.runner.child", "videoannotator.media.sound")
_CHECK_SECONDS = 300


class InstallFailed(VideoAnnotatorError):
    code = "INSTALL_FAILED"


class Project(msgspec.Struct, frozen=True):
    """What an environment is built from."""

    folder: Path
    """Holds pyproject.toml and uv.lock."""

    group: str = ""
    """The dependency group, where it is one of several in the same lock."""


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """What environment.json says."""

    version: str
    """Of the program that built it."""

    lock_sha256: str
    python: str


class Environments:
    """The environments below one folder. All methods block: call those that build or check in a thread."""

    def __init__(self, folder: Path, more: Iterable[Path] = ()) -> None:
        self.folder = folder
        self._projects = {SPEECH: Project(bundled("project"), SPEECH)}
        for place in more:
            for file in sorted(place.glob("environments/*/pyproject.toml")):
                self._projects[file.parent.name] = Project(file.parent)

    @property
    def names(self) -> tuple[str, ...]:
        """Those that can be installed."""
        return tuple(self._projects)

    def path(self, name: str) -> Path:
        return self.folder / name

    def state(self, name: str) -> State:
        """A quick look at the record and the interpreter; nothing is started."""
        if name == DEFAULT:
            return "ready"
        self._project(name)
        folder = self.path(name)
        if not folder.exists():
            return "missing"
        try:
            built = msgspec.json.decode((folder / RECORD).read_bytes(), type=Built)
        except (OSError, msgspec.MsgspecError):
            return "broken"
        if not _python(folder).exists():
            return "broken"
        return "ready" if built.version == videoannotator.__version__ else "outdated"

    def interpreter(self, name: str) -> Path:
        """
        The Python that a stage is started with; this package is importable in it.

        Raises:
            Refused: ENVIRONMENT_MISSING, with the command that helps.
        """
        if name == DEFAULT:
            return Path(sys.executable)
        if (state := self.state(name)) != "ready":
            raise Refused(f"The environment {name} is {state}.", hint=self.how_to_get(name), code="ENVIRONMENT_MISSING")
        _link_program(self.path(name))
        return _python(self.path(name))

    def how_to_get(self, name: str) -> str:
        return f"Run: videoannotator install {name}"

    def install(self, name: str, *, offline: bool = False, say: Callable[[str], None]) -> None:
        """
        Build it, or bring it up to date; what is there already is used again. uv's own progress goes to the terminal.

        Raises:
            Refused: UV_MISSING, or the name is not known.
            InstallFailed: uv did not succeed, or the libraries cannot be imported; the environment stays unusable.
            StorageTrouble: the folder cannot be written.
        """
        project, folder = self._project(name), self.path(name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / RECORD).unlink(missing_ok=True)
        except OSError as exc:
            hint = "Choose another environments_dir."
            raise StorageTrouble(
                f"{folder} cannot be written: {exc.strerror}.", hint=hint, code="STORAGE_NOT_WRITABLE"
            ) from exc
        say(f"building the environment {name} in {folder}")
        _sync(project, folder, offline=offline)
        _link_program(folder)
        say("checking that its libraries can be loaded")
        self.check(name)
        built = Built(version=videoannotator.__version__, lock_sha256=_lock_of(project), python=sys.version.split()[0])
        part = folder / f".{RECORD}"
        part.write_bytes(msgspec.json.encode(built))
        part.replace(folder / RECORD)

    def check(self, name: str) -> None:
        """
        Import in it what stages will import.

        Raises:
            InstallFailed: with the last line of the error.
        """
        folder = self.path(name)
        modules = (*_OURS, *_MODULES.get(name, ()))
        try:
            done = subprocess.run(
                [str(_python(folder)), "-P", "-c", _CHECK, *modules],
                capture_output=True,
                text=True,
                timeout=_CHECK_SECONDS,
                check=False,
                env=_clean(os.environ) | {"HF_HUB_OFFLINE": "1", "PYANNOTE_METRICS_ENABLED": "0"},
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise InstallFailed(f"The environment {name} does not start: {exc}.", hint=self.how_to_get(name)) from exc
        if done.returncode != 0:
            (said, *_) = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
            raise InstallFailed(f"The environment {name} is broken: {said}", hint=self.how_to_get(name))

    def is_of_this_lock(self, name: str) -> bool:
        """Whether it was built from the lock file as it is now."""
        built = msgspec.json.decode((self.path(name) / RECORD).read_bytes(), type=Built)
        return built.lock_sha256 == _lock_of(self._project(name))

    def remove(self, name: str) -> bool:
        """Whether there was anything to remove."""
        self._project(name)
        folder = self.path(name)
        if not folder.exists():
            return False
        (folder / RECORD).unlink(missing_ok=True)
        shutil.rmtree(folder)
        return True

    def _project(self, name: str) -> Project:
        if name not in self._projects:
            raise NotFound.of("environment", name, there_are(name, self.names))
        return self._projects[name]


def _sync(project: Project, folder: Path, *, offline: bool) -> None:
    group = ("--no-default-groups", "--group", project.group) if project.group else ("--no-default-groups",)
    # By path: asked for a version, uv takes the first that it finds, which may be a stub that starts nothing.
    command = [
        _uv(),
        "sync",
        "--frozen",
        "--no-install-project",
        "--compile-bytecode",
        *group,
        "--python",
        sys.executable,
    ]
    try:
        done = subprocess.run(
            [*command, "--project", str(project.folder), *_options(offline=offline)],
            env=_clean(os.environ) | {"UV_PROJECT_ENVIRONMENT": str(folder.absolute() / "venv")},
            check=False,
        )
    except OSError as exc:
        raise InstallFailed(f"uv cannot be started: {exc}.") from exc
    if done.returncode != 0:
        hint = "Its message is above. What has come is kept: run it again."
        raise InstallFailed(f"uv ended with exit status {done.returncode}.", hint=hint)


def _options(*, offline: bool) -> list[str]:
    """On a terminal uv shows bars; elsewhere it would name each of 140 packages."""
    return ["--offline"] * offline + ["--quiet"] * (not sys.stderr.isatty())


def _uv() -> str:
    found = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if found is None:
        hint = "Install it (pip install uv, or docs.astral.sh/uv) and run the same again."
        raise Refused("Environments are built by uv, which is not on the PATH.", hint=hint, code="UV_MISSING")
    return found


def _link_program(folder: Path) -> None:
    """Make exactly this package importable there, and nothing else of the environment that this program runs in."""
    ours = Path(videoannotator.__file__).parent.absolute()
    link = folder / "program" / ours.name
    if not (link.is_symlink() and link.readlink() == ours):
        link.parent.mkdir(exist_ok=True)
        part = link.with_name(f".{ours.name}-{os.getpid()}")
        part.symlink_to(ours)
        part.replace(link)
    for site in (folder / "venv" / "lib").glob("python3.*/site-packages"):
        pth, line = site / "videoannotator.pth", f"{link.parent.absolute()}\n"
        if not pth.exists() or pth.read_text() != line:
            pth.write_text(line)


def _clean(environ: Mapping[str, str]) -> dict[str, str]:
    """Without what would lead Python or uv to the environment that this program runs in."""
    return {k: v for k, v in environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}


def _lock_of(project: Project) -> str:
    return hashlib.sha256((project.folder / "uv.lock").read_bytes()).hexdigest()


def _python(folder: Path) -> Path:
    return folder / "venv" / "bin" / "python"
