"""What can be seen of errands before a job is queued: better a refusal now than a failure in an hour."""

from pathlib import Path

from videoannotator.errors import FieldProblem, InvalidConfig, Refused
from videoannotator.jobs import Errands
from videoannotator.outbound.policy import Policy
from videoannotator.outbound.targets import target_of
from videoannotator.paths.roots import place_in, refuse_unusable
from videoannotator.settings import Settings


def require_possible(errands: Errands, settings: Settings, policy: Policy) -> None:
    """
    Names are not resolved here: whoever asks must not wait for somebody's name server. Blocks a little.

    Raises:
        InvalidConfig: with every problem found: URL_NOT_ALLOWED, PATH_NOT_ALLOWED, CALLBACKS_OFF.
    """
    problems = [
        problem
        for problem in (
            _url("video_url", errands.video_url, policy),
            _url("callback_url", errands.callback_url, policy),
            _secret(errands, settings),
            _path("output_directory", errands.output_directory, settings, file=False),
            _path("db_location", errands.db_location, settings, file=True),
        )
        if problem is not None
    ]
    if problems:
        raise InvalidConfig(tuple(problems))


def _url(field: str, url: str | None, policy: Policy) -> FieldProblem | None:
    if url is None:
        return None
    try:
        policy.refuse_plain(target_of(url))
    except Refused as refusal:
        return FieldProblem(field, refusal.message, refusal.code, refusal.hint)
    return None


def _secret(errands: Errands, settings: Settings) -> FieldProblem | None:
    if errands.callback_url is None or settings.callback_secret:
        return None
    hint = "The operator sets what they are signed with in VIDEOANNOTATOR_CALLBACK_SECRET."
    return FieldProblem("callback_url", "This server makes no callbacks.", "CALLBACKS_OFF", hint)


def _path(field: str, path: Path | None, settings: Settings, *, file: bool) -> FieldProblem | None:
    if path is None:
        return None
    try:
        place = place_in(path, settings.output_roots, never=settings.storage_dir)
        if file and not place.parts:
            return FieldProblem(field, "This is a directory: name a file in it.", "PATH_NOT_ALLOWED")
        refuse_unusable(place, file=file)
    except Refused as refusal:
        return FieldProblem(field, refusal.message, refusal.code, refusal.hint)
    return None
