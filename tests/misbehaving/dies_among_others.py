"""Dies before anybody has looked, beside a program without an environment and one that has left the group."""

import os
import signal
import subprocess

from tests.misbehaving import behaves


def run(stage):
    in_group = subprocess.Popen(["/bin/sleep", "3600"], env={})
    in_session = subprocess.Popen(["/bin/sleep", "3600"], start_new_session=True)
    behaves.tell_pid(stage, in_group.pid, in_session.pid)
    os.kill(os.getpid(), signal.SIGKILL)
