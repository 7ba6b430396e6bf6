"""Takes more and more memory, and holds it."""

import time


def run(stage):
    held = []
    while True:
        held.append(bytearray(b"x") * (16 * 1024**2))
        time.sleep(0.01)
