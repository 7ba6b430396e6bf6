"""Ends the process without a result, as a library's `exit()` does."""

import os


def run(stage):
    os._exit(stage.config.get("status", 0))
