"""The declarations, and the check of configurations against them."""

import math
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.declared import declare
from videoannotator.errors import InvalidConfig, NotFound, Refused
from videoannotator.jobs import Video
from videoannotator.pipelines.catalogue import Catalogue
from videoannotator.presets import builtin_presets

CATALOGUE = Catalogue.load()
SILENT = Video(filename="a.mp4", size_bytes=1, container="mp4", duration_seconds=1.0, video_codec="h264")
BLIND = Video(filename="a.wav", size_bytes=1, container="wav", duration_seconds=1.0, audio_codec="pcm_s16le")


def problems_of(config: dict[str, Any], selected: tuple[str, ...] | None = None) -> dict[str, str]:
    """Field to code."""
    _, problems = CATALOGUE.check(tuple(config) if selected is None else selected, config)
    return {problem.field: problem.code for problem in problems}


@pytest.mark.parametrize("name", CATALOGUE.names)
def test_defaults_are_valid(name: str) -> None:
    """Who gives no parameter must not be refused."""
    declaration = CATALOGUE.get(name)

    complete, problems = CATALOGUE.check([name], {name: declaration.defaults})

    assert {problem.code for problem in problems} <= {"PIPELINE_UNAVAILABLE"}  # no model is here
    assert complete == {name: declaration.defaults}


@pytest.mark.parametrize("name", CATALOGUE.names)
def test_a_declaration_tells_all_a_user_needs(name: str) -> None:
    """It is the only source of documentation, forms and checks."""
    declaration = CATALOGUE.get(name)

    assert declaration.known_limits
    assert declaration.outputs
    assert len({p.name for p in declaration.parameters}) == len(declaration.parameters)
    for parameter in declaration.parameters:
        assert parameter.description.endswith("."), parameter.name
        assert (
            parameter.unit
            or parameter.type not in ("number", "integer")
            or "hreshold" in parameter.label
            or (parameter.max is not None and parameter.max <= 1)
        ), f"{parameter.name} has no unit"
        assert parameter.type != "enum" or parameter.enum
        assert parameter.type not in ("number", "integer") or None not in (parameter.min, parameter.max)


def test_all_errors_are_told_at_once() -> None:
    """One round for each mistake would be a torment."""
    config = {
        "scene_detection": {"detector": "magic", "min_scene_length": -1, "speed": 3},
        "voice_activity": {"threshold": "high", "normalize": 1},
        "unknown": {},
    }

    assert problems_of(config) == {
        "scene_detection.detector": "NOT_A_CHOICE",
        "scene_detection.min_scene_length": "OUT_OF_RANGE",
        "scene_detection.speed": "UNKNOWN_PARAMETER",
        "voice_activity.threshold": "WRONG_TYPE",
        "voice_activity.normalize": "WRONG_TYPE",
        "selected_pipelines": "PIPELINE_NOT_FOUND",
        "unknown": "PIPELINE_NOT_FOUND",
    }


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, True, None, "1", [], {}, 10**400, -(10**400)],
    ids=lambda v: type(v).__name__,
)
def test_no_odd_number_gets_through(value: object) -> None:
    """NaN passes every comparison, and a number too large for a float would crash the check."""
    assert set(problems_of({"scene_detection": {"min_scene_length": value}})) == {"scene_detection.min_scene_length"}


@pytest.mark.parametrize("value", [1.5, True, "2", None, 10**400], ids=lambda v: type(v).__name__)
def test_no_odd_integer_gets_through(value: object) -> None:
    """True is an int in Python, and not here."""
    assert set(problems_of({"scene_detection": {"adaptive_window": value}})) == {"scene_detection.adaptive_window"}


def test_a_whole_number_is_a_number() -> None:
    """JSON of many programs has 1 for 1.0."""
    complete, problems = CATALOGUE.check(["scene_detection"], {"scene_detection": {"min_scene_length": 1}})

    assert problems == ()
    assert isinstance(complete["scene_detection"]["min_scene_length"], float)


@pytest.mark.parametrize(("value", "fits"), [(0.05, True), (0.95, True), (0.0499, False), (0.951, False)])
def test_both_ends_of_a_range_belong_to_it(value: float, fits: bool) -> None:
    """As the declaration says."""
    assert (problems_of({"voice_activity": {"threshold": value}}) == {}) is fits


def test_an_engine_without_its_model_is_refused_with_the_command() -> None:
    """It must not fail at run time."""
    _, (problem,) = CATALOGUE.check(["face_analysis"], {"face_analysis": {"engine": "insightface"}})

    assert problem.field == "selected_pipelines"
    assert "buffalo_l" in problem.message
    assert "videoannotator models pull buffalo_l" in problem.hint


def test_parameters_of_a_pipeline_that_is_not_selected_are_refused() -> None:
    """They would be ignored, and the user would never know."""
    assert problems_of({"voice_activity": {}}, ("scene_detection",)) == {"voice_activity": "NOT_SELECTED"}


@pytest.mark.parametrize("broken", [None, [], "fast", 3])
def test_parameters_must_be_an_object(broken: Any) -> None:
    """JSON can be anything."""
    assert problems_of({"voice_activity": broken}) == {"voice_activity": "WRONG_TYPE"}


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from([*CATALOGUE.names, "other"]),
        st.dictionaries(
            st.sampled_from(["engine", "threshold", "rate", "detector", "normalize", "x"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            ),
        ),
    )
)
def test_no_configuration_breaks_the_check(config: dict[str, Any]) -> None:
    """Whatever a stranger sends is answered with what is wrong, in words that can be sent back."""
    _, problems = CATALOGUE.check(tuple(config), config)

    assert msgspec.json.encode(problems)


def test_the_check_takes_no_time() -> None:
    """The Viewer asks while people type."""
    config = {name: CATALOGUE.get(name).defaults for name in CATALOGUE.names}

    started = time.perf_counter()
    for _ in range(20):
        CATALOGUE.check(CATALOGUE.names, config)

    assert (time.perf_counter() - started) / 20 < 0.02


def test_a_pipeline_without_its_track_is_skipped_beside_others() -> None:
    """A recorder's file still has voices."""
    stages = {s.pipeline: s.skip_because for s in CATALOGUE.plan(BLIND, ["scene_detection", "voice_activity"], {})}

    assert stages["voice_activity"] is None
    assert stages["scene_detection"] is not None
    assert stages["scene_detection"].code == "NO_VIDEO"


def test_a_file_that_has_nothing_for_any_pipeline_is_refused() -> None:
    """A job that does nothing must not be queued."""
    with pytest.raises(InvalidConfig, match="no picture"):
        CATALOGUE.plan(BLIND, ["scene_detection"], {})


@pytest.mark.parametrize("name", [name for name in CATALOGUE.names if CATALOGUE.get(name).needs == "audio"])
def test_whatever_listens_takes_a_silent_video(name: str) -> None:
    """A batch with one silent film in it ends well: nobody is found there, and a note says why."""
    assert CATALOGUE.stage(SILENT, name, CATALOGUE.get(name).defaults).skip_because is None


def test_a_pipeline_of_your_own_may_be_skipped_where_there_is_no_sound(tmp_path: Path) -> None:
    """One that cannot say anything of silence need not be asked."""
    declared = declare(tmp_path, "behaves") / "behaves.yaml"
    declared.write_text(declared.read_text().replace("needs: video", "needs: audio"))

    skipped = Catalogue.load((tmp_path,)).stage(SILENT, "behaves", {}).skip_because

    assert skipped is not None
    assert (skipped.code, "no sound track" in skipped.message) == ("NO_AUDIO", True)


def test_no_selection_is_refused() -> None:
    """See above."""
    with pytest.raises(InvalidConfig, match="No pipeline is selected"):
        CATALOGUE.plan(SILENT, [], {})


def test_an_unknown_pipeline_is_answered_with_the_known_ones() -> None:
    """So that a typing error is found at once."""
    with pytest.raises(NotFound, match="voice_activity"):
        CATALOGUE.get("voice")


@pytest.mark.parametrize(
    "content", ["", "name: other\n", "[", "name: [1]\n", "name: bad\nversion: 1\n", "a: &a [*a]\n"], ids=range(6)
)
def test_a_declaration_that_breaks_the_form_is_refused(tmp_path: Path, content: str) -> None:
    """With the file's name, not a traceback of a parser."""
    (tmp_path / "bad.yaml").write_text(content)

    with pytest.raises(Refused, match=r"bad\.yaml"):
        Catalogue.load([tmp_path])


@pytest.mark.parametrize("preset", builtin_presets().values(), ids=lambda p: p.name)
def test_a_preset_names_what_exists(preset: Any) -> None:
    """A preset that is refused when it is used is worse than none."""
    assert set(problems_of(preset.pipelines).values()) <= {"PIPELINE_UNAVAILABLE"}  # no model is here


def test_quick_is_the_three_pipelines() -> None:
    """What `annotate` does when nothing is said."""
    assert set(builtin_presets()["quick"].pipelines) == {"scene_detection", "face_analysis", "voice_activity"}


@pytest.mark.parametrize("content", ["name: other\nversion: '1'\ndescription: d\npipelines: {}\n", "name: bad\n", "["])
def test_a_preset_that_breaks_the_form_is_refused(tmp_path: Path, content: str) -> None:
    """Strictly: a misspelt field would be a parameter that is not set."""
    (tmp_path / "bad.yaml").write_text(content)

    with pytest.raises(Refused, match=r"bad\.yaml"):
        builtin_presets(tmp_path)
