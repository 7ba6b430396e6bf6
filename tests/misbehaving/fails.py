"""A failure the pipeline knows and explains."""

from videoannotator.errors import StageFailed


def run(stage):
    raise StageFailed("The model cannot be read.", code="MODEL_DAMAGED", hint="Fetch it again.", retryable=True)
