"""A stage with everything that is hard to kill around it, whose pids it writes down."""

import ctypes
import os
import signal
import subprocess

from tests.misbehaving import behaves


def run(stage):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    stubborn = ["sh", "-c", "trap '' TERM INT HUP; while :; do sleep 3600; done"]
    own_group = subprocess.Popen(stubborn)
    own_session = subprocess.Popen(stubborn, start_new_session=True)
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        daemon = os.fork()
        if daemon:
            os.write(writing, str(daemon).encode())
            os._exit(0)
        os.execv("/bin/sleep", ["sleep", "3600"])
    os.wait()
    behaves.tell_pid(stage, own_group.pid, own_session.pid, int(os.read(reading, 20)))
    stage.report.progress(1.0)
    if stage.config.get("holds_the_gil"):
        ctypes.PyDLL(None).sleep(3600)
    behaves.wait(stage)
