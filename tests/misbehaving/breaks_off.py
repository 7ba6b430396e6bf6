"""Finds something, keeps it, and breaks off half-way."""

from tests.misbehaving import behaves


def run(stage):
    (stage.output_folder / "out.json").write_text('{"found": 1}')
    stage.keep_partial(behaves.result().outputs)
    raise ValueError("the engine broke at 2.0 s")
