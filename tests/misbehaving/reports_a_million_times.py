"""A loop that reports each frame, at a million frames a second."""

from tests.misbehaving import behaves


def run(stage):
    for n in range(1_000_000):
        stage.report.progress(n / 1_000_000 * stage.video.duration_seconds)
    return behaves.write(stage)
