"""Keeps things in its process, says what it finds there, and leaves a mess behind: for stages that share a process."""

import json
import os
import tempfile
import threading
import time

from tests.misbehaving import behaves

kept = []
prepared_in = []


def prepare():
    prepared_in.append(os.getpid())


def run(stage):
    """`mess` names what it leaves: an environment variable, a folder, a mask, a thread, a file open, much memory."""
    mess = stage.config.get("mess", "")
    print(f"run {len(kept)}", flush=True)
    found = {
        "pid": os.getpid(),
        "runs_before": len(kept),
        "prepared": prepared_in == [os.getpid()],
        "folder": os.getcwd(),
        "mask": os.umask(0o077),
        "left": os.environ.get("LEFT_BEHIND", ""),
        "scratch": tempfile.mkdtemp(),
        "device": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
    }
    os.umask(found["mask"])
    (stage.output_folder / "out.json").write_text(json.dumps(found))
    kept.append(stage.config.get("keep", ""))
    if mess == "surroundings":
        os.environ["LEFT_BEHIND"] = "a secret of the last job"
        os.umask(0)
        os.chdir(tempfile.gettempdir())
    if mess == "thread":
        threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    if mess == "memory":
        kept.append(b"x" * 60 * 1024**2)
    if mess == "process" and os.fork() == 0:
        time.sleep(3600)
    if mess == "fails":
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    if mess == "hangs":
        behaves.wait(stage)
    stage.report.progress(stage.video.duration_seconds)
    return behaves.result()
