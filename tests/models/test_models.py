"""Models: fetched whole and checked, or not here; never a changed byte in a stage, never a token on the disk."""

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub import COMMIT, Hub, serving_hub
from videoannotator.errors import NotFound, Refused
from videoannotator.models.catalogue import Models
from videoannotator.models.fetch import FetchFailed, pull
from videoannotator.models.shelf import RECORD, Shelf

WEIGHTS = bytes(range(256)) * 4096
"""One megabyte."""

REPOSITORY = {
    "config.json": b"{}\n",
    "model.bin": WEIGHTS,
    "tokenizer.json": b'{"a": 1}\n',
    "vocabulary.txt": b"a\nb\n",
    "README.md": b"not wanted",
}
TINY = "faster-whisper-tiny"
GATED = "pyannote-community-1"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:huggingface_hub")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving_hub() as hub:
        hub.repositories["Systran/faster-whisper-tiny"] = dict(REPOSITORY)
        hub.repositories["pyannote/speaker-diarization-community-1"] = {
            "config.yaml": b"version: 4\n",
            "segmentation/pytorch_model.bin": WEIGHTS,
        }
        hub.gated.add("pyannote/speaker-diarization-community-1")
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        yield hub


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "models", Models.load())


def quietly(have: int, total: int | None) -> None:
    return None


def declared(hub: Hub, folder: Path, **fields: str) -> Shelf:
    """A shelf that knows one more model, `plain`, which is a file of the server."""
    folder.mkdir()
    lines = "".join(f"    {name}: '{value}'\n" for name, value in fields.items())
    (folder / "more.yaml").write_text(
        "- name: plain\n  title: A plain file\n  engine: none\n  licence: MIT\n  commercial_use: true\n  citation: c\n"
        f"  page: {hub.url}\n  about_mb: 1\n  required: [weights.onnx]\n  files:\n"
        f"  - path: {'.' if 'unpack' in fields else 'weights.onnx'}\n    url: {hub.url}/weights.onnx\n{lines}"
    )
    return Shelf(folder / "models", Models.load([folder]))


# Fetching from the hub


def test_a_model_of_the_hub_comes_whole_and_checked(hub: Hub, shelf: Shelf) -> None:
    """Its wanted files, pinned to the commit, with their checksums; nothing else, and no cache of the library's."""
    reports: list[tuple[int, int | None]] = []

    record = pull(shelf, TINY, lambda have, total: reports.append((have, total)))

    folder = shelf.path(TINY)
    assert sorted(f.name for f in folder.iterdir()) == sorted([*(REPOSITORY.keys() - {"README.md"}), RECORD])
    assert {f.path: f.sha256 for f in record.files}["model.bin"] == hashlib.sha256(WEIGHTS).hexdigest()
    assert (record.revision, record.checked_against) == (COMMIT, "the hub's checksums")
    assert shelf.state(TINY) == "ready"
    assert shelf.require(TINY).path == str(folder)
    assert reports[-1][1] == sum(len(c) for name, c in REPOSITORY.items() if name != "README.md")
    assert not shelf.fetching(TINY).exists()


def test_of_the_same_weights_in_two_forms_one_is_fetched(hub: Hub, shelf: Shelf) -> None:
    """A gigabyte saved for each language."""
    files = {"config.json": b"{}", "preprocessor_config.json": b"{}", "vocab.json": b"{}"}
    weights = {"pytorch_model.bin": WEIGHTS, "model.safetensors": WEIGHTS[::-1]}
    hub.repositories["facebook/wav2vec2-base-960h"] = files | weights

    record = pull(shelf, "align-en", quietly)

    assert {file.path for file in record.files} == {*files, "model.safetensors"}


def test_what_is_here_is_not_fetched_again(hub: Hub, shelf: Shelf) -> None:
    """`models pull` may be said twice."""
    pull(shelf, TINY, quietly)
    hub.asked.clear()

    pull(shelf, TINY, quietly)

    assert hub.asked == []


def test_a_fetch_that_broke_off_goes_on_from_there(hub: Hub, shelf: Shelf) -> None:
    """Three gigabytes over a hotel's network."""
    hub.repositories["Systran/faster-whisper-tiny"]["model.bin"] = WEIGHTS * 12
    hub.break_after["model.bin"] = 11_000_000  # huggingface_hub writes ten megabytes at a time

    pull(shelf, TINY, quietly)

    assert shelf.verify(TINY)
    assert hub.ranges_asked("model.bin") == [f"bytes={10 * 2**20}-"]


def test_a_fetch_that_was_killed_goes_on_from_there(hub: Hub, shelf: Shelf) -> None:
    """What the library left on the disk is used by the next `models pull`."""
    hub.repositories["Systran/faster-whisper-tiny"]["model.bin"] = WEIGHTS * 12
    hub.always_break["model.bin"] = 11_000_000
    with pytest.raises(FetchFailed):
        pull(shelf, TINY, quietly)
    assert shelf.state(TINY) == "missing"
    hub.always_break.clear()
    hub.asked.clear()

    pull(shelf, TINY, quietly)

    assert shelf.verify(TINY)
    assert hub.ranges_asked("model.bin") == [f"bytes={10 * 2**20}-"]


@pytest.mark.parametrize("path", ["model.bin", "config.json"])
def test_what_the_hub_did_not_announce_is_not_taken(path: str, hub: Hub, shelf: Shelf) -> None:
    """A large file is checked by its sha256, a small one by git's own id."""
    hub.lies[path] = REPOSITORY[path][:-1] + b"?"

    with pytest.raises(FetchFailed, match=path) as caught:
        pull(shelf, TINY, quietly)

    assert caught.value.code == "MODEL_DAMAGED"
    assert shelf.state(TINY) == "missing"
    hub.lies.clear()
    assert pull(shelf, TINY, quietly)


def test_a_gated_model_without_a_token_is_refused_with_what_to_do(hub: Hub, shelf: Shelf) -> None:
    """The one thing that everybody stumbles over."""
    with pytest.raises(Refused, match=r"gated.*no token") as caught:
        pull(shelf, GATED, quietly)

    assert caught.value.code == "MODEL_GATED"
    assert "HF_TOKEN" in caught.value.hint
    assert "huggingface.co/pyannote" in caught.value.hint


def test_a_token_that_the_hub_does_not_know_is_told_as_such(
    hub: Hub, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old token keeps everybody from models that are free for all, and the hub's own words are no help."""
    monkeypatch.setenv("HF_TOKEN", "hf_of_last_year")

    with pytest.raises(FetchFailed, match="does not accept the token in HF_TOKEN") as caught:
        pull(shelf, TINY, quietly)

    assert "hf_of_last_year" not in str(caught.value)


def test_the_token_is_used_and_kept_nowhere(
    hub: Hub, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not in a record, not in a log, not in an error."""
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setenv("HOME", str(tmp_path))

    pull(shelf, GATED, quietly)

    assert shelf.state(GATED) == "ready"
    for file in (f for f in tmp_path.rglob("*") if f.is_file()):
        assert hub.token.encode() not in file.read_bytes(), file


def test_without_a_network_the_message_says_what_else_can_be_done(
    shelf: Shelf, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a stack of connection errors."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")

    with pytest.raises(FetchFailed) as caught:
        pull(shelf, TINY, quietly)

    assert caught.value.message == f"The model {TINY} could not be fetched from 127.0.0.1: Connection refused."
    assert "models import" in caught.value.hint


def test_two_who_want_the_same_fetch_it_once(hub: Hub, shelf: Shelf) -> None:
    """Two jobs of one batch."""
    threads = [threading.Thread(target=pull, args=(shelf, TINY, quietly)) for _ in range(2)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert shelf.state(TINY) == "ready"
    assert len([a for a in hub.asked if a[0] == "GET" and a[1].endswith("model.bin")]) == 1


# Fetching from elsewhere


def test_a_file_is_fetched_over_breaks_in_one_go(hub: Hub, tmp_path: Path) -> None:
    """Each request goes on where the last one ended."""
    hub.files["weights.onnx"] = WEIGHTS
    hub.break_after["/weights.onnx"] = 300_000
    shelf = declared(hub, tmp_path / "more", sha256=hashlib.sha256(WEIGHTS).hexdigest())

    record = pull(shelf, "plain", quietly)

    assert record.checked_against == "declared checksums"
    assert (shelf.path("plain") / "weights.onnx").read_bytes() == WEIGHTS
    assert len(hub.ranges_asked("weights.onnx")) == 1


def test_half_of_one_file_is_never_joined_with_half_of_another(hub: Hub, tmp_path: Path) -> None:
    """The authors put a new one in its place between two attempts."""
    hub.files["weights.onnx"] = WEIGHTS
    shelf = declared(hub, tmp_path / "more")
    part = shelf.fetching("plain")
    part.mkdir(parents=True)
    (part / ".weights.onnx.part").write_bytes(b"old" * 1000)
    (part / ".weights.onnx.tag").write_text('"another"')

    pull(shelf, "plain", quietly)

    assert (shelf.path("plain") / "weights.onnx").read_bytes() == WEIGHTS


def test_another_checksum_than_the_declared_one_is_refused(hub: Hub, tmp_path: Path) -> None:
    """A mirror with other weights in it."""
    hub.files["weights.onnx"] = WEIGHTS
    shelf = declared(hub, tmp_path / "more", sha256="0" * 64)

    with pytest.raises(FetchFailed, match="checksum") as caught:
        pull(shelf, "plain", quietly)

    assert caught.value.code == "MODEL_DAMAGED"
    assert shelf.state("plain") == "missing"


def test_an_archive_is_unpacked_and_goes(hub: Hub, tmp_path: Path) -> None:
    """As the packs of insightface come."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("weights.onnx", WEIGHTS)
    hub.files["weights.onnx"] = packed.getvalue()
    shelf = declared(hub, tmp_path / "more", unpack="zip")

    record = pull(shelf, "plain", quietly)

    assert [f.path for f in record.files] == ["weights.onnx"]
    assert sorted(f.name for f in shelf.path("plain").iterdir()) == [RECORD, "weights.onnx"]


def test_an_archive_writes_nowhere_else(hub: Hub, tmp_path: Path) -> None:
    """The old trick with `../`."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../../evil", b"x")
    hub.files["weights.onnx"] = packed.getvalue()
    shelf = declared(hub, tmp_path / "more", unpack="zip")

    with pytest.raises(FetchFailed, match="odd names"):
        pull(shelf, "plain", quietly)

    assert not list(tmp_path.rglob("evil"))


def test_an_archive_that_would_fill_the_disk_is_not_unpacked(hub: Hub, tmp_path: Path) -> None:
    """A thousandth of its size comes over the line."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights.onnx", bytes(30_000_000))
    hub.files["weights.onnx"] = packed.getvalue()
    shelf = declared(hub, tmp_path / "more", unpack="zip")

    with pytest.raises(FetchFailed, match="fill the disk"):
        pull(shelf, "plain", quietly)

    assert not [file for file in tmp_path.rglob("*") if file.is_file() and file.stat().st_size > 1_000_000]


# On the shelf


def change_a_byte(file: Path) -> None:
    """And leave its times as they were."""
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [change_a_byte, cut, Path.unlink], ids=["changed", "cut", "gone"])
def test_a_damaged_model_is_never_handed_out(damage, hub: Hub, shelf: Shelf) -> None:
    """And it can be pulled again over the damaged one."""
    pull(shelf, TINY, quietly)

    damage(shelf.path(TINY) / "model.bin")

    for fresh in (shelf, Shelf(shelf.folder, shelf.models)):
        with pytest.raises(Refused, match="damaged") as caught:
            fresh.require(TINY)
        assert caught.value.code == "MODEL_DAMAGED"
        assert fresh.state(TINY) == "damaged"
    pull(shelf, TINY, quietly)
    assert shelf.require(TINY)


def test_a_touched_model_is_read_through_once_and_then_trusted(hub: Hub, shelf: Shelf) -> None:
    """A copy or a restored backup has other times and the same bytes."""
    pull(shelf, TINY, quietly)
    os.utime(shelf.path(TINY) / "model.bin")
    assert shelf.state(TINY) == "unchecked"

    shelf.require(TINY)

    assert shelf.state(TINY) == "ready"
    assert Shelf(shelf.folder, shelf.models).state(TINY) == "ready"


def test_half_a_fetch_is_no_model(shelf: Shelf) -> None:
    """The process was killed while it fetched."""
    shelf.fetching(TINY).mkdir(parents=True)
    (shelf.fetching(TINY) / "model.bin").write_bytes(WEIGHTS)
    (shelf.folder / TINY).mkdir()

    with pytest.raises(Refused):
        shelf.require(TINY)
    assert shelf.state(TINY) == "damaged"


def test_a_model_goes_from_one_machine_to_another_by_folder(hub: Hub, shelf: Shelf, tmp_path: Path) -> None:
    """A lab without a network, and a stick."""
    pull(shelf, TINY, quietly)
    other = Shelf(tmp_path / "other", shelf.models)

    record = other.bring_in(shelf.path(TINY), TINY)

    assert (record.revision, record.checked_against) == (COMMIT, "its model.json")
    assert other.require(TINY).sha256 == shelf.require(TINY).sha256
    change_a_byte(shelf.path(TINY) / "model.bin")
    with pytest.raises(Refused, match=r"model\.bin"):
        Shelf(tmp_path / "third", shelf.models).bring_in(shelf.path(TINY), TINY)


def test_a_folder_that_lacks_a_file_is_not_taken(shelf: Shelf, tmp_path: Path) -> None:
    """Of a model that somebody copied in haste."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "model.bin").write_bytes(WEIGHTS)

    with pytest.raises(Refused, match=r"config\.json") as caught:
        shelf.bring_in(tmp_path / "source", TINY)

    assert caught.value.code == "MODEL_INCOMPLETE"
    assert shelf.state(TINY) == "missing"


def test_an_unknown_model_is_answered_with_the_known_ones(shelf: Shelf) -> None:
    """So that a typing error is found at once."""
    with pytest.raises(NotFound, match=TINY):
        shelf.remove("faster-wisper-tiny")


@pytest.mark.parametrize("name", Models.load().names)
def test_a_declared_model_says_what_a_user_must_know(name: str) -> None:
    """Licence, source, and what it is checked against; no checksum is invented."""
    model = Models.load().get(name)

    assert model.licence
    assert model.citation
    assert model.page.startswith("https://")
    assert model.about_mb > 0
    assert model.hub or all(f.url.startswith("https://") for f in model.files)


# The commands


def command(*words: str, folder: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "videoannotator", "models", *words],
        env=os.environ | {"VIDEOANNOTATOR_STORAGE_DIR": str(folder)} | environ,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_commands_as_a_user_types_them(hub: Hub, tmp_path: Path) -> None:
    """Pull, list, verify, where, remove."""
    pulled = command("pull", TINY, folder=tmp_path)
    assert (pulled.returncode, pulled.stderr) == (0, "")
    assert f"[OK] {TINY}: 1.0 MB" in pulled.stdout

    rows = {row["name"]: row for row in json.loads(command("list", "--json", folder=tmp_path).stdout)}
    assert (rows[TINY]["state"], rows[TINY]["sha256"] is not None) == ("ready", True)
    assert (rows["faster-whisper-small"]["state"], rows["faster-whisper-small"]["sha256"]) == ("missing", None)

    where = command("where", TINY, folder=tmp_path).stdout.strip()
    assert Path(where) == tmp_path / "models" / TINY

    change_a_byte(Path(where) / "model.bin")
    verified = command("verify", folder=tmp_path)
    assert verified.returncode == 1
    assert "models pull" in verified.stderr

    assert command("remove", TINY, folder=tmp_path).stdout == f"[OK] {TINY} removed\n"
    assert not Path(where).exists()


def test_the_offline_switch_forbids_a_pull(hub: Hub, tmp_path: Path) -> None:
    """Nothing at all goes out."""
    refused = command("pull", TINY, folder=tmp_path, VIDEOANNOTATOR_OFFLINE="true")

    assert refused.returncode == 2
    assert "models import" in refused.stderr
    assert hub.asked == []
