"""Waiting for what must come true, instead of sleeping for as long as it usually takes."""

import time
from collections.abc import Callable


def eventually(condition: Callable[[], object], *, within_s: float = 5.0) -> None:
    """Return as soon as the condition holds; AssertionError when it does not within `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"the condition did not come true within {within_s:g} s"
        time.sleep(0.005)
