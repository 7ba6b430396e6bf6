"""The pipelines: `NAME.yaml` declares one, `NAME.py` runs it, `contract.py` says how to add another."""
