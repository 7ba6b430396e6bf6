"""What can be run, with what, before a video is sent."""

from typing import Any

import pytest

from tests.server import Served

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_pipelines_list_what_the_browser_client_reads(shared: Served) -> None:
    """VIEWER.md section 6: a name without commas, a label, a version, formats, and whether it is ticked."""
    async with shared.client() as anybody:
        listed = (await anybody.get("/api/v1/pipelines")).json()

    scenes = next(p for p in listed["pipelines"] if p["name"] == "scene_detection")
    assert listed["total"] == len(listed["pipelines"])
    assert scenes["display_name"]
    assert scenes["pipeline_family"]
    assert scenes["version"]
    assert scenes["output_formats"]
    assert scenes["default_enabled"] in (True, False)
    assert all("," not in p["name"] and p["available"] for p in listed["pipelines"])


async def test_a_pipeline_is_its_declaration(shared: Served) -> None:
    """Parameters with type, label, range and unit; models with licence; what it cannot do."""
    one = (await shared.http.get("/api/v1/pipelines/voice_activity")).json()
    schema = (await shared.http.get("/api/v1/pipelines/voice_activity/schema")).json()

    parameter = next(p for p in one["parameters"] if p["name"] == "threshold")
    assert one == schema
    assert parameter.keys() >= {"name", "type", "label", "description", "default", "min", "max"}
    assert one["known_limits"]
    assert one["resources"]["memory_mb"] > 0


@pytest.mark.parametrize(
    ("path", "body", "fields"),
    [
        ("config/validate", {"config": {}}, []),
        ("config/validate", {"config": {"behaves": {"steps": 3}}}, []),
        ("config/validate", {"config": {"behaves": {"steps": 0}, "nope": {}}}, ["behaves.steps", "nope"]),
        ("config/validate", {"config": {"behaves": {}}, "selected_pipelines": ["fails"]}, ["behaves"]),
        ("pipelines/validate", {"config": {}, "pipelines": ["nope"]}, ["selected_pipelines"]),
        ("pipelines/validate", {"config": {"fails": {"x": 1}}, "pipelines": ["fails"]}, ["fails.x"]),
        ("pipelines/behaves/validate", {"config": {"step_seconds": -1}}, ["behaves.step_seconds"]),
        ("pipelines/behaves/validate", {"config": {"steps": True}}, ["behaves.steps"]),
    ],
)
async def test_validation_answers_200_and_names_every_field(
    shared: Served, path: str, body: dict[str, Any], fields: list[str]
) -> None:
    """The browser client shows nothing for an answer that is not 200, and groups by what stands before the dot."""
    answer = await shared.http.post(f"/api/v1/{path}", json=body)

    said = answer.json()
    assert answer.status_code == 200
    assert (said["valid"], [issue["field"] for issue in said["errors"]]) == (not fields, fields)
    assert said["warnings"] == []  # any warning would put a dialogue before each submission
    assert all(issue["message"] and issue["code"] == issue["error_code"] for issue in said["errors"])


async def test_a_valid_config_comes_back_complete(shared: Served) -> None:
    """So that a form can show what will really be used."""
    answer = await shared.http.post("/api/v1/config/validate", json={"config": {"behaves": {"steps": 7}}})

    config = answer.json()["validated_config"]["behaves"]
    assert (config["steps"], config["step_seconds"]) == (7, 0)


async def test_presets_are_stored_replaced_and_removed(shared: Served) -> None:
    """A lab's own settings, under the lab's own name."""
    content = {"version": "2", "description": "ours", "pipelines": {"behaves": {"steps": 2}}}

    put = await shared.http.put("/api/v1/presets/ours", json=content)
    listed = (await shared.http.get("/api/v1/presets")).json()
    again = await shared.http.put("/api/v1/presets/ours", json=content | {"version": "3"})
    one = (await shared.http.get("/api/v1/presets/ours")).json()
    removed = await shared.http.delete("/api/v1/presets/ours")
    gone = await shared.http.get("/api/v1/presets/ours")

    assert (put.status_code, again.status_code, removed.status_code, gone.status_code) == (200, 200, 204, 404)
    assert {p["name"]: p["builtin"] for p in listed["presets"]}.items() >= {"quick": True, "ours": False}.items()
    assert (one["version"], one["pipelines"]) == ("3", {"behaves": {"steps": 2}})


async def test_builtin_presets_cannot_be_changed(shared: Served) -> None:
    """A job's record names them; they must mean the same everywhere."""
    content = {"pipelines": {"behaves": {}}}

    put = await shared.http.put("/api/v1/presets/quick", json=content)
    removed = await shared.http.delete("/api/v1/presets/quick")

    assert (put.status_code, put.json()["error"]["code"]) == (409, "PRESET_BUILT_IN")
    assert removed.status_code == 409


@pytest.mark.parametrize("name", ["Big", "a b", "%3Cscript%3E", "x" * 65, "-x"])
async def test_odd_names_of_presets_are_refused(shared: Served, name: str) -> None:
    """A name stands in addresses and on screens."""
    answer = await shared.http.put(f"/api/v1/presets/{name}", json={"pipelines": {"behaves": {}}})

    assert answer.status_code == 422
