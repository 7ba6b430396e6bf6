"""
The tests of faults for as long as you like.

    uv run scripts/soak.py stages VIDEO [--kills 100]     real stages killed at random moments, compared byte by byte
    uv run scripts/soak.py server [--rounds 50]           the server killed at random moments, over HTTP
    uv run scripts/soak.py points                         the server dies at every named point

`--seed N` repeats a run. Exit code 0: everything held; else the first thing that did not, as a traceback.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.path.append(str(Path(__file__).parents[1]))
from tests.clips import Clips
from tests.faults.lives import House
from tests.faults.test_crashes import crash_again_and_again
from tests.killing import files_of, killed_until_final
from videoannotator.jobs import Job
from videoannotator.settings import Settings
from videoannotator.workspace import Selection, Workspace

TOP = Path(__file__).parents[1]
PIPELINES = ("face_analysis", "voice_activity", "scene_detection")


def main() -> None:
    given = _arguments()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="videoannotator-soak-") as folder:
        match given.what:
            case "stages":
                told = asyncio.run(_stages(given, Path(folder)))
            case "server":
                clip = Clips(Path(folder)).path("h264.mp4")
                chance = random.Random(given.seed)
                acknowledged = crash_again_and_again(House(Path(folder)), clip, rounds=given.rounds, chance=chance)
                told = {"kills": given.rounds, "acknowledged": acknowledged, "lost": 0, "published_twice": 0}
            case _:
                tests = ["tests/faults/test_points.py", "-m", "slow or not slow"]
                subprocess.run([sys.executable, "-m", "pytest", "-q", *tests], cwd=TOP, check=True)
                told = {}
    print(json.dumps({"soak": given.what, "seed": given.seed} | told | {"seconds": round(time.monotonic() - began)}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("stages", "server", "points"))
    parser.add_argument("video", nargs="?", type=Path)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    given.video = given.video and given.video.resolve()
    if given.what == "stages" and given.video is None:
        parser.error("stages needs a video, of ten seconds at least")
    return given


async def _stages(given: argparse.Namespace, folder: Path) -> dict[str, int]:
    """Job after job on the same video until there were enough kills; each result is that of an undisturbed run."""
    settings = Settings(
        storage_dir=folder / "storage",
        checkpoint_seconds=0.5,
        crash_attempts=1_000_000,
        retry_base_delay_seconds=0,
        cache="off",
        min_free_bytes=0,
    )
    chance, kills, jobs = random.Random(given.seed), 0, 0
    async with Workspace.open(settings) as workspace:
        undisturbed = await _submit(workspace, given.video)
        await killed_until_final(workspace, undisturbed.id, kills=0, longest_wait=0.1, chance=chance)
        expected = files_of(workspace.artifacts.results(undisturbed.id))
        while kills < given.kills:
            job = await _submit(workspace, given.video)
            most = min(10, given.kills - kills)
            ended, done = await killed_until_final(workspace, job.id, kills=most, longest_wait=4.0, chance=chance)
            kills, jobs = kills + done, jobs + 1
            assert ended.outcome == "full", ended
            assert files_of(workspace.artifacts.results(job.id)) == expected, f"{job.id} differs"
            await workspace.delete(job.id)
    return {"kills": kills, "jobs": jobs, "different": 0}


async def _submit(workspace: Workspace, video: Path) -> Job:
    job = await workspace.admit(video, video.name, Selection(pipelines=PIPELINES), owns_video=False)
    (queued,) = await workspace.submit(job)
    return queued


if __name__ == "__main__":
    main()
