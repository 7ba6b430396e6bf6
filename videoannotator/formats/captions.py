"""
What was said, as captions: WebVTT, SubRip (SRT) and plain text.

Sources: W3C WebVTT, https://www.w3.org/TR/webvtt1/, sections 4.1 and 6; SubRip's own files, in the usual reading
(index, `HH:MM:SS,mmm --> HH:MM:SS,mmm`, text, empty line). Times always have hours, and no two captions the same id.

Losses: times are rounded to the millisecond and a caption lasts at least one; words' times, probabilities and the marks
of unsure words are not there (`words.py` keeps them); blanks and line breaks become single blanks. Speakers stand only
in the WebVTT that is written with them, as `<v NAME>`.
"""

import html
import re
from collections.abc import Iterable
from pathlib import Path

from videoannotator.annotations import Utterance

_SHORTEST_MS = 1
_TIMES = re.compile(r"(\d{2,}):(\d{2}):(\d{2})[.,](\d{3}) --> (\d{2,}):(\d{2}):(\d{2})[.,](\d{3})(?:\s.*)?")
_VOICE = re.compile(r"<v(?:\.[^ >]*)? ([^>]+)>")


def write_webvtt(file: Path, utterances: Iterable[Utterance], *, speakers: bool = False) -> None:
    """One cue for each utterance; with `speakers` each begins with the speaker's voice tag, where there is one."""
    cues = [
        f"{number}\n{_span(utterance, '.')}\n{_voice(utterance) if speakers else ''}{_escaped(utterance.text)}\n"
        for number, utterance in enumerate(_said(utterances), start=1)
    ]
    file.write_text("\n".join(["WEBVTT\n", *cues]), encoding="utf-8", newline="\n")


def read_webvtt(file: Path) -> tuple[Utterance, ...]:
    """Raises ValueError where it is no WebVTT, or a cue's times cannot be read."""
    content = file.read_text(encoding="utf-8-sig").replace("\r\n", "\n")
    head, *blocks = content.split("\n\n")
    if head.split("\n")[0] != "WEBVTT":
        raise ValueError(f"{file.name} does not begin with WEBVTT.")
    found = []
    for block in blocks:
        lines = block.strip("\n").split("\n")
        if "-->" not in block or lines[0].startswith(("NOTE", "STYLE", "REGION")):
            continue
        at = 0 if "-->" in lines[0] else 1
        onset, end = _times(file, lines[at])
        text = "\n".join(lines[at + 1 :])
        voice = _VOICE.match(text)
        plain = html.unescape(re.sub(r"<[^>]*>", "", text))
        found.append(Utterance(onset, end - onset, plain, speaker=html.unescape(voice[1]) if voice else None))
    return tuple(found)


def write_srt(file: Path, utterances: Iterable[Utterance]) -> None:
    """A caption for each utterance. Without one the file is empty, which players take for no captions."""
    captions = [
        f"{number}\n{_span(utterance, ',')}\n{_plain(utterance.text)}\n"
        for number, utterance in enumerate(_said(utterances), start=1)
    ]
    file.write_text("\n".join(captions), encoding="utf-8", newline="\n")


def read_srt(file: Path) -> tuple[Utterance, ...]:
    """Raises ValueError where a caption's times cannot be read."""
    found = []
    for block in file.read_text(encoding="utf-8-sig").replace("\r\n", "\n").strip().split("\n\n"):
        if not block:
            continue
        _, times, *text = block.split("\n")
        onset, end = _times(file, times)
        found.append(Utterance(onset, end - onset, "\n".join(text)))
    return tuple(found)


def write_text(file: Path, utterances: Iterable[Utterance]) -> None:
    """One line for each utterance, and nothing else."""
    lines = (f"{_plain(utterance.text)}\n" for utterance in _said(utterances))
    file.write_text("".join(lines), encoding="utf-8", newline="\n")


def _said(utterances: Iterable[Utterance]) -> Iterable[Utterance]:
    return (utterance for utterance in utterances if _plain(utterance.text))


def _span(utterance: Utterance, comma: str) -> str:
    onset = round(utterance.onset * 1000)
    end = max(onset + _SHORTEST_MS, round(utterance.end * 1000))
    return f"{_clock(onset, comma)} --> {_clock(end, comma)}"


def _clock(milliseconds: int, comma: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{comma}{rest:03}"


def _plain(text: str) -> str:
    """In one line; an arrow would be taken for times."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split()).replace("-->", "->")


def _escaped(text: str) -> str:
    return html.escape(_plain(text), quote=False)


def _voice(utterance: Utterance) -> str:
    name = _plain(utterance.speaker or "").replace("<", "").replace(">", "").replace("&", "")
    return f"<v {name}>" if name else ""


def _times(file: Path, line: str) -> tuple[float, float]:
    found = _TIMES.fullmatch(line.strip())
    if found is None:
        raise ValueError(f"{file.name}: {line!r} holds no times.")
    numbers = [int(part) for part in found.groups()]
    onset, end = (((h * 60 + m) * 60 + s) + ms / 1000 for h, m, s, ms in (numbers[:4], numbers[4:]))
    return onset, end
