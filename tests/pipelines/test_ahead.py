"""Pictures are decoded ahead of who looks at them: in order, to the end, and never after it."""

import itertools
from typing import Any

import pytest

from videoannotator.errors import StageFailed
from videoannotator.pipelines.ahead import ahead


def test_ahead_gives_all_items_in_order() -> None:
    """Also when there are more of them than it may keep."""
    with ahead(range(1, 1000), 3) as coming:
        assert list(coming) == list(range(1, 1000))


def test_ahead_ends_its_thread_when_the_rest_is_not_wanted() -> None:
    """An error in a detector must end the stage, not leave it waiting for a full queue."""
    with pytest.raises(ZeroDivisionError), ahead(itertools.count(1), 3) as coming:  # noqa: PT012
        next(coming)
        raise ZeroDivisionError


def test_ahead_tells_what_went_wrong_after_the_last_good_item() -> None:
    """A broken file must not look like a short one."""

    def broken() -> Any:
        yield 1
        raise StageFailed("broken")

    seen = []
    with pytest.raises(StageFailed), ahead(broken(), 3) as coming:
        seen += coming

    assert seen == [1]
