"""A message that can be decoded, about a number that is none."""

import math
import time

from videoannotator.runner.messages import Progress


def run(stage):
    stage.report.mouth.say(Progress(math.nan, math.inf))
    time.sleep(3600)
