"""Words and turns put together: who said which word."""

import pytest

from videoannotator.annotations import Turn, Utterance, Word
from videoannotator.pipelines.who_said import with_speakers

TURNS = (Turn(0.0, 2.0, "A"), Turn(2.0, 2.0, "B"), Turn(3.0, 3.0, "A"))


def said(*words: tuple[str, float, float]) -> Utterance:
    spoken = tuple(Word(text, onset, end - onset) for text, onset, end in words)
    return Utterance(spoken[0].onset, spoken[-1].end - spoken[0].onset, " ".join(w.text for w in spoken), spoken)


def speakers(utterances: tuple[Utterance, ...]) -> list[tuple[str | None, str]]:
    return [(utterance.speaker, utterance.text) for utterance in utterances]


def test_each_word_gets_the_speaker_who_covers_most_of_it() -> None:
    """The second word lies across the change."""
    (utterance,) = with_speakers([said(("good", 0.5, 1.0), ("morning", 1.2, 2.3))], TURNS)

    assert [word.speaker for word in utterance.words] == ["A", "A"]
    assert utterance.speaker == "A"


def test_an_utterance_ends_where_the_speaker_changes() -> None:
    """Whisper does not hear that another goes on."""
    parts = with_speakers([said(("Ready?", 1.0, 1.8), ("Da!", 2.2, 2.6), ("Da!", 2.7, 2.9))], TURNS)

    assert speakers(parts) == [("A", "Ready?"), ("B", "Da! Da!")]
    assert [(part.onset, part.end) for part in parts] == [(1.0, pytest.approx(1.8)), (2.2, pytest.approx(2.9))]


def test_where_two_speak_at_once_the_one_who_began_first_has_the_word() -> None:
    """One name for each word, and always the same."""
    (utterance,) = with_speakers([said(("both", 3.2, 3.8))], TURNS)

    assert utterance.speaker == "B"


@pytest.mark.parametrize(("onset", "speaker"), [(6.2, "A"), (7.5, None)])
def test_a_word_beside_all_turns_belongs_to_the_nearest_or_to_nobody(onset: float, speaker: str | None) -> None:
    """The end of a turn is not exact to the word; half a minute later nobody is known."""
    (utterance,) = with_speakers([said(("so", onset, onset + 0.3))], TURNS)

    assert utterance.speaker == speaker


def test_an_utterance_without_words_has_one_speaker() -> None:
    """Without alignment only the whole of it has a time."""
    (utterance,) = with_speakers([Utterance(0.5, 3.0, "Ready? Da!")], TURNS)

    assert (utterance.speaker, utterance.text) == ("A", "Ready? Da!")


def test_without_turns_nobody_said_anything() -> None:
    """And no word is lost."""
    (utterance,) = with_speakers([said(("hello", 0.0, 1.0))], ())

    assert (utterance.speaker, utterance.text) == (None, "hello")
