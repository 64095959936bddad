"""What the processes and the server write down while a subject runs: statements, and waits for a product's row."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: The first in line waits for the transaction that holds the row, and the entry names the table behind it; the others wait for
#: the row itself, with the number of its table.
_WAITED = re.compile(
    r"process \d+ acquired \w+ on (?:transaction|tuple .* of relation (\d+)).* after ([0-9.]+) ms"
)


class Asked:
    """The file to which the subject's processes append their statements and commits, see `bench_settings` in inside/."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def forget(self) -> None:
        """Begin anew. Processes that append go on at the beginning."""
        os.truncate(self._path, 0)

    def read(self) -> dict[str, tuple[int, int]]:
        """Statements and commits since `forget`, by what asked: a task, a request, or a role."""
        sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for line in self._path.read_text().splitlines():
            name, statements, commits = line.split("\t")
            sums[name][0] += int(statements)
            sums[name][1] += int(commits)
        return {name: (statements, commits) for name, (statements, commits) in sums.items()}


@contextmanager
def product_lock_waits(server_log: Path, table: int) -> Iterator[list[float]]:
    """Milliseconds of each wait for a product's row in the block, as PostgreSQL logs them: those of 1 ms and longer.

    ``table`` is the number of the products' table. Raises RuntimeError where the server's log is not there to be read.
    """
    if not server_log.exists():
        raise RuntimeError(f"lock waits are read from the log of the server, and there is no {server_log}")
    begun = server_log.stat().st_size
    waits: list[float] = []
    yield waits
    with server_log.open("rb") as log:
        log.seek(begun)
        entries = log.read().decode(errors="replace").split(" LOG:  ")
    for entry in entries:
        if found := _WAITED.match(entry):
            relation, ms = found.groups()
            if relation == str(table) or 'in relation "orders_product"' in entry:
                waits.append(float(ms))
