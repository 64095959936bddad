"""Web processes are killed while clients repeat their orders: one order a key, and each client is answered."""

import itertools
import os
import signal
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from idempotency.models import Record
from orders.models import ApiKey, Order
from outbox.testing import staged
from tests.orders.conftest import body, units
from tests.support.processes import Process, await_, web

KEYS = 30
REPEATS = 4


@pytest.mark.slow
@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "pooled"])
def test_orders_repeated_under_kill_9_are_one_a_key(
    busy_shop: None, request: pytest.FixtureRequest, pooled: bool
) -> None:
    """The web process is killed."""
    env = {"DATABASE_URL": request.getfixturevalue("pooler").url()} if pooled else {}
    stock, _, _ = units()
    raw = ApiKey.issue("shop")[1]
    keys = [str(uuid.uuid4()) for _ in range(KEYS)]
    # Preloaded, so that a new worker is a fork and serves at once.
    with web("--preload", env=env) as (process, url):
        killer = Killer(process, answers_per_kill=10)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda key: order(url, raw, key, killer), keys * REPEATS))
    assert killer.kills >= 3
    assert len(set(answers)) == len(keys)
    assert Order.objects.count() == Record.objects.count() == len(keys)
    assert len(staged("orders.tasks.process_order")) == len(keys)
    assert units() == (stock - 2 * len(keys), 2 * len(keys), 0)


class Killer:
    """SIGKILLs a web worker at every so many answers, while other requests are in flight; gunicorn starts another.

    Counted in answers and not in seconds, so that on a slow machine a worker lives long enough to serve.
    """

    def __init__(self, web: Process, *, answers_per_kill: int) -> None:
        self.kills = 0
        self._web = web
        self._answers_per_kill = answers_per_kill
        self._answers = itertools.count(1)
        self._one_at_a_time = threading.Lock()

    def answered(self) -> None:
        if next(self._answers) % self._answers_per_kill:
            return
        # Between reading a pid and using it nothing else may end the process: the number could be another's by then.
        with self._one_at_a_time:
            await_(self._web.children, "a web worker")
            victim = self._web.children()[-1]
            os.kill(victim, signal.SIGKILL)
            await_(lambda: victim not in self._web.children(), "the end of the web worker")
            self.kills += 1


def order(url: str, raw: str, key: str, killer: Killer) -> int:
    """Post one order, again and again, until it is answered 202; returns the order's id."""
    answered: list[int] = []

    def attempt() -> bool:
        try:
            answer = requests.post(
                f"{url}/api/orders",
                json=body(),
                headers={"Authorization": f"Bearer {raw}", "Idempotency-Key": key},
                timeout=10,
            )
        except requests.RequestException:
            return False  # cut off: whether the order was placed is what the client cannot know
        assert answer.status_code in (202, 409, 429, 503), answer.text
        if answer.status_code == 202:
            answered.append(answer.json()["id"])
        return bool(answered)

    await_(attempt, f"an answer for {key}", timeout_s=120)
    killer.answered()
    return answered[0]
