"""What a monitor reads, and that no caller can make it grow."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.server import Served

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scraped(server: Served) -> Series:
    answer = await server.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(answer.text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(series: Series, name: str, **labels: str) -> float:
    return series[(name, frozenset(labels.items()))]


async def test_metrics_tell_of_jobs_stages_queue_memory_and_disk(server: Served, clip: Path) -> None:
    """What an operator is woken up for."""
    await server.finished(clip)
    await server.finished(clip, "fails")

    told = await scraped(server)

    assert value(told, "videoannotator_jobs", status="completed") == 1
    assert value(told, "videoannotator_jobs", status="pending") == 0
    assert value(told, "videoannotator_stages", pipeline="behaves", status="completed") == 1
    assert value(told, "videoannotator_stages", pipeline="fails", status="failed") == 1
    assert value(told, "videoannotator_stage_seconds", pipeline="behaves", status="completed") > 0
    assert value(told, "videoannotator_queue_oldest_seconds") == 0
    assert value(told, "videoannotator_events_total") > 0
    assert value(told, "videoannotator_jobs_active_max") == 4
    assert 0 < value(told, "videoannotator_storage_free_bytes") < value(told, "videoannotator_storage_total_bytes")
    assert value(told, "videoannotator_http_requests_in_flight") == 1
    assert value(told, "process_resident_memory_bytes") > 10_000_000
    count = "videoannotator_http_request_duration_seconds_count"
    assert value(told, count, method="POST", route="/api/v1/jobs", status="2xx") == 2
    assert value(told, count, method="GET", route="/api/v1/jobs/{job_id}", status="2xx") >= 2


async def test_callers_make_no_new_series(server: Served) -> None:
    """Series with ids or paths in them fill a monitor's disk within a day."""
    async with server.client() as anybody:
        await anybody.get("/never/there")
        await anybody.request("BREW", "/health")
        await scraped(server)
        before = await scraped(server)
        for number in range(50):
            await anybody.get(f"/never/there/{number}")
            await anybody.get(f"/api/v1/pipelines/{number}")
            await anybody.request(f"BREW{number}", "/health")
        await anybody.get("/api/v1/pipelines/x")
    after = await scraped(server)

    new = {dict(labels).get("route") for name, labels in after.keys() - before.keys()}
    assert new <= {"/api/v1/pipelines/{name}", "none", None}
    assert len(after) - len(before) < 80


async def test_metrics_need_a_key(server: Served) -> None:
    """They tell how much a lab works, and on what."""
    async with server.client() as anybody:
        refused = await anybody.get("/metrics")

    assert refused.status_code == 401
