"""A tenth of the video cannot be decoded."""

from tests.misbehaving import behaves
from videoannotator.jobs import Ledger


def run(stage):
    behaves.write(stage)
    return behaves.result(ledger=Ledger(expected=10, decoded=9, failed=1, processed=9, skipped=0))
