"""
Videos in, numbers out: what a file holds (`probe`), its pictures (`Frames`), its sound (`sound`).

Time means the same everywhere in here: seconds on the file's own timeline as a browser plays it, taken from
presentation timestamps; `timeline.py` says where zero lies. Files are opened by `opening.py` only, which knows no
network, no second file and no playlist. A file that lies or is damaged is refused (UnreadableVideo) or counted
(Ledger), never passed over in silence. Only stage and probe processes import this room: it loads FFmpeg's libraries.

Nothing is imported here: the prober needs no numpy, and starts in half the time without it.
"""
