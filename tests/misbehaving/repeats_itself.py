"""Reports, and never gets anywhere: a video that is valid for a while and then garbage."""

import time


def run(stage):
    while True:
        stage.report.progress(0.5)
        time.sleep(0.05)
