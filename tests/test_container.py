"""The files in docker/ keep step with what they start; no Docker is needed to see that."""

import json
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import yaml

from videoannotator.cli import _parser
from videoannotator.settings import Settings

TOP = Path(__file__).parents[1]
DOCKERFILE = (TOP / "docker" / "Dockerfile").read_text()


def copied() -> set[str]:
    """What comes from the repository into the image."""
    lines = re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
    return {name for line in lines for name in line.split()[:-1]}


def test_all_that_the_wheel_is_made_of_is_in_the_image() -> None:
    """A folder that is forgotten is missed when the first user starts the container."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], *wheel["force-include"], *project["project"]["license-files"], "README.md"}

    assert needed == copied()


def test_nothing_else_is_sent_to_the_builder() -> None:
    """Recordings and keys that lie beside the code stay where they are."""
    rules = (TOP / "docker" / "Dockerfile.dockerignore").read_text().splitlines()

    assert rules[1] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied()
    assert any(fnmatch("videoannotator/cli/__pycache__", rule.replace("**", "*")) for rule in rules[2:])


def test_it_starts_and_is_reached_as_the_program_has_it() -> None:
    """Port, health and the command's words, in three files."""
    command = json.loads(re.findall(r"^CMD (.*)$", DOCKERFILE, re.MULTILINE)[-1])
    port = Settings(storage_dir=TOP).port
    compose = yaml.safe_load((TOP / "docker" / "compose.yaml").read_text())["services"]["server"]

    assert _parser().parse_args(command[1:]).host == "0.0.0.0"
    assert f"EXPOSE {port}\n" in DOCKERFILE
    assert f"'VIDEOANNOTATOR_PORT', {port})}}/health" in DOCKERFILE
    assert compose["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert (TOP / "docker" / compose["build"]["context"]).resolve() == TOP
    assert (TOP / compose["build"]["dockerfile"]).is_file()


def test_what_compose_mounts_and_sets_is_what_the_image_has() -> None:
    """A volume beside the storage directory would lose every result with the container."""
    compose = yaml.safe_load((TOP / "docker" / "compose.yaml").read_text())
    server = compose["services"]["server"]
    storage = re.search(r"VIDEOANNOTATOR_STORAGE_DIR=(\S+)", DOCKERFILE)
    names = {f"VIDEOANNOTATOR_{name.upper()}" for name in Settings.__struct_fields__}
    gpu = yaml.safe_load((TOP / "docker" / "compose.gpu.yaml").read_text())

    assert storage is not None
    assert f"VOLUME {storage[1]}\n" in DOCKERFILE
    assert [volume.split(":")[1] for volume in server["volumes"] if volume.split(":")[0] in compose["volumes"]] == [
        storage[1]
    ]
    assert set(server["environment"]) <= names
    assert gpu["services"].keys() == compose["services"].keys()
