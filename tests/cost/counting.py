"""Counts what this process asks of the database; what is counted, lab.bench.shop.inside.bench_statements says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lab.bench.shop.inside import bench_statements


@dataclass
class Cost:
    """`statements`: calls of the driver, savepoints included. `commits`: transactions, the one of a single statement included."""

    statements: int = 0
    commits: int = 0


@contextmanager
def counting() -> Iterator[Cost]:
    """Count in the block, in every thread."""
    cost = Cost()

    def note(statements: int, commits: int) -> None:
        cost.statements += statements
        cost.commits += commits

    undo = bench_statements.install(note)
    try:
        yield cost
    finally:
        undo()
