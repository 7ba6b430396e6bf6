"""A bug in the pipeline."""


def run(stage):
    raise KeyError("there is no such frame")
