"""A headless engine that annotates videos of behaviour: scenes, faces, voices, in the field's standard formats."""

import sys

__version__ = "0.1.0"

# msgspec wants typing_extensions for what typing itself has since 3.11, which it takes where the other is missing. To
# load it took a tenth of the start of each of our processes.
if "typing_extensions" not in sys.modules:
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]  # an import of it fails now
    import msgspec  # noqa: F401

    del sys.modules["typing_extensions"]
