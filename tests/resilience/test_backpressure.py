import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from resilience.backpressure import Admission, BoundedQueue, QueueFull
from resilience.connection import UNAVAILABLE
from tests.support.processes import await_


@pytest.fixture
def queue_of(name: str):
    made: list[BoundedQueue] = []

    def make(limit: int) -> BoundedQueue:
        made.append(BoundedQueue(name, limit))
        return made[-1]

    yield make
    for queue in made:
        queue.obliterate()


@pytest.mark.described("a bounded queue refuses what is over its limit: `Queue full`")
def test_the_hundred_and_first_item_is_refused_with_queue_full(queue_of) -> None:
    queue = queue_of(100)
    for index in range(100):
        queue.push({"index": index})
    with pytest.raises(QueueFull, match="Queue full") as refusal:
        queue.push({"index": 101})
    assert queue.count() == 100
    assert refusal.value.retry_after > 0


@pytest.mark.described("a queue that workers have drained takes jobs again")
@pytest.mark.promise(
    "P6", "the consumers of a bounded queue stop", "producers are refused until it is drained"
)
def test_a_drained_queue_takes_items_again(queue_of) -> None:
    queue = queue_of(5)
    for index in range(5):
        queue.push({"index": index})
    with pytest.raises(QueueFull):
        queue.push({"index": 5})

    processed = [queue.pop()["index"] for _ in range(5)]

    assert processed == [0, 1, 2, 3, 4]
    assert queue.count() == 0
    assert queue.push({"index": 5}) == 1


def test_many_producers_at_once_never_exceed_the_limit(queue_of) -> None:
    queue = queue_of(100)
    start = threading.Barrier(8)

    def produce(_: int) -> int:
        start.wait()
        accepted = 0
        for index in range(50):
            try:
                queue.push(index)
            except QueueFull:
                continue
            accepted += 1
        return accepted

    with ThreadPoolExecutor(8) as pool:
        accepted = sum(pool.map(produce, range(8)))
    assert accepted == queue.count() == 100


@pytest.mark.described("a fast producer and a slow consumer: all twenty jobs are processed, none is dropped")
def test_a_slow_consumer_gets_all_while_the_producer_waits(queue_of) -> None:
    queue = queue_of(5)
    processed: list[int] = []

    def consume() -> None:
        while len(processed) < 20:
            await_(queue.count, "an item comes")
            processed.append(queue.pop())

    consumer = threading.Thread(target=consume)
    consumer.start()
    deepest = 0
    for index in range(20):

        def offered(item: int = index) -> bool:
            nonlocal deepest
            try:
                deepest = max(deepest, queue.push(item))
            except QueueFull:
                return False
            return True

        await_(offered, "there is room")
    consumer.join(10)
    assert processed == list(range(20))
    assert deepest <= 5


def test_an_empty_queue_pops_none(queue_of) -> None:
    assert queue_of(1).pop() is None


def test_obliterate_deletes_all_and_says_how_many(queue_of) -> None:
    queue = queue_of(10)
    for index in range(3):
        queue.push(index)
    assert queue.obliterate() == 3
    assert queue.count() == 0


def test_what_is_no_json_is_refused_and_not_stored(queue_of) -> None:
    queue = queue_of(10)
    for no_json, refusal in ((object(), TypeError), (float("nan"), ValueError), ([float("inf")], ValueError)):
        with pytest.raises(refusal):
            queue.push(no_json)
    assert queue.count() == 0


def test_without_redis_nothing_is_accepted(name: str, absent_redis) -> None:
    queue = BoundedQueue(name, 10, client=absent_redis)
    for call in (lambda: queue.push(1), queue.pop, queue.count, queue.obliterate):
        with pytest.raises(UNAVAILABLE):
            call()


def test_admission_refuses_at_the_limit_and_says_when_to_come_back() -> None:
    admission = Admission("orders", count=lambda: 50, limit=50, retry_after=7.0)
    with pytest.raises(QueueFull, match="orders") as refusal:
        admission.check()
    assert refusal.value.retry_after == 7.0


def test_admission_opens_again_once_the_backlog_has_shrunk() -> None:
    backlog = 50
    admission = Admission("orders", count=lambda: backlog, limit=50, recount_every=0.0)
    with pytest.raises(QueueFull):
        admission.check()
    backlog = 49
    assert admission.check() == 49


def test_admission_counts_once_for_many_requests() -> None:
    counts = []
    admission = Admission(
        "orders", count=lambda: len(counts) + (counts.append(1) or 0), limit=50, recount_every=60.0
    )
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: admission.check(), range(100)))
    assert len(counts) == 1


def test_admission_whose_count_fails_admits_none_and_asks_again() -> None:
    answers = iter([ConnectionError("database is down"), 3])

    def count() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    admission = Admission("orders", count=count, limit=50, recount_every=60.0)
    with pytest.raises(ConnectionError):
        admission.check()
    assert admission.check() == 3
