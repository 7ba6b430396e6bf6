"""Another machine on the network, for tests: it answers as it is told, and remembers what it was asked."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import msgspec


class Asked(msgspec.Struct):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[asyncio.StreamWriter, Asked], Awaitable[None]]


class Elsewhere:
    """`answers` has an Answer for each path; other paths are 404."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[Asked] = []
        self.url = ""
        self.host = ""
        self.open = 0
        """Connections that are open now."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            asked = await _read(reader)
            self.asked.append(asked)
            await self.answers.get(asked.path.partition("?")[0], status(404))(writer, asked)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def elsewhere(
    address: str = "127.0.0.1", port: int = 0, encrypted: ssl.SSLContext | None = None
) -> AsyncIterator[Elsewhere]:
    machine = Elsewhere()
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(machine.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, address, port, ssl=encrypted)
    machine.host = f"{address}:{server.sockets[0].getsockname()[1]}"
    machine.url = f"http://{machine.host}"
    try:
        yield machine
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    async def answer(writer: asyncio.StreamWriter, _: Asked) -> None:
        given = {"content-length": str(len(body))} | {name.replace("_", "-"): said for name, said in headers.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        writer.write(f"HTTP/1.1 {code} Said\r\n{lines}\r\n".encode() + body)

    return answer


def redirect(to: str) -> Answer:
    return status(302, location=to)


def in_turn(*answers: Answer) -> Answer:
    """One after the other; the last one stays."""
    left = list(answers)

    async def answer(writer: asyncio.StreamWriter, asked: Asked) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(writer, asked)

    return answer


def endless(chunk: bytes, pause_seconds: float = 0.0) -> Answer:
    async def answer(writer: asyncio.StreamWriter, _: Asked) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            await writer.drain()
            await asyncio.sleep(pause_seconds)

    return answer


async def _read(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Asked(method, path, headers, await reader.readexactly(int(headers.get("content-length", 0))))
