"""How mediapipe is imported without what it wants at import and nobody uses."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def without_pyplot() -> Iterator[None]:
    """
    Imports of mediapipe inside get an empty matplotlib.

    Its drawing module wants one at import, which costs 1 s of the 1.6 s and writes a font cache; nobody draws here.
    """
    os.environ.setdefault("GLOG_minloglevel", "2")
    absent = [name for name in ("matplotlib", "matplotlib.pyplot") if name not in sys.modules]
    sys.modules.update({name: ModuleType(name) for name in absent})
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
