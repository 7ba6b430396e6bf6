"""Announces a frame that nobody has memory for, and begins to send it."""

import os


def run(stage):
    os.write(stage.report.mouth.fd, (2 * 1024**3).to_bytes(4, "little"))
    while True:
        os.write(stage.report.mouth.fd, b"x" * 65536)
