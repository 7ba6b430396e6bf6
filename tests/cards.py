"""GPUs for tests on machines without: real objects that count memory, where no driver does."""

from collections.abc import Iterable

from videoannotator.machine.devices import Card, Devices

GIB = 1024**3


class Cards(Devices):
    """Cards by name; tests say what is in use, and whose memory comes back late."""

    def __init__(self, **total_gib: int) -> None:
        self._total = {name: size * GIB for name, size in total_gib.items()}
        self.used = dict.fromkeys(self._total, 0)
        self.late = 0
        """How often `held_by` still finds something."""

        self.asked_for: list[frozenset[int]] = []

    def cards(self) -> tuple[Card, ...]:
        return tuple(
            Card(name=name, total_bytes=total, free_bytes=total - self.used[name])
            for name, total in self._total.items()
        )

    def used_by(self, card: str, pids: Iterable[int]) -> int | None:
        return None

    def held_by(self, pids: Iterable[int]) -> int:
        self.asked_for.append(frozenset(pids))
        self.late -= 1
        return GIB if self.late >= 0 else 0
