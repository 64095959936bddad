import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, transaction

from outbox.testing import drain, staged
from resilience.dedup import enqueue_unique, is_duplicate, job_key, release, seen_key
from tests.support.processes import await_
from tests.support.tasks import always_unavailable, note

pytestmark = pytest.mark.django_db


def waiting(name: str) -> int:
    """How many open jobs there are for this name."""
    return sum(1 for message in staged() if message.args[0].startswith(name))


@pytest.mark.described("`perform_unique`: two calls, one job")
def test_duplicate_calls_enqueue_only_one_job(name: str) -> None:
    assert enqueue_unique(note.s(name)) is not None
    assert enqueue_unique(note.s(name)) is None
    assert waiting(name) == 1


@pytest.mark.described("other arguments are another job")
def test_different_arguments_are_different_jobs(name: str) -> None:
    assert enqueue_unique(note.s(f"{name}-welcome"))
    assert enqueue_unique(note.s(f"{name}-invoice"))
    assert waiting(name) == 2


def test_different_tasks_with_equal_arguments_are_different_jobs(name: str) -> None:
    assert enqueue_unique(note.s(name))
    assert enqueue_unique(always_unavailable.s(name))


@pytest.mark.described("it can be enqueued again after its ttl")
def test_the_job_is_allowed_again_after_its_ttl_although_it_still_waits(name: str) -> None:
    assert enqueue_unique(note.s(name), ttl=0.05)
    await_(lambda: enqueue_unique(note.s(name)), "the window is over")
    assert waiting(name) == 2


def test_the_job_is_allowed_again_after_an_explicit_release(name: str) -> None:
    assert enqueue_unique(note.s(name))
    assert release(job_key(note.s(name)))
    assert enqueue_unique(note.s(name))
    assert waiting(name) == 2


@pytest.mark.described("it can be enqueued again when it has completed")
def test_the_job_is_allowed_again_after_completion_within_its_ttl(name: str) -> None:
    assert enqueue_unique(note.s(name), ttl=3600)
    drain()
    assert waiting(name) == 0
    assert enqueue_unique(note.s(name), ttl=3600)
    assert waiting(name) == 1


def test_the_job_is_allowed_again_after_it_was_dead_lettered(name: str) -> None:
    assert enqueue_unique(always_unavailable.s(name))
    drain()
    assert enqueue_unique(always_unavailable.s(name))


def test_a_job_that_waits_for_its_retry_is_still_the_one(name: str) -> None:
    assert enqueue_unique(note.s(name), delay=3600)
    assert enqueue_unique(note.s(name)) is None


@pytest.mark.django_db(transaction=True)
@pytest.mark.promise(
    "P2", "the transaction that enqueued a unique job rolls back", "the job can be enqueued again at once"
)
def test_a_rollback_leaves_nothing_behind_that_would_refuse_the_next_call(name: str) -> None:
    with transaction.atomic():
        assert enqueue_unique(note.s(name))
        transaction.set_rollback(True)

    assert waiting(name) == 0
    assert enqueue_unique(note.s(name)) is not None
    assert waiting(name) == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.promise("P3", "many threads enqueue the same unique job at once", "one job")
def test_many_threads_at_once_enqueue_one_job(name: str) -> None:
    start = threading.Barrier(8)

    def enqueue(_: int) -> bool:
        start.wait()
        try:
            return enqueue_unique(note.s(name)) is not None
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(enqueue, range(8))) == 1
    assert waiting(name) == 1


def test_keyword_order_does_not_make_another_job() -> None:
    assert job_key(note.s(a=1, b=2)) == job_key(note.s(b=2, a=1))


def test_the_key_holds_no_argument_in_clear() -> None:
    assert "alice@example.com" not in job_key(note.s("alice@example.com"))


def test_arguments_that_are_no_json_are_refused(name: str) -> None:
    with pytest.raises(TypeError):
        enqueue_unique(note.s(object()))


@pytest.mark.promise(
    "P2",
    "Redis is down while a unique job is enqueued",
    "it is enqueued, and stays unique until it completes",
)
def test_without_redis_jobs_are_enqueued_and_stay_unique_until_they_complete(name: str, absent_redis) -> None:
    assert enqueue_unique(note.s(name), client=absent_redis)
    assert enqueue_unique(note.s(name), client=absent_redis) is None
    drain()
    assert enqueue_unique(note.s(name), client=absent_redis)


@pytest.mark.described("`is_duplicate(task_id, ttl=3600)`")
def test_the_second_delivery_of_an_id_is_a_duplicate(name: str) -> None:
    assert is_duplicate(name) is False
    assert is_duplicate(name) is True
    assert is_duplicate(f"{name}-other") is False


def test_an_id_is_forgotten_after_its_ttl(name: str) -> None:
    assert is_duplicate(name, ttl=0.05) is False
    await_(lambda: not is_duplicate(name), "the id is forgotten")


def test_work_that_failed_can_give_its_mark_back(name: str) -> None:
    assert is_duplicate(name) is False
    assert release(seen_key(name)) is True
    assert is_duplicate(name) is False


def test_releasing_what_is_not_held_says_so(name: str) -> None:
    assert release(seen_key(name)) is False


def test_without_redis_nothing_counts_as_seen_so_that_no_work_is_dropped(name: str, absent_redis) -> None:
    assert is_duplicate(name, client=absent_redis) is False
    assert is_duplicate(name, client=absent_redis) is False
    assert release(seen_key(name), client=absent_redis) is False


@pytest.mark.parametrize("ttl", [0, 1e17, math.inf, math.nan])
def test_a_ttl_of_nothing_or_without_end_is_refused(name: str, ttl: float) -> None:
    with pytest.raises(ValueError, match="ttl must be"):
        is_duplicate(name, ttl=ttl)
    with pytest.raises(ValueError, match="ttl must be"):
        enqueue_unique(note.s(name), ttl=ttl)
