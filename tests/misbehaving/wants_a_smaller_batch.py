"""Runs out of memory with a batch of more than four."""

from tests.misbehaving import behaves, fails_twice


def run(stage):
    fails_twice.attempt(stage)
    if stage.config["batch_size"] > 4:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    return behaves.write(stage)
