"""Says that it is done, then that it has failed, then goes on."""

import time

from tests.misbehaving import behaves
from videoannotator.jobs import Provenance
from videoannotator.runner.messages import Done, Failed, Progress


def run(stage):
    result = behaves.write(stage)
    provenance = Provenance(pipeline_version="1", engine="none", libraries={})
    say = stage.report.mouth.say
    say(Done(annotations=7, outputs=result.outputs, provenance=provenance))
    say(Failed(code="TOO_LATE", message="never mind"))
    for _ in range(100):
        say(Progress(1.0, 10.0))
    time.sleep(3600)
