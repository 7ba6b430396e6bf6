"""The API about itself: the document says all that there is, and nothing that there is not."""

import asyncio
import json
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from tests.api.calls import Call, listed_in, served, spoken_of_in
from tests.server import ADMIN, Served
from videoannotator.server.app import ROUTES
from videoannotator.server.openapi.document import all_codes, compose, undescribed
from videoannotator.server.orders import Order
from videoannotator.server.receive import FILE_FIELD

TOP = Path(__file__).parents[2]
CONTRACT = TOP.parent / "shared" / "API.md"

STILL_MISSING: set[Call] = set()
"""Calls of the contract that the server does not have yet. Empty when version 1 is whole."""

NOT_OVER_HTTP = set(
    """
    BACKUP_DAMAGED NOT_A_BACKUP NOT_A_RESULT NO_DATABASE SAVED_WITH_GAPS STORAGE_NOT_EMPTY TARGET_EXISTS
    TOO_MANY_FILES
    ARTIFACT_EXISTS CANNOT_LISTEN DATABASE_TOO_NEW INVALID_ASSIGNMENT INVALID_CONFIG INVALID_DECLARATION INVALID_PRESET
    ENVIRONMENT_NOT_FOUND INPUT_NOT_WAITING INSTALL_FAILED INVALID_SETTING JOB_BEING_CANCELLED JOB_EXISTS
    JOB_NOT_BEING_CANCELLED LEASE_LOST LOG_NOT_WRITABLE MODEL_FETCH_FAILED MODEL_GATED MODEL_NOT_FOUND NOT_A_FOLDER
    OFFLINE STORAGE_TROUBLE UV_MISSING
    METHOD_NOT_ALLOWED NOT_FOUND NO_VIDEO_FOUND OUTPUT_IN_THE_WAY PATH_NOT_FOUND PORT_IN_USE REFUSED CONFLICT FORBIDDEN
    RESULT_MISSING SCRATCH_NOT_WRITABLE SERVER_NOT_REACHED STAGES_NOT_FINISHED STAGE_NOT_COMPLETED STAGE_NOT_RUNNING
    """.split()  # noqa: SIM905
)
"""Codes that end a program, stay between worker and store, name a kind, or belong to no route of the document."""


@cache
def document() -> dict[str, Any]:
    return compose(ROUTES)


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def validator(schema: dict[str, Any]) -> Any:
    """Of a schema in the document, with formats."""
    whole = {"components": document()["components"]} | schema
    return jsonschema_rs.Draft202012Validator(whole, validate_formats=True)


def test_every_route_is_described():
    """A new route that nobody described is found here; the files are videoannotator/server/openapi/*.yaml."""
    assert [] == undescribed(ROUTES)


def test_the_committed_document_is_the_one_that_is_served():
    """Changes of the API are seen in review. `uv run scripts/openapi` writes it anew."""
    committed = json.loads((TOP / "docs" / "openapi.json").read_text())

    assert committed == json.loads(json.dumps(document()))


def test_the_schemas_are_valid_and_every_reference_leads_somewhere():
    """A generator of clients fails on the first one that does not."""
    text = json.dumps(document())

    references = set(re.findall(r'"#/components/schemas/([^"]+)"', text))

    assert set() == references - document()["components"]["schemas"].keys()
    for name, schema in document()["components"]["schemas"].items():
        assert validator(schema), name


def test_every_operation_has_what_a_reader_needs():
    """A summary, a line for the terminal, a sentence for each parameter, examples of what is sent and answered."""
    lacking: list[str] = []
    for call, operation in operations():
        good = [answer for status, answer in operation["responses"].items() if status < "300"]
        sent = operation.get("requestBody", {}).get("content", {}).values()
        told = {
            "summary": operation["summary"],
            "curl": operation["x-codeSamples"][0]["source"].startswith("curl "),
            "parameters": all(p["description"] and "example" in p for p in operation["parameters"]),
            "good answer": good or "101" in operation["responses"],
            "example of the body": all("example" in c for c in sent),
            "example of the answer": all(
                "example" in content
                for answer in good
                for media, content in list(answer.get("content", {}).items())[:1]
                if media == "application/json"
            ),
        }
        lacking += [f"{call}: {what}" for what, there in told.items() if not there]

    assert [] == lacking


def test_every_example_is_valid():
    """Examples are copied; a wrong one costs everybody who copies it."""
    wrong: list[str] = []
    for call, operation in operations():
        contents = [operation.get("requestBody", {}), *operation["responses"].values()]
        shown = [c for part in contents for c in part.get("content", {}).values()] + operation["parameters"]
        for content in shown:
            if "example" in content:
                errors = validator(content["schema"]).iter_errors(content["example"])
                wrong += [f"{call}: {error.message}" for error in errors]

    assert [] == wrong


def test_every_error_code_is_in_the_document_or_never_goes_over_http():
    """A client that knows the document knows every code that it can meet."""
    page = set(re.findall(r"^\| ((?:`[A-Z_]+` ?)+)", (TOP / "docs" / "errors.md").read_text(), re.MULTILINE))
    explained = {code for cell in page for code in re.findall(r"`([A-Z_]+)`", cell)}

    files = [file for file in (TOP / "videoannotator").rglob("*.py") if "cli" not in file.parts]
    below_the_command_line = "".join(file.read_text() for file in files)
    reachable = {code for code in explained if f'"{code}"' in below_the_command_line or code.endswith("_NOT_FOUND")}
    assert [] == sorted(reachable - all_codes() - NOT_OVER_HTTP)
    assert [] == sorted(all_codes() - explained)


def test_the_page_of_calls_lists_exactly_what_the_server_has():
    """docs/api.md is what people read; it must not fall behind."""
    listed, there = listed_in(TOP / "docs" / "api.md"), served(ROUTES)

    assert [] == sorted(listed.keys() - there.keys())
    assert [] == sorted(there.keys() - listed.keys())


def test_the_page_of_calls_names_the_scopes_that_the_server_asks_for():
    """Who hands out keys reads it there."""
    listed, there = listed_in(TOP / "docs" / "api.md"), served(ROUTES)

    wrong = {
        call: there[call] for call in listed.keys() & there.keys() if there[call] not in _allowed(call, listed[call])
    }

    assert {} == wrong


def test_the_contract_is_kept():
    """../shared/API.md is what other programs were promised."""
    if not CONTRACT.exists():
        pytest.skip("../shared/API.md is not here")
    promised, there = listed_in(CONTRACT).keys() | spoken_of_in(CONTRACT), served(ROUTES).keys()

    missing = {call for call in promised if call not in there and ("GET" != call[0] or ("HEAD", call[1]) not in there)}

    assert [] == sorted(missing - STILL_MISSING)
    assert [] == sorted(STILL_MISSING - missing), "these are there now"


def test_the_form_of_a_submission_has_the_fields_that_are_read():
    """It is the one body that is written down by hand."""
    body = document()["paths"]["/api/v1/jobs"]["post"]["requestBody"]["content"]["multipart/form-data"]

    assert body["schema"]["properties"].keys() == {FILE_FIELD, *Order.__struct_fields__}


async def test_the_document_is_served_to_everybody_and_only_once(server: Served):
    """Generators of clients have no key, and 300 kB are not sent again to who has them."""
    async with server.client() as anybody:
        first = await anybody.get("/openapi.json")
        again = await anybody.get("/openapi.json", headers={"if-none-match": first.headers["etag"]})

    assert first.headers["content-type"] == "application/json"
    assert first.json() == json.loads(json.dumps(document()))
    assert (again.status_code, again.content) == (304, b"")


async def test_the_docs_page_loads_nothing_from_anywhere_else(server: Served):
    """It must work on a machine without a network, and a policy keeps it so."""
    async with server.client() as anybody:
        page = await anybody.get("/docs")

    policy = page.headers["content-security-policy"]
    assert page.headers["content-type"].startswith("text/html")
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert [] == re.findall(r"""(?:src|href)=["']?(?!/openapi.json|data:|#)[^"'> ]+""", page.text)


async def test_the_events_are_as_described(server: Served, clip: Path):
    """What streams say is part of the contract, though no generic tool can check it."""
    done = await server.finished(clip)
    await server.ended((await server.submit(clip, pipelines="fails"))["id"])
    cancelled = await server.submit(clip, config=json.dumps({"behaves": {"steps": 500, "step_seconds": 0.02}}))
    await server.http.post(f"/api/v1/jobs/{cancelled['id']}/cancel")
    await server.ended(cancelled["id"])
    described = document()["paths"]["/api/v1/events/stream"]["get"]["x-events"]

    seen: set[str] = set()
    async with server.http.stream("GET", "/api/v1/events/stream", params={"after": "0"}) as stream:
        kind = ""
        async for line in stream.aiter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                assert [] == [e.message for e in validator(described[kind]).iter_errors(json.loads(line[6:]))], line
                seen.add(kind)
            if {"job.complete", "job.error", "job.cancelled"} <= seen:
                break

    assert done["status"] == "completed"
    assert seen >= {"job.update", "job.complete", "job.error", "job.cancelled"}


async def test_the_lines_for_the_terminal_work(server: Served, clip: Path):
    """They are there to be pasted."""
    if shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    job = await server.finished(clip, "scene_detection")
    line = dict(operations())["GET /api/v1/jobs/{job_id}/results"]["x-codeSamples"][0]["source"]

    told = await _run(server, line.replace("job_01k9xq3vd8f2m7", job["id"]))

    assert json.loads(told)["job_id"] == job["id"]


async def _run(server: Served, line: str) -> bytes:
    here = line.replace("http://127.0.0.1:18011", server.url)
    process = await asyncio.create_subprocess_shell(
        here, stdout=asyncio.subprocess.PIPE, env={"VIDEOANNOTATOR_KEY": ADMIN, "PATH": "/usr/bin:/bin"}
    )
    told, _ = await asyncio.wait_for(process.communicate(), 20)
    return told


def _allowed(call: Call, scope: str) -> set[str]:
    """What a cell of the scope column stands for."""
    match scope:
        case "any key":
            return {"read"}
        case "read / write" | "write / read":
            return {"read"} if call[0] in ("GET", "HEAD") else {"write"}
        case _:
            return {scope}
