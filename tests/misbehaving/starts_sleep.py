"""Starts a long program and forgets it: an ffmpeg, a data loader."""

import subprocess

from tests.misbehaving import behaves


def run(stage):
    behaves.tell_pid(stage, subprocess.Popen(["sleep", "3600"]).pid)
    return behaves.write(stage)
