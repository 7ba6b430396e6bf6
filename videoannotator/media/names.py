"""What a stranger's file name may look like where people see it."""

import re
import unicodedata

_LONGEST = 120
_MARKUP = str.maketrans("", "", "<>&\"'`")
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # controls, bidi marks, surrogates, private, line separators


def shown_name(name: str) -> str:
    """
    The last part of a path in either notation, NFC, without control, bidi and markup characters, 120 characters at
    most with its ending kept; "video" where nothing is left. For people to read: never used to open a file.
    """
    last = re.split(r"[/\\]", name)[-1]
    return _shortened(_clean(last).strip(" .")) or "video"


def shown_words(text: str) -> str:
    """A stranger's words in the same sense, 120 characters at most; slashes stay. Empty where nothing is left."""
    return _clean(text)[:_LONGEST].strip()


def _clean(text: str) -> str:
    composed = unicodedata.normalize("NFC", text).translate(_MARKUP)
    visible = "".join(c for c in composed if unicodedata.category(c) not in _INVISIBLE)
    return re.sub(r"\s+", " ", visible)


def _shortened(name: str) -> str:
    if len(name) <= _LONGEST:
        return name
    stem, dot, ending = name.rpartition(".")
    if not dot or len(ending) > 10:
        return name[:_LONGEST]
    return f"{stem[: _LONGEST - len(ending) - 1]}.{ending}"
