"""Does what it should, except on a video whose name says poison: there it crashes, as codecs do once a year."""

import os
import signal

from tests.misbehaving import behaves


def run(stage):
    if "poison" in stage.video.filename:
        os.kill(os.getpid(), signal.SIGSEGV)
    return behaves.run(stage)
