"""What a stage took of processor, memory, GPU and disk, from the system's own counters to the report of its batch."""

import csv
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import msgspec
import pytest

from tests.clips import Clips
from tests.declared import declare
from tests.program import ADMIN, Process, programs, wait_for
from tests.sample_jobs import new_job, result
from videoannotator.batches import lines
from videoannotator.jobs import Usage
from videoannotator.server.batch_report import as_csv, describe_line
from videoannotator.store.sqlite import SqliteStore
from videoannotator.store.trouble import DATABASE

GIB = 2**30
GPU = "resources: {device: gpu, gpu_memory_bytes: 4294967296, "


@pytest.fixture(scope="session")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with NVIDIA's library as a machine with one card has it; see `tests/nvml.c`."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler to make a driver's library with")
    library = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    source = Path(__file__).parents[1] / "nvml.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return library.parent


@pytest.fixture
def server(tmp_path: Path, nvml: Path) -> Iterator[Callable[..., Process]]:
    declared = declare(tmp_path / "pipelines", "behaves", "takes_a_card")
    yaml = declared / "takes_a_card.yaml"
    yaml.write_text(yaml.read_text().replace("resources: {", GPU).replace("out.json", "card.json"))
    with programs(tmp_path, api_key=ADMIN, pipeline_dirs=str(declared), data_roots=str(tmp_path)) as start:
        yield lambda: start(more={"LD_LIBRARY_PATH": str(nvml), "NVML_LEDGER": str(tmp_path / "ledger")})


def submit(client: httpx.Client, folder: Path, *pipelines: str) -> str:
    dataset = client.post("/api/v1/datasets", json={"name": "d", "base_path": str(folder)}).raise_for_status().json()
    order = {"dataset_id": dataset["id"], "selected_pipelines": pipelines}
    batch_id: str = client.post("/api/v1/batches", json=order).raise_for_status().json()["id"]
    return batch_id


def samples(text: str, name: str) -> dict[str, float]:
    lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_gpu_and_disk_of_a_stage_come_from_the_driver_and_the_system_into_metrics_and_report(
    server: Callable[[], Process], tmp_path: Path, clips: Clips
) -> None:
    """The peak, not the last value: it says on which card the next study fits. On the processor there is none."""
    videos = tmp_path / "videos"
    videos.mkdir()
    shutil.copy(clips.path("h264.mp4"), videos / "visit.mp4")
    process = server()
    with httpx.Client(base_url=process.ready(), headers={"x-api-key": ADMIN}, timeout=30) as client:
        of_the_stage = {'videoannotator_stage_gpu_memory_bytes{pipeline="takes_a_card"}': 3.0 * GIB}
        batch = f"/api/v1/batches/{submit(client, videos, 'behaves', 'takes_a_card')}"
        metrics: list[str] = []

        def finished() -> bool:
            now = client.get(batch).json()
            if not metrics and now["pipelines"]["takes_a_card"].get("peak_gpu_memory_bytes") == 3 * GIB:
                sampled = client.get("/metrics").text
                if samples(sampled, "videoannotator_stage_gpu_memory_bytes") == of_the_stage:
                    metrics.append(sampled)
                    (tmp_path / "ledger.go").touch()
            return bool(now["state"] == "finished")

        wait_for(finished)
        report = client.get(f"{batch}/report").json()
        table = client.get(f"{batch}/report.csv").content.decode("utf-8-sig")
        told = client.get("/api/v1/jobs/" + report["videos"][0]["job_id"]).json()
    wrote = int((tmp_path / "ledger.io").read_text().partition("\nwrite_bytes: ")[2].split()[0])

    assert "completed" == told["status"]
    (line,), pipelines = report["videos"], report["batch"]["pipelines"]
    stages = {stage["pipeline"]: stage for stage in line["stages"]}
    assert 3 * GIB == stages["takes_a_card"]["peak_gpu_memory_bytes"] == line["peak_gpu_memory_bytes"]
    assert 3 * GIB == pipelines["takes_a_card"]["peak_gpu_memory_bytes"]
    assert "peak_gpu_memory_bytes" not in stages["behaves"] | pipelines["behaves"]
    assert wrote <= stages["takes_a_card"]["written_bytes"] == pipelines["takes_a_card"]["written_bytes"]
    assert 0 <= stages["takes_a_card"]["read_bytes"] <= line["read_bytes"]
    assert line["written_bytes"] == sum(stage["written_bytes"] for stage in stages.values())
    assert line["peak_memory_bytes"] == max(stage["peak_memory_bytes"] for stage in stages.values())
    assert line["result_bytes"] == sum(one["result_bytes"] for one in pipelines.values()) > 0
    (row,) = csv.DictReader(io.StringIO(table))
    assert (str(3 * GIB), "") == (row["takes_a_card.peak_gpu_memory_bytes"], row["behaves.peak_gpu_memory_bytes"])
    assert (str(line["written_bytes"]), str(line["result_bytes"])) == (row["written_bytes"], row["result_bytes"])
    card = '{gpu="0",name="Test Card"}'
    for name, figure in (("memory_used_bytes", 3 * GIB), ("memory_total_bytes", 80 * GIB), ("busy_share", 0.42)):
        assert {f"videoannotator_gpu_{name}{card}": figure} == samples(metrics[0], f"videoannotator_gpu_{name}")
    assert samples(metrics[0], "videoannotator_server_written_bytes_total")
    assert wrote <= sum(samples(metrics[0], "videoannotator_stage_written_bytes").values())


def test_a_driver_that_does_not_say_who_holds_memory_still_has_its_card_used(nvml: Path, tmp_path: Path) -> None:
    """In a virtual machine or in MIG mode: what it does not tell is not known, and no reason to compute without it."""
    (tmp_path / "ledger").write_text(f"{os.getpid()} {GIB}\n")
    surroundings = {"LD_LIBRARY_PATH": str(nvml), "NVML_LEDGER": str(tmp_path / "ledger"), "NVML_DECLINES": "1"}

    asked = [
        subprocess.run([sys.executable, "-c", ASKS, str(os.getpid())], env=given, capture_output=True, check=True)
        for given in (os.environ | surroundings, {n: v for n, v in surroundings.items() if n != "NVML_DECLINES"})
    ]

    declined, told = [json.loads(one.stdout) for one in asked]
    free = [79 * GIB]
    assert {"held": 0, "used": None, "free": free, "busy": [None], "by_process": {}} == declined
    assert {"held": GIB, "used": GIB, "free": free, "busy": [0.42], "by_process": {str(os.getpid()): GIB}} == told


ASKS = """
import json, sys
from videoannotator.machine.devices import Nvml
from videoannotator.machine.resources import Gpus

pid, nvml, gpus = int(sys.argv[1]), Nvml(), Gpus()
held, used, looked = nvml.held_by([pid]), nvml.used_by("GPU-test", [pid]), gpus.look()
print(json.dumps({
    "held": held, "used": used, "free": [card.free_bytes for card in nvml.cards()],
    "busy": [gpu.busy_share for gpu in looked], "by_process": gpus.held(),
}))
"""


async def test_a_database_from_before_gpu_and_disk_were_counted_still_tells_what_it_knows(tmp_path: Path) -> None:
    """Years of finished jobs: what was not counted then is left out, and never 0."""
    async with SqliteStore.open(tmp_path) as store:
        (job,) = await store.add(new_job(("scene_detection",)), batch_name="pilot")
        await complete(store, Usage(2**20, 1.5, GIB, 7, 8))
    with closing(sqlite3.connect(tmp_path / DATABASE)) as older:
        for column in ("peak_gpu_memory_bytes", "read_bytes", "written_bytes"):
            older.execute(f"ALTER TABLE stages DROP COLUMN {column}")
        older.execute("PRAGMA user_version = 5")

    async with SqliteStore.open(tmp_path) as store:
        await store.add(new_job(("scene_detection",), batch_id=job.batch_id))
        await complete(store, Usage(2**21, 0.5, 2 * GIB, 70, 80))
        latest = await store.latest_jobs(job.batch_id)
        sizes = await store.batch_result_sizes(job.batch_id)
        tally = (await store.batch_tally(job.batch_id)).pipelines["scene_detection"]

    old, new = [describe_line(line, sizes) for line in lines((), latest)]
    (stage,) = old.stages
    assert (2**20, 1.5, None, None, None) == (
        *(stage.peak_memory_bytes, stage.cpu_seconds),
        *(stage.peak_gpu_memory_bytes, stage.read_bytes, stage.written_bytes),
    )
    assert (None, None, None, 10) == (
        *(old.peak_gpu_memory_bytes, old.read_bytes),
        *(old.written_bytes, old.result_bytes),
    )
    assert (2 * GIB, 70, 80, 10) == (
        *(new.peak_gpu_memory_bytes, new.read_bytes),
        *(new.written_bytes, new.result_bytes),
    )
    assert (2**21, 2.0, 2 * GIB, 70, 80, 20) == (
        *(tally.peak_memory_bytes, tally.cpu_seconds, tally.peak_gpu_memory_bytes),
        *(tally.read_bytes, tally.written_bytes, tally.result_bytes),
    )
    first, second = csv.DictReader(io.StringIO(as_csv([old, new]).decode("utf-8-sig")))
    assert ("", "80") == (first["written_bytes"], second["scene_detection.written_bytes"])
    assert (tmp_path / "videoannotator.version-5.sqlite").exists()


async def test_what_the_cache_served_took_no_time_in_its_batch(tmp_path: Path) -> None:
    """A second night of the same study would count the first night's hours again; a retry's kept stages did run."""
    async with SqliteStore.open(tmp_path) as store:
        (job,) = await store.add(new_job(("scene_detection",)), batch_name="pilot")
        await store.add(new_job(("scene_detection",), batch_id=job.batch_id))
        await complete(store, Usage(2**20, 1.0))
        await complete(store, None, cached=True)

        latest = await store.latest_jobs(job.batch_id)
        tally = (await store.batch_tally(job.batch_id)).pipelines["scene_detection"]
        (metrics,) = (await store.tally()).stages

    lines_of = [describe_line(line, {}) for line in lines((), latest)]
    rows = list(csv.DictReader(io.StringIO(as_csv(lines_of).decode("utf-8-sig"))))
    assert (1.5, 1.5, 1.0) == (tally.seconds, metrics.seconds, tally.cpu_seconds)
    assert [("false", "1.5"), ("true", "1.5")] == [
        (row["scene_detection.cached"], row["scene_detection.seconds"]) for row in rows
    ]


async def complete(store: SqliteStore, usage: Usage | None, *, cached: bool = False) -> None:
    claim = await store.claim("tester")
    assert claim is not None
    await store.start_stage(claim, "scene_detection")
    done = msgspec.structs.replace(result("scene_detection"), usage=usage, cached=cached)
    await store.finish_stage(claim, "scene_detection", done)
    await store.finish(claim)
