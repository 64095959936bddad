"""What an invariant reports, and the comparison that most of them make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

Key = TypeVar("Key", int, str, tuple[str, str], tuple[str, int])
EXAMPLES = 5


@dataclass(frozen=True)
class Finding:
    """One invariant, with the figure of each side and, where it does not hold, what differs."""

    promise: str
    database: str
    outside: str
    holds: bool
    difference: str = ""


def same(
    promise: str, left: Iterable[Key], right: Iterable[Key], *, sides: tuple[str, str] = ("{}", "{}")
) -> Finding:
    """Both sides hold the same things, each as often: counted as multisets, so that a duplicate cannot hide a loss."""
    ours, theirs = Counter(left), Counter(right)
    parts = [
        f"{label} {examples(extra)}"
        for label, extra in (("only left:", ours - theirs), ("only right:", theirs - ours))
        if extra
    ]
    database, outside = (
        side.format(f"{book.total():,}") for side, book in zip(sides, (ours, theirs), strict=True)
    )
    return Finding(promise, database, outside, holds=ours == theirs, difference="; ".join(parts))


def none(promise: str, looked_at: str, violations: Iterable[str]) -> Finding:
    """Nothing is wrong with what was looked at; `violations` are sentences."""
    found = list(violations)
    shown = "; ".join(found[:EXAMPLES]) + (f" ... ({len(found)})" if len(found) > EXAMPLES else "")
    return Finding(promise, looked_at, f"{len(found)} wrong" if found else "-", not found, shown)


def examples(things: Iterable[object]) -> str:
    known = sorted(things, key=str)
    return ", ".join(map(str, known[:EXAMPLES])) + (" ..." if len(known) > EXAMPLES else "")
