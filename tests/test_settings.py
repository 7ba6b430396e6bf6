"""Settings: where they come from, and that the page about them tells the truth."""

import re
from pathlib import Path

import pytest

from videoannotator.errors import Refused
from videoannotator.settings import Settings, load_settings

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"


def test_every_setting_stands_in_the_docs_with_its_default():
    """A page that falls behind is worse than none."""
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGE.read_text(), flags=re.MULTILINE))

    defaults = Settings()

    assert set(Settings.__struct_fields__) == set(rows)
    for name, told in rows.items():
        value = getattr(defaults, name)
        if told.startswith("`"):
            assert told == f"`{str(value).lower() if isinstance(value, bool) else value}`", name
        else:
            assert (told == "none" and value in ("", (), None)) or name == "storage_dir"


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path, monkeypatch):
    """The order is a promise: what is nearest to the user's hands wins."""
    (tmp_path / "videoannotator.toml").write_text('port = 1001\nhost = "0.0.0.0"\nlog_level = "debug"\n')
    (tmp_path / ".env").write_text("VIDEOANNOTATOR_PORT=1002\nVIDEOANNOTATOR_HOST=127.0.0.2\n")
    monkeypatch.chdir(tmp_path)

    settings = load_settings({"port": 1004, "host": None}, {"VIDEOANNOTATOR_PORT": "1003"})

    assert (1004, "127.0.0.2", "debug") == (settings.port, settings.host, settings.log_level)


def test_lists_and_paths_come_from_the_environment(tmp_path, monkeypatch):
    """The environment only knows text."""
    monkeypatch.chdir(tmp_path)
    environ = {"VIDEOANNOTATOR_DATA_ROOTS": "/a:/b", "VIDEOANNOTATOR_ALLOWED_HOSTS": "lab.example, lab"}

    settings = load_settings(None, environ)

    assert (Path("/a"), Path("/b")) == settings.data_roots
    assert ("lab.example", "lab") == settings.allowed_hosts


@pytest.mark.parametrize("environ", [{"VIDEOANNOTATOR_PORT": "many"}, {"VIDEOANNOTATOR_STAGE_NETWORK": "perhaps"}])
def test_a_value_that_does_not_fit_is_refused_in_one_sentence(environ, tmp_path, monkeypatch):
    """Not with a traceback, and not by falling back to a default."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(Refused, match="A setting is wrong"):
        load_settings(None, environ)


def test_an_unknown_name_in_the_file_is_refused(tmp_path, monkeypatch):
    """A typing error must not be a setting that does nothing."""
    (tmp_path / "videoannotator.toml").write_text("prot = 1\n")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(Refused, match="prot"):
        load_settings(None, {})
