"""A Redis that answers and takes no writes is as good as down, and each pattern fails as it says it does then."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis
from django.test import override_settings

import outbox
from lab.stack.redis import Redis
from orders.models import ApiKey
from orders.seed import seed_demo
from payments.tasks import bill_customer
from resilience.backpressure import BoundedQueue
from resilience.connection import UNAVAILABLE, run_script
from resilience.dedup import enqueue_unique, is_duplicate, release
from resilience.locks import LockUnavailable, task_lock
from resilience.ratelimit import TokenBucket
from tests.orders.conftest import Caller, body
from tests.support.brokers import private_redis
from tests.support.processes import await_
from tests.support.tasks import note


def full(server: Redis, client: redis.Redis) -> None:
    client.config_set("maxmemory", 1)


def read_only(server: Redis, client: redis.Redis) -> None:
    # As after a failover: the address answers, and is a replica now.
    client.replicaof("127.0.0.1", "1")


def unable_to_save(server: Redis, client: redis.Redis) -> None:
    # Under the name that it has by default: Redis 7 refuses to change it while it runs.
    (server.home() / "dump.rdb").mkdir()
    client.config_set("save", "3600 1")
    client.bgsave()
    await_(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "the save has failed")


@pytest.fixture(params=[full, read_only, unable_to_save], ids=lambda state: state.__name__)
def refusing(request: pytest.FixtureRequest) -> Iterator[Callable[[], None]]:
    """A Redis of this test's own, as the patterns use it; call it, and it refuses every write from then on."""
    with private_redis() as server, redis.Redis.from_url(server.url(0), decode_responses=True) as client:
        with override_settings(REDIS_URL=server.url(0)):
            yield lambda: request.param(server, client)
        client.config_set("save", "")  # It would not end before it has saved.


def test_the_limiter_lets_by(refusing: Callable[[], None], name: str) -> None:
    refusing()
    assert TokenBucket(1).acquire(name)
    assert not TokenBucket(1, fail_open=False).acquire(name)


def test_no_lock_is_given(refusing: Callable[[], None], name: str) -> None:
    refusing()
    with pytest.raises(LockUnavailable), task_lock("user_id", name):
        pytest.fail("entered although the lock's holder is unknown")


def test_a_holder_whose_lock_cannot_be_deleted_ends_as_its_body_does(
    refusing: Callable[[], None], name: str
) -> None:
    with task_lock("user_id", name):
        refusing()


def test_a_queue_raises_what_means_that_redis_is_down(refusing: Callable[[], None], name: str) -> None:
    refusing()
    with pytest.raises(UNAVAILABLE):
        BoundedQueue(name, 10).push("item")


@pytest.mark.django_db
def test_what_cannot_be_recognised_as_a_duplicate_is_done(refusing: Callable[[], None], name: str) -> None:
    refusing()
    assert not is_duplicate(name)
    assert not release(name)
    assert enqueue_unique(note.s(name))
    assert enqueue_unique(note.s(name)) is None


@pytest.mark.django_db
def test_orders_are_taken(refusing: Callable[[], None]) -> None:
    seed_demo()
    refusing()
    assert Caller(ApiKey.issue("test")[1]).post(body()).status_code == 202


@pytest.mark.django_db
def test_billing_steps_back_in_the_queue(refusing: Callable[[], None]) -> None:
    seed_demo()
    refusing()
    with pytest.raises(outbox.Defer):
        bill_customer(1, "2026-01")


def test_a_bug_in_a_script_stays_one(client: redis.Redis, name: str) -> None:
    with pytest.raises(redis.ResponseError) as raised:
        run_script(client, "return nonsense(", [name])
    assert not isinstance(raised.value, UNAVAILABLE)
