"""Never comes back, and reports nothing."""

import time


def run(stage):
    stage.report.progress(0.5)
    time.sleep(3600)
