"""Can say nothing any more, and lives on."""

import os
import time


def run(stage):
    os.close(stage.report.mouth.fd)
    time.sleep(3600)
