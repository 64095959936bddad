"""One of several processes that want one lock: `python -m tests.resilience.lock_contender URL NAME ROUNDS`.

Prints how often it was inside, and the largest number of holders that it ever saw.
"""

import sys

import django
import redis
from django.conf import settings


def contend(url: str, name: str, rounds: int) -> tuple[int, int]:
    from resilience.locks import LockHeld, task_lock

    client = redis.Redis.from_url(url)
    entered, most = 0, 0
    while entered < rounds:
        try:
            with task_lock("test", name, ttl=30):
                most = max(most, client.incr(f"inside:{name}"))
                entered += 1
                client.decr(f"inside:{name}")
        except LockHeld:
            continue
    return entered, most


if __name__ == "__main__":
    settings.configure(REDIS_URL=sys.argv[1])
    django.setup()
    print(*contend(sys.argv[1], sys.argv[2], int(sys.argv[3])))  # noqa: T201
