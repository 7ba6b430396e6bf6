"""Words and turns of the same recording, found apart, put together: who said which word."""

import itertools
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from videoannotator.annotations import Turn, Utterance, Word

NEAR_SECONDS = 0.5
"""A word that no turn covers belongs to the nearest one, if that is no farther away. Beyond, nobody said it."""


def with_speakers(utterances: Iterable[Utterance], turns: Sequence[Turn]) -> tuple[Utterance, ...]:
    """
    The same words, each with the speaker whose turns cover most of it; where that changes a new utterance begins.

    `turns` are in order of their onsets. Of two who cover a word equally the one who began first has it.
    """
    return tuple(part for utterance in utterances for part in _parts(utterance, turns))


def _parts(utterance: Utterance, turns: Sequence[Turn]) -> Iterator[Utterance]:
    near = _near(utterance, turns)
    if not utterance.words:
        yield msgspec.structs.replace(utterance, speaker=_speaker(utterance, near))
        return
    words = [msgspec.structs.replace(word, speaker=_speaker(word, near)) for word in utterance.words]
    runs = [list(run) for _, run in itertools.groupby(words, key=lambda word: word.speaker)]
    if len(runs) == 1:
        yield msgspec.structs.replace(utterance, words=tuple(words), speaker=words[0].speaker)
        return
    for run in runs:
        onset, end = run[0].onset, max(word.end for word in run)
        text = " ".join(word.text for word in run)
        yield Utterance(onset, end - onset, text, tuple(run), utterance.log_probability, run[0].speaker)


def _near(utterance: Utterance, turns: Sequence[Turn]) -> list[Turn]:
    last = bisect_left(turns, utterance.end + NEAR_SECONDS, key=lambda turn: turn.onset)
    return [turn for turn in turns[:last] if turn.end > utterance.onset - NEAR_SECONDS]


def _speaker(said: Word | Utterance, turns: Sequence[Turn]) -> str | None:
    covered: dict[str, float] = defaultdict(float)
    for turn in turns:
        covered[turn.label] += max(0.0, min(said.end, turn.end) - max(said.onset, turn.onset))
    if any(covered.values()):
        return max(covered, key=lambda label: covered[label])
    nearest = min(turns, key=lambda turn: _distance(said, turn), default=None)
    return nearest.label if nearest is not None and _distance(said, nearest) <= NEAR_SECONDS else None


def _distance(said: Word | Utterance, turn: Turn) -> float:
    return max(0.0, turn.onset - said.end, said.onset - turn.end)
