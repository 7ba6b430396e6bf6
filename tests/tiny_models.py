"""
Tiny random models of the right shapes, so that every engine runs through its real library without a download.

What they say means nothing. They are made once and kept below the user's cache folder under a name that changes with
this file. Whisper is made with CTranslate2's own tools and no torch; `make_in_speech.py` makes the others with the
Python of the environment `speech`.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import platformdirs

from videoannotator.models.catalogue import Models
from videoannotator.models.shelf import Shelf

CACHE = Path(platformdirs.user_cache_dir("videoannotator-tests"))
ENVIRONMENTS = Path(os.environ.get("VIDEOANNOTATOR_ENVIRONMENTS_DIR") or CACHE / "environments")
"""Where the tests look for the environment `speech`; `.ci/run` installs it there."""

_IN_SPEECH = Path(__file__).parent / "make_in_speech.py"
_TEXT_TOKENS = 50257
"""As many as Whisper has, so that the special tokens have their real numbers."""

_END, _FIRST_TIME, _LAST_TIME = 50257, 50364, 51864
_PROMPT = 3
"""Tokens before the first that Whisper says: start, language, task."""


class Size(NamedTuple):
    """Of a Whisper."""

    width: int
    heads: int
    layers: int
    hidden: int


_TINY = Size(64, 2, 2, 128)
WHISPER_TINY = Size(384, 6, 4, 1536)
"""OpenAI's own `tiny`: 39 million weights."""

_LONGEST = 14


def shelf_of(folder: Path, *names: str) -> Shelf:
    """A shelf with these models of the catalogue, each of them a tiny one."""
    shelf = Shelf(folder, Models.load())
    for name in names:
        shelf.bring_in(_made(name), name)
    return shelf


def _made(name: str) -> Path:
    kind = next(kind for kind in _MAKERS if name.startswith(kind))
    key = hashlib.sha256(Path(__file__).read_bytes() + _IN_SPEECH.read_bytes()).hexdigest()[:12]
    made = CACHE / f"tiny-{key}" / kind
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=made.parent))
        _MAKERS[kind](part)
        try:
            part.rename(made)
        except OSError:  # another test process was faster
            shutil.rmtree(part)
    return made


def whisper_at_work(folder: Path, size: Size, tokens: int) -> None:
    """
    A random Whisper of a real size that says so many tokens of every half minute that it hears, as speech takes: what
    it says means nothing, and the work is that of the real one.
    """
    folder.mkdir(parents=True)
    _write_whisper(folder, size, lambda decoder: _talk(decoder, tokens))


def _whisper(folder: Path) -> None:
    _write_whisper(folder, _TINY, _end_soon)


def _write_whisper(folder: Path, size: Size, bend: Callable[[object], None]) -> None:
    import numpy
    from ctranslate2.specs import whisper_spec

    tokens = _write_tokenizer(folder / "tokenizer.json")
    spec = whisper_spec.WhisperSpec(size.layers, size.heads, size.layers, size.heads)
    _fill(spec, size, len(tokens), numpy.random.default_rng(0))
    bend(spec.decoder)
    spec.register_vocabulary(tokens)
    spec.config.suppress_ids, spec.config.suppress_ids_begin = [1, 2, 7], [220, 50257]
    spec.config.alignment_heads, spec.config.lang_ids = [(0, 0), (1, 1)], list(range(50259, 50358))
    spec.validate()
    spec.optimize(quantization="int8")
    spec.save(str(folder))


def _end_soon(decoder: object) -> None:
    """From some place on nothing is as probable as the end: a random model would babble to its last position."""
    direction = decoder.projection.weight[_END] * 50
    decoder.position_encodings.encodings[_LONGEST:] += direction
    decoder.projection.weight[_END] = direction


def _talk(decoder: object, tokens: int) -> None:
    """
    A time, text, a last time, the end: of every half minute so many tokens. Without the last time faster-whisper would
    listen again from where it thinks that the last word ended, and a random model has its last word anywhere.
    """
    import numpy

    width = decoder.projection.weight.shape[1]
    directions = numpy.linalg.qr(numpy.random.default_rng(1).standard_normal((width, 3)))[0].T.astype("float32")
    text, time, end = directions
    stop, places = _PROMPT + tokens - 2, decoder.position_encodings.encodings
    # So loud that the layers between cannot drown them.
    places[_PROMPT:stop] += 5000 * text
    places[stop] += 5000 * time
    places[stop + 1 :] += 5000 * end
    decoder.projection.weight[_FIRST_TIME:] -= text
    decoder.projection.weight[_LAST_TIME] = 5 * time - text
    decoder.projection.weight[_END] = 5 * end - text


def _write_tokenizer(file: Path) -> list[str]:
    """Bytes, then made-up words, then Whisper's special tokens and timestamps; all of them in order."""
    from faster_whisper.tokenizer import _LANGUAGE_CODES
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {symbol: number for number, symbol in enumerate(letters)}
    words |= {f"Ġtok{number}": number for number in range(len(letters), _TEXT_TOKENS)}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["endoftext", "startoftranscript", *_LANGUAGE_CODES[:99], "translate", "transcribe", "startoflm"]
    special += ["startofprev", "nospeech", "notimestamps"]
    tokenizer.add_special_tokens([AddedToken(f"<|{s}|>", special=True, normalized=False) for s in special])
    times = [f"<|{number * 0.02:.2f}|>" for number in range(1501)]
    tokenizer.add_tokens([AddedToken(time, special=False, normalized=False) for time in times])
    tokenizer.save(str(file))
    by_number = sorted(tokenizer.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1])
    tokens = [token for token, _ in by_number]
    tokens[_TEXT_TOKENS - 1] = ""  # CTranslate2 calls a model multilingual only if its vocabulary holds it
    return tokens


def _fill(spec: object, size: Size, vocabulary: int, random: object) -> None:
    import numpy
    from ctranslate2.specs.model_spec import visit_spec

    w, h = size.width, size.hidden
    shapes = {
        "conv1/weight": (w, 80, 3),
        "conv2/weight": (w, w, 3),
        "conv1/bias": (w,),
        "conv2/bias": (w,),
        "encoder/position_encodings/encodings": (1500, w),
        "decoder/position_encodings/encodings": (448, w),
        "embeddings/weight": (vocabulary, w),
        "projection/weight": (vocabulary, w),
        "self_attention/linear_0/weight": (3 * w, w),
        "self_attention/linear_1/weight": (w, w),
        "decoder/attention/linear_1/weight": (2 * w, w),
        "ffn/linear_0/weight": (h, w),
        "ffn/linear_1/weight": (w, h),
    }

    def fill(part: object, name: str, value: object) -> None:
        place = re.sub(r"/layer_\d+", "", name)
        shape = next((shape for end, shape in shapes.items() if place.endswith(end)), None)
        if shape is None and value is not None:
            return
        numbers = random.standard_normal(shape or ((w, w) if name.endswith("weight") else (w,))).astype("float32") * 0.1
        setattr(part, name.rsplit("/", 1)[-1], numpy.ones_like(numbers) if name.endswith("gamma") else numbers)

    visit_spec(spec, fill)


def _in_speech(kind: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        python = ENVIRONMENTS / "speech" / "venv" / "bin" / "python"
        done = subprocess.run(
            [str(python), str(_IN_SPEECH), kind, str(folder)],
            env=os.environ | {"HF_HUB_OFFLINE": "1", "PYANNOTE_METRICS_ENABLED": "0"},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    return make


_MAKERS: dict[str, Callable[[Path], None]] = {
    "faster-whisper": _whisper,
    "align": _in_speech("align"),
    "pyannote": _in_speech("pyannote"),
}
