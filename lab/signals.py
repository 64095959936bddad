"""Ctrl-C and SIGTERM as one exception, raised once, so that `finally` blocks stop what was started."""

from __future__ import annotations

import signal
from types import FrameType


class Stopped(BaseException):
    """The user asked to stop; ``exit_code`` is what a shell expects of a process that ended by this signal."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


def raise_on_stop() -> None:
    """From now on the first SIGINT, SIGTERM or SIGHUP raises ``Stopped``; later ones are ignored.

    A second Ctrl-C must not interrupt the stopping itself: it would leave processes behind.
    """
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _stop)


def _stop(signum: int, frame: FrameType | None) -> None:
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(signum)
