"""Leaves a file behind that it does not declare."""

from tests.misbehaving import behaves


def run(stage):
    (stage.output_folder / "secret.bin").write_bytes(b"x")
    return behaves.write(stage)
