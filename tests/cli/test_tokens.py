"""`videoannotator tokens`: the way back in for who lost the last key, and the same beside a running server."""

import asyncio
from pathlib import Path

import pytest

from tests.server import ADMIN, serving
from videoannotator.cli import main


async def test_keys_are_made_listed_and_revoked_without_a_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever may write the storage directory may let himself in."""

    async def tokens(*words: str) -> str:
        where = ("--storage-dir", str(tmp_path / "storage"))
        assert await asyncio.to_thread(main, ["tokens", *words, *where]) == 0
        return capsys.readouterr().out

    made = await tokens("make", "Ana", "--scope", "admin", "--days", "1")
    secret = made.split()[-1]
    listed = await tokens("list")
    async with serving(tmp_path, api_key="") as server, server.client(secret) as ana:
        whoami = (await ana.get("/api/v1/auth/whoami")).json()
    capsys.readouterr()
    await tokens("revoke", made.split()[1].rstrip(","))
    after = await tokens("list")

    assert whoami["scopes"] == ["read", "write", "admin"]
    assert "Ana" in listed
    assert "expires" in listed
    assert secret not in listed + after
    assert "revoked" in after


async def test_where_a_server_holds_the_directory_it_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two programs on one database would be one too many."""
    async with serving(tmp_path) as server:
        words = ["tokens", "make", "Ben", "--storage-dir", str(server.storage)]
        code = await asyncio.to_thread(main, [*words, "--server", server.url, "--key", ADMIN])
        secret = capsys.readouterr().out.split()[-1]
        async with server.client(secret) as ben:
            whoami = (await ben.get("/api/v1/auth/whoami")).json()

    assert code == 0
    assert whoami == {"name": "Ben", "scopes": ["read", "write"]}


@pytest.mark.parametrize("words", [("revoke", "tok_x"), ("make", "x", "--days", "0"), ("make", "<>")])
def test_what_cannot_be_done_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    """And the exit code says that the call was wrong."""
    code = main(["tokens", *words, "--storage-dir", str(tmp_path / "storage")])

    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert said.err.startswith("[ERROR] ")
