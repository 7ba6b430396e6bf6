"""From the first line to the last of a server's life."""

import asyncio
import gc
import sys
from contextlib import suppress

from videoannotator.errors import Refused, StorageTrouble
from videoannotator.logs import ascii_only, configure, get_logger
from videoannotator.server.app import building
from videoannotator.server.auth import Keys
from videoannotator.server.listen import Listener, bind, is_loopback, url_of
from videoannotator.server.stopping import Stopping
from videoannotator.settings import Settings
from videoannotator.workspace import Workspace

log = get_logger(__name__)


def run(settings: Settings) -> int:
    configure(settings)
    try:
        return asyncio.run(_serve(settings))
    except (Refused, StorageTrouble) as exc:
        sys.stderr.write(ascii_only(f"[ERROR] {exc}\n"))
        return 2


async def _serve(settings: Settings) -> int:
    with Stopping() as stopping, bind(settings) as sock:
        async with Workspace.open(settings) as workspace:
            keys = Keys(workspace.store, settings)
            closing = asyncio.Event()
            async with building(workspace, keys, port=sock.getsockname()[1], closing=closing) as app:
                listener = Listener(app)
                serving = asyncio.create_task(listener.run_on(sock), name="http")
                await _until_ready(listener, serving)
                first = await keys.first()
                _say_how_it_is_guarded(settings, keys=len(await workspace.store.tokens()))
                _announce(url_of(sock), first, settings)
                gc.freeze()  # what is here stays; to look through it again and again would stop everybody for 50 ms
                await _until_asked_or_broken(workspace, serving, stopping.asked)
                closing.set()
                await workspace.worker.drain(settings.drain_seconds)
                listener.should_exit = True
                await serving
        return _ending(workspace)


async def _until_ready(listener: Listener, serving: asyncio.Task[None]) -> None:
    ready = asyncio.create_task(listener.ready.wait(), name="ready")
    await asyncio.wait({ready, serving}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        ready.cancel()
        serving.result()


async def _until_asked_or_broken(workspace: Workspace, serving: asyncio.Task[None], asked: asyncio.Event) -> None:
    waiting = {
        asyncio.create_task(asked.wait(), name="signals"),
        asyncio.create_task(workspace.failed.wait(), name="worker ended"),
    }
    try:
        await asyncio.wait({*waiting, serving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def _say_how_it_is_guarded(settings: Settings, *, keys: int) -> None:
    """What an operator wants to see after a change of settings, and an auditor after an accident."""
    log.info(
        "security",
        auth_required=settings.require_auth,
        keys=keys,
        key_from_outside=bool(settings.api_key),
        host=settings.host,
        loopback_only=is_loopback(settings.host),
        allowed_hosts=settings.allowed_hosts,
        allowed_origins=settings.allowed_origins,
        data_roots=settings.data_roots,
        stage_network=settings.stage_network,
    )
    if not settings.require_auth:
        reach = "this machine" if is_loopback(settings.host) else f"everybody who reaches {settings.host}"
        log.warning(
            f"AUTHENTICATION IS OFF: {reach} may read, submit and delete everything. "  # noqa: G004
            "Remove VIDEOANNOTATOR_REQUIRE_AUTH=false to ask for keys."
        )


def _announce(url: str, first_key: str | None, settings: Settings) -> None:
    if first_key is not None:
        sys.stdout.write(f"Admin key, shown this once: {first_key}\n")
        if settings.viewer_dir is not None:
            sys.stdout.write(f"The viewer with this key: {url}/viewer-connect#{first_key}\n")
    sys.stdout.write(f"VideoAnnotator is ready at {url}\n")
    sys.stdout.flush()


def _ending(workspace: Workspace) -> int:
    if workspace.failure is None:
        return 0
    log.critical("stopped because the worker ended", reason=str(workspace.failure))
    return 1
