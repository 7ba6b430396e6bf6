"""
Videos in, numbers out: what a file holds (`probe`), its pictures (`Frames`), its sound (`sound`).

Time means the same everywhere in here: seconds on the file's own timeline as a browser plays it, taken from
presentation timestamps; `timeline.py` says where zero lies. Files are opened by `opening.py` only, which knows no
network, no second file and no playlist. A file that lies or is damaged is refused (UnreadableVideo) or counted
(Ledger), never passed over in silence. Only stage and probe processes import this room: it loads FFmpeg's libraries.
"""

from videoannotator.media.frames import Frame, Frames
from videoannotator.media.names import shown_name
from videoannotator.media.probe import probe
from videoannotator.media.sound import SAMPLE_RATE, Sound, sound

__all__ = ["SAMPLE_RATE", "Frame", "Frames", "Sound", "probe", "shown_name", "sound"]
