"""
What was said, word by word: as JSON (utterances with their words, and what was left out), and as a tidy table.

The form is our own. Its keys keep clear of those by which the browser client takes a file for something else
(VIEWER.md, section 8).

Losses: times are rounded to the microsecond, probabilities to 0.0001.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from videoannotator.annotations import LeftOut, Utterance, Word
from videoannotator.formats.document import seconds, share, write_document
from videoannotator.formats.table import Cell, write_table


class Transcript(msgspec.Struct, frozen=True):
    utterances: tuple[Utterance, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    language: str = ""
    """ISO 639-1, or as Whisper calls it; empty where nobody spoke."""

    language_probability: float | None = None
    """None where the language was given."""


def write_words(file: Path, transcript: Transcript) -> None:
    head: dict[str, Any] = {"language": transcript.language or None}
    if transcript.language_probability is not None:
        head["language_probability"] = share(transcript.language_probability)
    lists = {
        "utterances": (_utterance(utterance) for utterance in transcript.utterances),
        "left_out": (_left_out(one) for one in transcript.left_out),
    }
    write_document(file, head, lists)


def read_words(file: Path) -> Transcript:
    """Raises msgspec.ValidationError where the file is something else."""
    return msgspec.convert(msgspec.json.decode(file.read_bytes()), _Document).transcript


def write_word_table(file: Path, utterances: Iterable[Utterance]) -> None:
    """One row for each word; one for an utterance whose words have no times."""
    columns = ("onset", "duration", "timestamp", "frame_number", "track_id", "utterance", "word", "probability")
    write_table(file, (*columns, "unsure", "speaker"), _rows(utterances))


def _rows(utterances: Iterable[Utterance]) -> Iterator[Sequence[Cell]]:
    for number, utterance in enumerate(utterances, start=1):
        words = utterance.words or (Word(utterance.text, utterance.onset, utterance.duration),)
        for word in words:
            at = seconds(word.onset)
            sure = None if word.probability is None else share(word.probability)
            who = word.speaker or utterance.speaker
            yield (at, seconds(word.duration), at, None, None, number, word.text, sure, int(word.is_unsure), who)


def _utterance(utterance: Utterance) -> dict[str, Any]:
    found: dict[str, Any] = {
        "onset": seconds(utterance.onset),
        "duration": seconds(utterance.duration),
        "text": utterance.text,
    }
    if utterance.log_probability is not None:
        found["log_probability"] = share(utterance.log_probability)
    if utterance.speaker is not None:
        found["speaker"] = utterance.speaker
    return found | {"words": [_word(word) for word in utterance.words]}


def _word(word: Word) -> dict[str, Any]:
    found: dict[str, Any] = {"word": word.text, "onset": seconds(word.onset), "duration": seconds(word.duration)}
    if word.probability is not None:
        found["probability"] = share(word.probability)
    if word.is_unsure:
        found["unsure"] = True
    if word.speaker is not None:
        found["speaker"] = word.speaker
    return found


def _left_out(one: LeftOut) -> dict[str, Any]:
    return {"onset": seconds(one.onset), "duration": seconds(one.duration), "text": one.text, "reason": one.reason}


class _Word(msgspec.Struct):
    word: str
    onset: float
    duration: float
    probability: float | None = None
    unsure: bool = False
    speaker: str | None = None


class _Utterance(msgspec.Struct):
    onset: float
    duration: float
    text: str
    words: list[_Word]
    log_probability: float | None = None
    speaker: str | None = None


class _Document(msgspec.Struct):
    language: str | None
    utterances: list[_Utterance]
    left_out: list[LeftOut]
    language_probability: float | None = None

    @property
    def transcript(self) -> Transcript:
        utterances = tuple(
            Utterance(
                u.onset,
                u.duration,
                u.text,
                tuple(Word(w.word, w.onset, w.duration, w.probability, w.unsure, w.speaker) for w in u.words),
                u.log_probability,
                u.speaker,
            )
            for u in self.utterances
        )
        return Transcript(utterances, tuple(self.left_out), self.language or "", self.language_probability)
