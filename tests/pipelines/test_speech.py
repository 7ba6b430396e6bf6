"""
Speech recognition, through the real library with a tiny random Whisper: how it behaves, not what it hears.

What a random model says means nothing. So the doubts are opened wide where a test needs words, and closed where it
needs none.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.clips import Clips, ffmpeg
from tests.staging import CATALOGUE, Ran, run
from videoannotator.annotations import Utterance, Word
from videoannotator.errors import InvalidConfig
from videoannotator.formats.captions import read_srt, read_webvtt
from videoannotator.formats.table import read_table
from videoannotator.formats.words import read_words
from videoannotator.media.probe import probe
from videoannotator.media.sound import sound
from videoannotator.pipelines.silero import RATE, WINDOW
from videoannotator.pipelines.speech_faster_whisper import PIECE, pieces_of
from videoannotator.pipelines.speech_recognition import Heard, Hearing, Parameters, believed

CREDULOUS = {"model": "tiny", "min_log_probability": -20.0, "max_compression": 1000.0, "beam_size": 1}
"""Takes what a random model says for words."""


@pytest.fixture(scope="module")
def spoken(clips: Clips) -> Path:
    return clips.path("speech.mp4")


@pytest.fixture(scope="module")
def heard(spoken: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """What a credulous run makes of it, in English."""
    config = CREDULOUS | {"language": "en"}
    return run("speech_recognition", spoken, tmp_path_factory.mktemp("heard") / "out", config)


def test_every_file_tells_the_same_words(heard: Ran) -> None:
    """Captions, text, table and JSON are one transcript."""
    transcript = read_words(heard.folder / "speech_words.json")
    texts = [utterance.text for utterance in transcript.utterances]

    assert texts
    assert [cue.text for cue in read_webvtt(heard.folder / "speech_recognition.vtt")] == texts
    assert [caption.text for caption in read_srt(heard.folder / "transcript.srt")] == texts
    assert (heard.folder / "transcript.txt").read_text().splitlines() == texts
    rows = read_table(heard.folder / "speech_words.csv")
    assert [row["word"] for row in rows] == [word.text for u in transcript.utterances for word in u.words]
    assert (transcript.language, transcript.language_probability) == ("en", None)


def test_words_lie_where_somebody_speaks(heard: Ran) -> None:
    """In 1.0 to 3.5 s and 5.0 to 8.0 s of the file, whatever the model says of its own silence."""
    transcript = read_words(heard.folder / "speech_words.json")

    for word in (word for utterance in transcript.utterances for word in utterance.words):
        middle = word.onset + word.duration / 2
        assert 0.6 < middle < 4.2 or 4.6 < middle < 8.4, word
        assert word.is_unsure


def test_the_same_bytes_come_twice(heard: Ran, spoken: Path, tmp_path: Path) -> None:
    """A result that cannot be had again is no measurement."""
    again = run("speech_recognition", spoken, tmp_path / "out", CREDULOUS | {"language": "en"})

    assert again.files == heard.files


def test_a_late_sound_track_is_heard_where_it_is_played(heard: Ran, spoken: Path, tmp_path: Path) -> None:
    """The sound begins at 0.7 s of the file."""
    clip = tmp_path / "late.mp4"
    ffmpeg("-i", spoken, "-itsoffset", "0.7", "-i", spoken, "-map", "0:v", "-map", "1:a", "-c", "copy", clip)

    ran = run("speech_recognition", clip, tmp_path / "out", CREDULOUS | {"language": "en"})

    early = read_words(heard.folder / "speech_words.json").utterances
    late = read_words(ran.folder / "speech_words.json").utterances
    assert late[0].onset - early[0].onset == pytest.approx(0.7, abs=0.05)


def test_a_piece_is_heard_as_the_library_hears_it(heard: Ran, spoken: Path) -> None:
    """Same VAD, same words, same times: only who cuts the sound into pieces is ours."""
    from faster_whisper import WhisperModel

    recording = sound(spoken, probe(spoken))
    model = WhisperModel(str(CATALOGUE.supplies.shelf.path("faster-whisper-tiny")), compute_type="int8")
    segments, _ = model.transcribe(
        recording.samples, language="en", beam_size=1, temperature=[0.0], word_timestamps=True, vad_filter=True,
        vad_parameters={"min_silence_duration_ms": 500, "speech_pad_ms": 200}, condition_on_previous_text=False,
        compression_ratio_threshold=1000.0, log_prob_threshold=-20.0,
    )  # fmt: skip
    theirs = [(w.word.strip(), w.start, w.end) for s in segments for w in s.words or () if w.word.strip()]

    transcript = read_words(heard.folder / "speech_words.json")

    ours = [(w.text, w.onset, w.end) for u in transcript.utterances for w in u.words]
    left_out = [word for one in transcript.left_out for word in one.text.split()]
    assert ours
    assert len(ours) + len(left_out) == len(theirs)
    for word in ours:
        assert any(word[0] == one[0] and word[1:] == pytest.approx(one[1:], abs=1e-6) for one in theirs), word


def test_a_long_recording_is_heard_in_pieces_that_end_in_a_pause() -> None:
    """Memory must not grow with a recording, nor a word be cut; who never pauses is cut where it is likeliest."""
    minute = 60 * RATE
    probabilities = [0.9] * (20 * minute // WINDOW)
    probabilities[(11 * minute + 40 * RATE) // WINDOW] = 0.1
    chat = [(n * 10 * RATE, n * 10 * RATE + 8 * RATE) for n in range(60)]
    monologue = (11 * minute, 12 * minute + 20 * RATE)

    pieces = list(pieces_of([*chat, monologue], probabilities))

    parts = [part for piece in pieces for part in piece]
    assert parts[:60] == chat
    assert parts[60][0] == monologue[0]
    assert parts[60][1] == parts[61][0] == (11 * minute + 40 * RATE) // WINDOW * WINDOW
    assert parts[-1][1] == monologue[1]
    assert max(sum(end - start for start, end in piece) for piece in pieces) <= 2 * PIECE
    assert all(sum(end - start for start, end in piece) <= PIECE for piece in pieces[:20])


def test_what_is_improbable_is_left_out_with_the_reason(spoken: Path, tmp_path: Path) -> None:
    """All that a random model says is."""
    ran = run("speech_recognition", spoken, tmp_path / "out", {"model": "tiny", "language": "en", "beam_size": 1})

    transcript = read_words(ran.folder / "speech_words.json")
    assert (ran.result.annotations, transcript.utterances) == (0, ())
    assert {one.reason.split(":")[0] for one in transcript.left_out} == {"improbable"}
    assert (ran.folder / "speech_recognition.vtt").read_text() == "WEBVTT\n"
    assert any("not believed" in warning for warning in ran.result.warnings)


@pytest.mark.parametrize("noise", ["anullsrc=r=16000:cl=mono:d=4", "anoisesrc=d=4:a=0.02:c=pink:seed=1"])
def test_silence_and_noise_give_no_invented_words(noise: str, tmp_path: Path) -> None:
    """Whisper is known for its thanks for watching. Even believing everything, nobody is asked where no voice is."""
    clip = tmp_path / "quiet.mp4"
    ffmpeg("-f", "lavfi", "-i", "color=gray:s=160x120:r=10:d=4", "-f", "lavfi", "-i", noise,
           "-c:v", "libx264", "-c:a", "aac", "-shortest", clip)  # fmt: skip

    ran = run("speech_recognition", clip, tmp_path / "out", CREDULOUS)

    assert ran.result.annotations == 0
    assert read_words(ran.folder / "speech_words.json").left_out == ()
    assert ran.result.warnings == ("There is no voice in it.",)


def test_a_video_without_sound_is_completed_with_nothing_and_a_note(clips: Clips, tmp_path: Path) -> None:
    """A batch with one silent film in it."""
    (stage,) = CATALOGUE.plan(
        probe(clips.path("no_sound.mp4")), ["speech_recognition"], {"speech_recognition": {"model": "tiny"}}
    )
    assert stage.skip_because is None

    ran = run("speech_recognition", clips.path("no_sound.mp4"), tmp_path / "out", {"model": "tiny"})

    assert (ran.result.annotations, ran.result.ledger.closes) == (0, True)
    assert "no sound track" in ran.result.warnings[0]
    assert read_webvtt(ran.folder / "speech_recognition.vtt") == ()


def test_the_language_is_found_when_none_is_given(spoken: Path, tmp_path: Path) -> None:
    """With its probability, and a warning where that is low: a random model is never sure."""
    ran = run("speech_recognition", spoken, tmp_path / "out", CREDULOUS)

    transcript = read_words(ran.folder / "speech_words.json")
    assert transcript.language
    assert transcript.language_probability is not None
    assert any("language was taken" in warning for warning in ran.result.warnings)


@pytest.mark.parametrize(
    ("language", "hint"),
    [
        ("klingon", "Choose from: auto, af, "),
        ("EN", "Did you mean en? Choose"),
        ("german", "Did you mean de? "),
        ("", ""),
    ],
)
def test_an_unknown_language_is_refused_when_it_is_submitted(language: str, hint: str) -> None:
    """Not after the model was loaded; who gives a language's name is told its code."""
    with pytest.raises(InvalidConfig) as caught:
        CATALOGUE.require(["speech_recognition"], {"speech_recognition": {"language": language}})

    assert caught.value.code == "NOT_A_CHOICE"
    assert caught.value.hint.startswith(hint)


def test_a_model_that_is_not_here_is_refused_with_the_command() -> None:
    """medium is not."""
    with pytest.raises(InvalidConfig, match="faster-whisper-medium") as caught:
        CATALOGUE.require(["speech_recognition"], {"speech_recognition": {"model": "medium"}})

    assert caught.value.hint == "Run: videoannotator models pull faster-whisper-medium"


# The doubts


def parameters(**changed: Any) -> Parameters:
    return Parameters(**(CATALOGUE.get("speech_recognition").defaults | changed))


def said(text: str, onset: float, seconds: float, **fields: Any) -> Heard:
    words = text.split()
    each = seconds / len(words)
    spoken = tuple(Word(word, onset + n * each, each, fields.get("probability", 0.9)) for n, word in enumerate(words))
    utterance = Utterance(onset, seconds, text, spoken, fields.get("log_probability", -0.2))
    return Heard(utterance, fields.get("compression", 1.0))


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (said("thanks for watching", 20.0, 1.0), "no voice there"),
        (said("so so so so", 1.0, 1.0, compression=5.0), "repeats itself: 5.0"),
        (said("perhaps this", 1.0, 1.0, log_probability=-1.5), "improbable: -1.50"),
        (said("...", 1.0, 1.0), "no words"),
    ],
    ids=["silence", "repetition", "improbable", "punctuation"],
)
def test_each_doubt_leaves_an_utterance_out(one: Heard, reason: str) -> None:
    """With its reason, so that a person can look."""
    utterances, left_out = believed(Hearing(heard=(one,), voice=((0.0, 5.0),), libraries=()), parameters())

    assert utterances == []
    assert [left.reason for left in left_out] == [reason]


def test_words_outside_of_the_voice_are_cut_off_an_utterance() -> None:
    """The end of a sentence that goes on over the silence behind it."""
    one = said("good morning thanks for watching", 1.0, 5.0)

    (utterance,), (left,) = believed(Hearing(heard=(one,), voice=((0.9, 3.0),), libraries=()), parameters())

    assert (utterance.text, utterance.end) == ("good morning", pytest.approx(3.0))
    assert left.text == "thanks for watching"


def test_improbable_words_are_marked_and_kept() -> None:
    """They may be right: a person decides."""
    hearing = Hearing(heard=(said("dada", 1.0, 1.0, probability=0.3),), voice=((0.0, 5.0),), libraries=())

    (utterance,), _ = believed(hearing, parameters())

    assert utterance.words[0].is_unsure
