"""Several operators or workers at the same moment, each with a database connection of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable

from django.db import connection


def at_once(threads: int, *actions: Callable[[], object]) -> list[object]:
    """Run the actions in threads, each with its own connection, and return what they returned or raised."""
    barrier = threading.Barrier(threads)
    outcomes: list[object] = []

    def run(action: Callable[[], object]) -> None:
        barrier.wait()
        try:
            outcomes.append(action())
        except Exception as exc:
            outcomes.append(exc)
        finally:
            connection.close()

    started = [threading.Thread(target=run, args=(actions[n % len(actions)],)) for n in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return outcomes
