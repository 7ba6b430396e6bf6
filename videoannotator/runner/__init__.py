"""
One stage, one process, so that a stage can be killed.

The birth. A stage process is forked from a nursery of the stage's interpreter, a process with nothing in it but what
every stage needs (`nursery.py`, `births.py`); where there can be none it is a new interpreter, `python -m
videoannotator.runner.child PARENT`. It is in a session of its own before the server hears its number.

The conversation. The parent writes one `Start` to its standard input, which stays open: when it closes, the parent is
gone, and the child kills its own group. The child's first act is to move its standard output, a pipe to the parent, to
a private descriptor, and to point descriptor 1 at its log, so that no `print` can break in. It then says `Progress` and
`Log` as often as it likes (the parent hands on some twenty a second and stops reading for a while when there are more),
and at last `Done` or `Failed`. The first of these decides, whatever is said or happens after it; without one the stage
has died without a word. Frames are `u32 little-endian length | msgpack`; a longer one than MAX_FRAME_BYTES, or one that
cannot be read, ends the stage. See `messages.py` for the words.

Waiting. A process may be started before there is a stage for it: it is told to `Prepare`, loads what the pipeline needs
and waits for its `Start`. And one whose stage ended well may be asked to stay: after `Done` it puts its surroundings
back, says `Waiting`, and another `Start` may follow, each with a log and a scratch folder of its own. An error, a
cancellation, a thread left at work or memory that grows end it like any other. See `standby.py`.

The end. However a stage ends, its whole group is killed, then everything that carries its mark in the environment or
was seen below it in the family tree, and only then does `Runner.run` return or raise. If the server is killed, three
things end its stages: PDEATHSIG (the nursery, and with it the stage), the closed pipe (its group), the guardian (all of
it). If the guardian is
killed too, the next `Runner.open` on the same storage directory finds what is left by its mark.

`Prober` is the same for one question: what kind of video is this?

Nothing is imported here: every stage process imports this package, and asyncio and structlog, which only the parent
side needs, would add 240 ms to its start.
"""
