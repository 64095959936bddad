"""The wrong way of docs/lessons/retries.md: every message waits equally long."""

from __future__ import annotations


def delay_s(retries: int) -> float:
    """Doubling spares the service between its outages, and brings everything back in one second."""
    return float(2**retries)
