"""
Requests that may be sent twice and are done once: `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header).

A client that hears no answer cannot know whether its job is queued. With a key it sends the same again and gets the
same job. What was in a request is compared by a hash of what it means: for an upload that is the content of the video,
hashed while it was received, its name and the fields, so that another multipart boundary is the same request.
"""

import hashlib
import re

import msgspec

from videoannotator.errors import FieldProblem, InvalidConfig
from videoannotator.jobs import Idempotency
from videoannotator.server.auth import Caller
from videoannotator.server.decoding import ApiRequest

_KEY = re.compile(r"[!-~]{1,200}")


def key_of(request: ApiRequest) -> str | None:
    """
    The request's key, None where it has none.

    Raises:
        InvalidConfig: it has one that is too long, or not plain ASCII.
    """
    key = request.headers.get("idempotency-key")
    if key is None or _KEY.fullmatch(key):
        return key
    message = "An Idempotency-Key has 1 to 200 printable ASCII characters without blanks."
    raise InvalidConfig((FieldProblem("Idempotency-Key", message, "INVALID_VALUE", "A UUID is a good one."),))


def once(request: ApiRequest, caller: Caller, *said: msgspec.Struct | str) -> Idempotency | None:
    """The request, to be done once; `said` is everything that makes it another one. None where it has no key."""
    key = key_of(request)
    if key is None:
        return None
    body = msgspec.json.encode(said, order="deterministic")
    return Idempotency(caller=caller.id, key=key, body_sha256=hashlib.sha256(body).hexdigest())
