"""Looked at fewer frames than there were, and does not say why."""

from tests.misbehaving import behaves
from videoannotator.jobs import Ledger


def run(stage):
    behaves.write(stage)
    return behaves.result(ledger=Ledger(expected=10, decoded=10, failed=0, processed=5, skipped=4))
