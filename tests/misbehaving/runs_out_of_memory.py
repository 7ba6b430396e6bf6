"""An allocation fails."""


def run(stage):
    raise MemoryError
