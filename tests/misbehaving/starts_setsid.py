"""Starts a program that leaves its group and its session."""

import subprocess

from tests.misbehaving import behaves


def run(stage):
    behaves.tell_pid(stage, subprocess.Popen(["sleep", "3600"], start_new_session=True).pid)
    return behaves.write(stage)
