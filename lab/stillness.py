"""Whether a run hangs: nothing changes any more, and no message is due at a later time."""

from __future__ import annotations

import time
from collections.abc import Callable

#: A run in which nothing but waiting happens for this long hangs too: a message may be deferred again and again for ever.
WAITING_SECONDS = 900.0


class Stillness:
    """To be asked often. `seconds`: longer than the longest wait that no row shows, which is that for a claim."""

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic):
        self._seconds = seconds
        self._clock = clock
        self._figures: object = None
        self._moved_at = self._busy_at = clock()

    def hangs(self, figures: object, *, waiting: bool) -> bool:
        """`waiting`: a message is scheduled for a moment that is still to come."""
        now = self._clock()
        if figures != self._figures:
            self._figures, self._moved_at = figures, now
            self._busy_at = now
        if waiting:
            self._busy_at = now
        return now - self._busy_at > self._seconds or now - self._moved_at > WAITING_SECONDS

    @property
    def unchanged_s(self) -> float:
        """For how long the figures have been the same."""
        return self._clock() - self._moved_at
