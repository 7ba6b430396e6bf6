"""
How the engine logs: one line for each thing, on standard error, for people or as JSON. What libraries say through
`logging` goes the same way. Everybody takes the logger, and structlog itself, from here. Keys never get into it: the
last step before a line is written takes out everything that looks like one, whoever put it there.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

from videoannotator.settings import Settings

# structlog loads rich for tracebacks in colour, which this log does not have: a fifth of the server's start.
_rich = sys.modules.get("rich")
sys.modules["rich"] = None  # type: ignore[assignment]  # an import of it fails now, which structlog is made for
import structlog  # noqa: E402

del sys.modules["rich"]
if _rich is not None:
    sys.modules["rich"] = _rich

get_logger = structlog.get_logger
bind_contextvars = structlog.contextvars.bind_contextvars
bound_contextvars = structlog.contextvars.bound_contextvars


_SECRETS = re.compile(
    r"\b(?P<kind>va_|vt_)[A-Za-z0-9_-]{20,}"
    r"|(?P<before>\btoken=|\bBearer\s+|\bX-API-Key:\s*)[^\s&\"',;]{8,}",
    re.IGNORECASE,
)


def configure(settings: Settings) -> None:
    """Once, before anything is logged."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _Redacting(settings.api_key),
            structlog.processors.JSONRenderer() if as_json else _for_people,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_Bridge()]
    root.setLevel(max(level, logging.WARNING))


def configure_for_a_command() -> None:
    """Only errors: what goes wrong is told by the command itself, and the engine's log would stand in its way."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _Redacting(),
            _for_people,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )


def redacted(text: str) -> str:
    """The text with `***` in the place of every key, ticket and token in it."""
    return _SECRETS.sub(lambda found: f"{found['kind'] or found['before']}***", text)


class _Redacting:
    """structlog's step that takes keys out of a line, the operator's own among them, which may have any form."""

    def __init__(self, outside_key: str = "") -> None:
        self._outside = outside_key

    def __call__(self, _: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        for name, value in list(event.items()):
            event[name] = self._without_keys(value)
        return event

    def _without_keys(self, value: Any) -> Any:
        match value:
            case str():
                return redacted(value.replace(self._outside, "***") if self._outside else value)
            case list() | tuple():
                return [self._without_keys(part) for part in value]
            case dict():
                return {name: self._without_keys(part) for name, part in value.items()}
            case None | bool() | int() | float():
                return value
            case _:
                return self._without_keys(str(value))


class _Bridge(logging.Handler):
    """From `logging` to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower()
        say = getattr(structlog.get_logger(), level if level in ("info", "warning", "error", "critical") else "debug")
        say(record.getMessage(), logger=record.name, exc_info=record.exc_info or None)


def _for_people(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    """`12:00:00 [INFO] what happened  key=value`, in ASCII; a traceback below."""
    at = str(event.pop("timestamp"))[11:19]
    level, what = str(event.pop("level")).upper(), event.pop("event")
    trace = event.pop("exception", None)
    rest = "  ".join(f"{name}={value}" for name, value in event.items() if value is not None)
    line = f"{at} [{level}] {what}  {rest}".rstrip()
    return ascii_only(f"{line}\n{trace}" if trace else line)


def ascii_only(text: str) -> str:
    """Readable on every terminal, and no control character of a stranger's reaches it."""
    return "".join(char if char == "\n" or " " <= char <= "~" else f"\\u{ord(char):04x}" for char in text)
