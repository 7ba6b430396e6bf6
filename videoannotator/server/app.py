"""Where the server is put together: every route, and everything that a route is given."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar
from litestar.di import Provide
from litestar.routes import HTTPRoute

from videoannotator.pipelines.catalogue import Catalogue
from videoannotator.server import (
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

_UPLOAD_THREADS = 8

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
    threads = ThreadPoolExecutor(_UPLOAD_THREADS, thread_name_prefix="upload")
    try:
        neighbours = Neighbours(workspace.settings, port)
        measured = Metrics()
        async with Intake.open(workspace) as intake:
            app = _litestar(workspace, keys, closing, threads, intake, measured)
            yield Front(app, neighbours=neighbours, closing=closing, metrics=measured)
    finally:
        await asyncio.to_thread(threads.shutdown)


def _litestar(
    workspace: Workspace,
    keys: Keys,
    closing: asyncio.Event,
    threads: Executor,
    intake: Intake,
    server_metrics: Metrics,
) -> Any:
    def provide_workspace() -> Workspace:
        return workspace

    def provide_catalogue() -> Catalogue:
        return workspace.catalogue

    def provide_closing() -> asyncio.Event:
        return closing

    def provide_threads() -> Executor:
        return threads

    def provide_intake() -> Intake:
        return intake

    def provide_server_metrics() -> Metrics:
        return server_metrics

    def provide_api_keys() -> Keys:
        return keys

    def provide_caller(request: ApiRequest) -> Caller | None:
        caller: Caller | None = request.scope["state"].get("caller")
        return caller

    app = Litestar(
        ROUTES,
        dependencies={
            "workspace": Provide(provide_workspace, sync_to_thread=False),
            "catalogue": Provide(provide_catalogue, sync_to_thread=False),
            "closing": Provide(provide_closing, sync_to_thread=False),
            "upload_threads": Provide(provide_threads, sync_to_thread=False),
            "intake": Provide(provide_intake, sync_to_thread=False),
            "server_metrics": Provide(provide_server_metrics, sync_to_thread=False),
            "api_keys": Provide(provide_api_keys, sync_to_thread=False),
            "caller": Provide(provide_caller, sync_to_thread=False),
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
