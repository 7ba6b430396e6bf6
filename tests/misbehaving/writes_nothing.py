"""Declares a file and does not write it."""

from tests.misbehaving import behaves


def run(stage):
    return behaves.result()
