"""Writes to its log until somebody ends it."""

import os


def run(stage):
    while True:
        os.write(2, b"x" * 65536)
