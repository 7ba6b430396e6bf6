"""A bug in a C library."""

import ctypes


def run(stage):
    ctypes.string_at(0)
