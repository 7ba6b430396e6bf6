"""Does what a stage should, and counts how often it was run at all."""

from tests.misbehaving import behaves, fails_twice


def run(stage):
    fails_twice.attempt(stage)
    return behaves.run(stage)
