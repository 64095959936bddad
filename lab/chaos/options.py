"""What `make chaos` was asked for, from the environment."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

from lab.stack import StackError
from lab.stack.stack import VAR

BROKERS = ("redis", "rabbitmq")
ORDERS_PER_MINUTE = 600


@dataclass(frozen=True)
class Options:
    """MINUTES= of faults, ORDERS= placed evenly over them, SEED= of all dice, BROKER=, NAIVE=1, CHAOS_DIRECTORY=."""

    minutes: float
    orders: int
    seed: int
    broker: str
    naive: bool = False
    #: Where servers, logs and reports of the run are; one run at a time in a directory.
    home: Path = VAR / "chaos"

    @property
    def seconds(self) -> float:
        return self.minutes * 60

    @property
    def rate(self) -> float:
        """Orders a second."""
        return self.orders / self.seconds


def options() -> Options:
    """Raises StackError that names the variable which cannot be used."""
    minutes = _number("MINUTES", 10.0)
    if not 0.1 <= minutes <= 24 * 60:
        raise StackError(f"MINUTES must be between 0.1 and a day, not {minutes:g}")
    orders = _number("ORDERS", minutes * ORDERS_PER_MINUTE)
    if orders < 1:
        raise StackError(f"ORDERS must be at least 1, not {orders:g}")
    broker = os.environ.get("BROKER") or "redis"
    if broker not in BROKERS:
        raise StackError(f"BROKER must be one of {', '.join(BROKERS)}, not {broker!r}")
    # Not given: a new one each time, which the report names so that the run can be repeated.
    seed = int(_number("SEED", random.SystemRandom().randrange(1_000_000)))
    home = Path(os.environ.get("CHAOS_DIRECTORY") or VAR / "chaos")
    return Options(minutes, int(orders), seed, broker, os.environ.get("NAIVE") == "1", home)


def _number(name: str, default: float) -> float:
    text = os.environ.get(name) or ""
    try:
        return float(text) if text else default
    except ValueError:
        raise StackError(f"{name} must be a number, not {text!r}") from None
