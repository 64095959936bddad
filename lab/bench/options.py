"""How large a run is: ROUNDS and ORDERS of `make bench`."""

from __future__ import annotations

import os
from dataclasses import dataclass

#: What is recorded in docs/ has at least these.
ROUNDS, ORDERS = 5, 100


@dataclass(frozen=True)
class Size:
    """How often each subject takes its turn, and how many orders a batch has."""

    rounds: int
    orders: int

    @classmethod
    def of_environment(cls) -> Size:
        return cls(_number("ROUNDS", ROUNDS), _number("ORDERS", ORDERS))

    @property
    def is_full(self) -> bool:
        """Whether the run says enough to be written into docs/."""
        return self.rounds >= ROUNDS and self.orders >= ORDERS


def _number(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal() or int(text) < 1:
        raise RuntimeError(f"{name} must be a number from 1, not {text!r}")
    return int(text)
