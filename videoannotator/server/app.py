"""Where the server is put together: every route, and everything that a route is given."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import anyio
from litestar import Litestar
from litestar.di import Provide
from litestar.routes import HTTPRoute

from videoannotator.server import (
    analyze,
    batches,
    datasets,
    docs,
    events,
    jobs,
    metrics,
    page,
    pipelines,
    preferences,
    presets,
    results,
    system,
    tokens,
    upkeep,
    uploads,
    viewer,
)
from videoannotator.server.auth import Caller, Keys, guard
from videoannotator.server.decoding import MAX_BODY_BYTES, ApiRequest
from videoannotator.server.docs import is_ours
from videoannotator.server.front import App, Front, Neighbours
from videoannotator.server.intake import Intake
from videoannotator.server.metrics import Metrics
from videoannotator.server.problems import note, problem
from videoannotator.workspace import Workspace

_UPLOAD_THREADS = 16
"""Most of them wait for the disk most of the time, and those who wait together are served together."""

ROUTES: list[Any] = [
    *system.ROUTES,
    *metrics.ROUTES,
    *tokens.ROUTES,
    *pipelines.ROUTES,
    *presets.ROUTES,
    *preferences.ROUTES,
    *datasets.ROUTES,
    *uploads.ROUTES,
    *jobs.ROUTES,
    *batches.ROUTES,
    *upkeep.ROUTES,
    *analyze.ROUTES,
    *results.ROUTES,
    *events.ROUTES,
    *docs.ROUTES,
    *page.ROUTES,
    *viewer.ROUTES,
]


@asynccontextmanager
async def building(workspace: Workspace, keys: Keys, *, port: int, closing: asyncio.Event) -> AsyncIterator[App]:
    """
    The server as one ASGI application, for as long as the block lasts. Set `closing` to end its event streams and to
    have it refuse new work.
    """
    anyio.get_cancelled_exc_class()  # loads what Litestar would load in the first request, which would wait for it
    threads = ThreadPoolExecutor(_UPLOAD_THREADS, thread_name_prefix="upload")
    try:
        workspace.policy.own_ports.add(port)
        neighbours = Neighbours(workspace.settings, port)
        measured = Metrics()
        async with Intake.open(workspace) as intake:
            given = {
                "workspace": workspace,
                "catalogue": workspace.catalogue,
                "closing": closing,
                "upload_threads": threads,
                "intake": intake,
                "server_metrics": measured,
                "api_keys": keys,
            }
            yield Front(_litestar(given, keys), neighbours=neighbours, closing=closing, metrics=measured)
    finally:
        await asyncio.to_thread(threads.shutdown)


def _litestar(given: dict[str, object], keys: Keys) -> Any:
    """`given`: what route handlers get by name."""
    app = Litestar(
        ROUTES,
        dependencies={
            **{name: Provide(_always(value), sync_to_thread=False) for name, value in given.items()},
            "caller": Provide(_caller, sync_to_thread=False),
        },
        guards=[guard],
        exception_handlers={Exception: problem},
        after_exception=[note],
        request_class=ApiRequest,
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=None,
        logging_config=None,
        debug=False,
    )
    app.state.api_keys = keys
    _name_all_methods(app)
    return app


def _name_all_methods(app: Litestar) -> None:
    """Litestar answers OPTIONS with the methods of a path's first handler alone, though others have come to it."""
    for route in app.routes:
        if isinstance(route, HTTPRoute) and not is_ours(route.route_handler_map["OPTIONS"][0]):
            handler = route.create_options_handler(route.path)
            handler.owner = app
            handler.on_registration(app)
            parameters = handler.create_kwargs_model(path_parameters=route.path_parameters)
            route.route_handler_map["OPTIONS"] = (handler, parameters)


def _always(value: object) -> Callable[[], Any]:
    def provide() -> Any:
        return value

    return provide


def _caller(request: ApiRequest) -> Caller | None:
    caller: Caller | None = request.scope["state"].get("caller")
    return caller
