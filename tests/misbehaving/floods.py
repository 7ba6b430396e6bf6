"""Reports as fast as it can, around its own thinning out, without an end."""

import os

from videoannotator.runner.frames import encode
from videoannotator.runner.messages import Log, Progress


def run(stage):
    some = b"".join(encode(Progress(n / 1000, 10.0)) for n in range(1000)) + encode(Log("info", "x" * 100)) * 10
    while True:
        os.write(stage.report.mouth.fd, some)
