"""What tests of hostile input share: the servers and the clip of the tests of the API."""

from tests.api.conftest import clip, server, shared

__all__ = ["clip", "server", "shared"]
