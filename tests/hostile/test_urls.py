"""HOSTILE.md, URLs: what a stranger's URL must not make the server do."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.elsewhere import Elsewhere, elsewhere, endless, in_turn, redirect, status
from tests.server import Served, eventually, serving
from videoannotator.errands.fetch import Fetcher
from videoannotator.errors import Refused, Unreachable
from videoannotator.outbound.policy import Policy
from videoannotator.outbound.targets import target_of

GIB = 1024**3


def fetcher(*allowed: str, max_bytes: int = 10 * 1024**2, timeout_seconds: float = 30, lookup: Any = None) -> Fetcher:
    policy = Policy(allowed, lookup=lookup)
    return Fetcher(policy, max_bytes=max_bytes, min_free_bytes=0, timeout_seconds=timeout_seconds)


@pytest.fixture
async def machine() -> AsyncIterator[Elsewhere]:
    async with elsewhere() as other:
        yield other


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("path", ["/analyze", "/api/v1/analyze", "/api/v1/jobs"])
@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://[::1]/",
        "http://[fe80::1]/",
        "http://[fd00:ec2::254]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[::]/",
        "http://0x7f000001/",
        "http://0x7f.1/",
        "http://2130706433/",
        "http://017700000001/",
        "http://127.1/",
        "http://0/",
        "http://0.0.0.0:22/",
        "http://10.0.0.1/",
        "http://172.16.0.1/",
        "http://192.168.1.1/",
        "http://100.100.100.200/",
        "http://168.63.129.16/",
        "http://192.0.0.192/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "http://localhost/",
        "http://LOCALHOST./",
        "http://x.localhost/",
        "http://a@b/",
        "http://93.184.215.14@127.0.0.1/",
        "http://example.org\\@127.0.0.1/",
        "http://example.org/\r\nHost: localhost",
        "http:///x",
        "http://",
        "http://example.org:99999/",
        "http://example.org:0/",
        "//example.org/x.mp4",
        "example.org/x.mp4",
        "file:///etc/passwd",
        "gopher://127.0.0.1:25/_HELO",
        "ftp://example.org/x.mp4",
        "data:video/mp4;base64,AAAA",
        "javascript:alert(1)",
        "http://" + "a" * 3000,
    ],
)
async def test_a_url_that_is_not_public_web_is_refused_before_anything_is_queued(
    shared: Served, path: str, url: str
) -> None:
    """Cloud metadata, this machine, the intranet, other protocols, and every spelling of them."""
    answer = await shared.http.post(path, json={"video_url": url})

    problem = answer.json()
    assert answer.status_code == 422, answer.text
    assert (problem["error"]["code"], problem["error"]["field"]) in {
        ("URL_NOT_ALLOWED", "video_url"),
        ("INVALID_VALUE", "video_url"),
    }


@pytest.mark.asyncio(loop_scope="module")
async def test_analyze_takes_a_url_and_a_callback_and_nothing_else(shared: Served) -> None:
    """A field that is not read would be a promise that is not kept."""
    answer = await shared.http.post("/analyze", json={"video_url": "http://example.org/x.mp4", "pipelines": ["x"]})

    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "UNKNOWN_FIELD")


async def test_the_server_does_not_call_itself(tmp_path: Path) -> None:
    """Also where its address is allowed: it would ask itself to ask itself."""
    async with serving(tmp_path, outbound_allowed=("127.0.0.0/8", "localhost"), callback_secret="s") as server:
        port = server.url.rpartition(":")[2]
        for host in ("127.0.0.1", "localhost", "127.9.9.9"):
            url = f"http://{host}:{port}/api/v1/jobs"
            fetched = await server.http.post("/analyze", json={"video_url": url})
            called = await server.http.post(
                "/analyze", json={"video_url": "http://example.org/x.mp4", "callback_url": url}
            )
            assert (fetched.status_code, called.status_code) == (422, 422)
            assert called.json()["error"]["field"] == "callback_url"


@pytest.mark.parametrize(
    ("to", "code"),
    [
        ("http://127.0.0.2:{port}/secret", "URL_NOT_ALLOWED"),
        ("http://localhost:{port}/secret", "URL_NOT_ALLOWED"),
        ("http://169.254.169.254/latest/", "URL_NOT_ALLOWED"),
        ("file:///etc/passwd", "URL_NOT_ALLOWED"),
        ("//[::1]/", "URL_NOT_ALLOWED"),
        ("http://x@127.0.0.1:{port}/secret", "URL_NOT_ALLOWED"),
        ("/again", "FETCH_FAILED"),
    ],
)
async def test_a_redirect_is_looked_at_like_the_first_url(
    machine: Elsewhere, tmp_path: Path, to: str, code: str
) -> None:
    """Where the harmless address sends the server is the stranger's choice too; round and round comes to an end."""
    machine.answers |= {
        "/again": redirect(to.format(port=machine.host.rpartition(":")[2])),
        "/secret": status(200, b"secret"),
    }

    with pytest.raises(Refused) as refusal:
        await fetcher(machine.host).fetch(f"{machine.url}/again", tmp_path / "video")

    assert refusal.value.code == code
    assert all(asked.path != "/secret" for asked in machine.asked)
    assert list(tmp_path.iterdir()) == []


async def test_a_redirect_to_an_allowed_place_is_followed(machine: Elsewhere, tmp_path: Path) -> None:
    """Video hosts redirect to their stores all the time; relative ones too."""
    machine.answers |= {"/a": redirect("/b?x=1"), "/b": status(200, b"video")}

    size = await fetcher(machine.host).fetch(f"{machine.url}/a", tmp_path / "video")

    assert (size, (tmp_path / "video").read_bytes()) == (5, b"video")
    assert machine.asked[-1].path == "/b?x=1"


async def test_a_name_that_changes_its_mind_changes_nothing(tmp_path: Path) -> None:
    """DNS rebinding: the address that was checked is the one that is connected to, under the name that was asked."""
    told: list[str] = []

    async def lookup(host: str, port: int) -> list[str]:
        told.append("127.0.0.2" if not told else "127.0.0.1")
        return [told[-1]]

    async with elsewhere("127.0.0.2") as public:
        port = int(public.host.rpartition(":")[2])
        async with elsewhere("127.0.0.1", port) as inside:
            public.answers["/x"] = inside.answers["/x"] = status(200, b"x")
            await fetcher("127.0.0.2/32", lookup=lookup).fetch(f"http://rebind.test:{port}/x", tmp_path / "video")

            with pytest.raises(Refused):
                await fetcher("127.0.0.2/32", lookup=lookup).fetch(f"http://rebind.test:{port}/x", tmp_path / "v2")

    assert told == ["127.0.0.2", "127.0.0.1"]
    assert [asked.headers["host"] for asked in public.asked] == [f"rebind.test:{port}"]
    assert inside.asked == []


async def test_one_private_address_among_public_ones_is_enough(tmp_path: Path) -> None:
    """Otherwise the second try would go there."""

    async def lookup(host: str, port: int) -> list[str]:
        return ["93.184.215.14", "10.0.0.1"]

    with pytest.raises(Refused, match="not a host on the public internet"):
        await fetcher(lookup=lookup).fetch("http://both.test/x", tmp_path / "video")


async def test_a_name_that_does_not_exist_is_said() -> None:
    """As a failure that may pass: name servers have bad moments."""

    async def lookup(host: str, port: int) -> list[str]:
        raise OSError("no such host")

    with pytest.raises(Unreachable, match="cannot be found"):
        await Policy(lookup=lookup).resolve(target_of("http://nowhere.test/x"))


async def test_an_announced_size_beyond_the_limit_is_not_even_begun(machine: Elsewhere, tmp_path: Path) -> None:
    """10 GB, said in the header."""
    machine.answers["/x"] = status(200, content_length=str(10 * GIB))

    with pytest.raises(Refused) as refusal:
        await fetcher(machine.host).fetch(f"{machine.url}/x", tmp_path / "video")

    assert refusal.value.code == "FETCH_TOO_LARGE"
    assert list(tmp_path.iterdir()) == []


async def test_an_endless_answer_ends_at_the_limit_and_leaves_nothing(machine: Elsewhere, tmp_path: Path) -> None:
    """A size that nobody announced is counted."""
    machine.answers["/x"] = endless(b"x" * 65536)

    with pytest.raises(Refused) as refusal:
        await fetcher(machine.host, max_bytes=3 * 1024**2).fetch(f"{machine.url}/x", tmp_path / "video")

    assert refusal.value.code == "FETCH_TOO_LARGE"
    assert list(tmp_path.iterdir()) == []
    await eventually(lambda: _closed(machine))


async def test_an_answer_that_drips_ends_at_the_time_limit(machine: Elsewhere, tmp_path: Path) -> None:
    """It would hold its place for ever."""
    machine.answers["/x"] = endless(b"x", 0.05)

    with pytest.raises(Refused) as refusal:
        await fetcher(machine.host, timeout_seconds=0.5).fetch(f"{machine.url}/x", tmp_path / "video")

    assert refusal.value.code == "FETCH_TOO_SLOW"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
async def test_one_byte_a_second_ends_after_a_minute(machine: Elsewhere, tmp_path: Path) -> None:
    """Long before the time limit: a transfer has a least speed."""
    machine.answers["/x"] = endless(b"x", 1.0)

    with pytest.raises(Refused) as refusal:
        await fetcher(machine.host, timeout_seconds=600).fetch(f"{machine.url}/x", tmp_path / "video")

    assert refusal.value.code == "FETCH_TOO_SLOW"
    assert "KiB a second" in refusal.value.message


@pytest.mark.slow
async def test_ten_gigabytes_end_at_the_limit_with_constant_memory(machine: Elsewhere, tmp_path: Path) -> None:
    """The limit of one gigabyte is met by counting, and nothing stays."""
    import psutil

    before = psutil.Process().memory_info().rss
    machine.answers["/x"] = endless(b"x" * 1024**2)

    with pytest.raises(Refused) as refusal:
        await fetcher(machine.host, max_bytes=GIB, timeout_seconds=300).fetch(f"{machine.url}/x", tmp_path / "video")

    assert refusal.value.code == "FETCH_TOO_LARGE"
    assert psutil.Process().memory_info().rss - before < 64 * 1024**2
    assert list(tmp_path.iterdir()) == []


async def test_a_bad_moment_of_the_other_side_is_waited_out(machine: Elsewhere, tmp_path: Path) -> None:
    """503 and a broken line are tried again; 404 is an answer."""

    async def breaks_off(writer: asyncio.StreamWriter, _: Any) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")

    machine.answers["/x"] = in_turn(status(503), status(200, b"whole"))
    machine.answers["/y"] = in_turn(breaks_off, status(200, b"whole"))

    await asyncio.gather(
        fetcher(machine.host).fetch(f"{machine.url}/x", tmp_path / "a" / "video"),
        fetcher(machine.host).fetch(f"{machine.url}/y", tmp_path / "b" / "video"),
    )
    with pytest.raises(Refused, match="answered 404"):
        await fetcher(machine.host).fetch(f"{machine.url}/nothing", tmp_path / "c" / "video")

    assert (tmp_path / "b" / "video").read_bytes() == b"whole"
    assert [asked.path for asked in machine.asked].count("/nothing") == 1


async def test_a_full_disk_is_no_fault_of_the_other_side(machine: Elsewhere, tmp_path: Path) -> None:
    """It is said as what it is, and not tried again."""
    machine.answers["/x"] = status(200, b"video")
    full = Fetcher(Policy((machine.host,)), max_bytes=10**6, min_free_bytes=2**60, timeout_seconds=10)

    with pytest.raises(Exception, match="disk is full"):
        await full.fetch(f"{machine.url}/x", tmp_path / "video")

    assert len(machine.asked) == 1
    assert list(tmp_path.iterdir()) == []


async def test_secrets_in_a_query_reach_no_message(machine: Elsewhere, tmp_path: Path) -> None:
    """Signed URLs are keys."""
    with pytest.raises(Refused) as refusal:
        await fetcher(machine.host).fetch(f"{machine.url}/x?signature=geheim", tmp_path / "video")

    assert "geheim" not in str(refusal.value)


async def _closed(machine: Elsewhere) -> bool:
    return machine.open == 0


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key and a certificate for `pinned.test`, in one file."""
    made = tmp_path / "pinned.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=pinned.test"
    more = ["-addext", "subjectAltName=DNS:pinned.test", "-keyout", f"{made}.key", "-out", str(made)]
    subprocess.run(["openssl", *words.split(), *more], check=True, capture_output=True)
    made.write_bytes(made.read_bytes() + Path(f"{made}.key").read_bytes())
    return made


async def test_https_is_held_to_the_name_although_the_address_is_pinned(
    tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SNI and certificate are those of the name; another name at the same address is refused."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    names: list[str | None] = []
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda _, name, __: names.append(name)

    async def lookup(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async with elsewhere(encrypted=context) as machine:
        machine.answers["/x"] = status(200, b"x")
        port = machine.host.rpartition(":")[2]
        fetch = fetcher("127.0.0.1/32", lookup=lookup).fetch
        await fetch(f"https://pinned.test:{port}/x", tmp_path / "a" / "video")
        with pytest.raises(Refused, match="no valid certificate"):
            await fetch(f"https://other.test:{port}/x", tmp_path / "b" / "video")

    assert set(names) == {"pinned.test", "other.test"}
    assert [asked.headers["host"] for asked in machine.asked] == [f"pinned.test:{port}"]
