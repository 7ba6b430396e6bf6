"""
The probing process: `python -m videoannotator.runner.probe CODE PARENT`. It opens strangers' files so that the server
never does, without a network, with little memory, and can be killed at any moment.
"""

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from videoannotator.errors import UnreadableVideo
from videoannotator.runner import frames, sandbox
from videoannotator.runner.entry import Mouth, leave, load, plain, settle_in
from videoannotator.runner.messages import Log, Probe, Probed, Ready, Unreadable

MOST_MEMORY_BYTES = 2 * 1024**3
"""Of address space, libraries included."""


def main(code: str, parent: int) -> NoReturn:
    hearing, mouth = settle_in(parent)
    sandbox.limit_address_space(MOST_MEMORY_BYTES)
    with suppress(sandbox.CannotCut):  # the demuxers that are allowed open nothing but the file
        sandbox.cut_network()
    probe = load(code)
    mouth.say(Ready())
    while (asked := frames.read(hearing, Probe)) is not None:
        mouth.say(_answer(probe, asked, mouth))
    leave()


def _answer(probe: Callable[..., Any], asked: Probe, mouth: Mouth) -> Probed | Unreadable:
    try:
        return Probed(probe(Path(os.fsdecode(asked.path)), asked.filename))
    except UnreadableVideo as exc:
        return Unreadable(code=exc.code, message=plain(exc.message), hint=plain(exc.hint))
    except MemoryError:
        message = f"{asked.filename} asks for more memory than a video needs."
        return Unreadable(code=UnreadableVideo.code, message=plain(message))
    except Exception as exc:
        mouth.say(Log("error", plain(traceback.format_exc()[-1500:])))
        message = f"{asked.filename} cannot be read ({type(exc).__name__}: {exc})."
        return Unreadable(code=UnreadableVideo.code, message=plain(message))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
