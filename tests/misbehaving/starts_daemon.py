"""Forks twice, leaves its session and throws its environment away: what a daemon does, and somebody who hides."""

import os
import time

from tests.misbehaving import behaves


def run(stage):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            behaves.tell_pid(stage)
            os.execve("/bin/sleep", ["sleep", "3600"], {})
        os._exit(0)
    os.wait()
    time.sleep(0.1)
    return behaves.write(stage)
