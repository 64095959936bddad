import math
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.conf import settings

from resilience.connection import MAX_TTL_S
from resilience.locks import LockHeld, LockLost, LockUnavailable, task_lock
from tests.resilience.lock_contender import contend
from tests.support.processes import await_


def test_a_second_holder_is_refused_and_told_when_to_come_back(name: str) -> None:
    with task_lock("user_id", name, ttl=3), pytest.raises(LockHeld) as refusal, task_lock("user_id", name):
        pass
    assert 0 < refusal.value.retry_after <= 3


def test_the_wait_is_capped_since_most_holders_leave_long_before_their_ttl(name: str) -> None:
    with task_lock("user_id", name, ttl=600), pytest.raises(LockHeld) as refusal, task_lock("user_id", name):
        pass
    assert refusal.value.retry_after <= 5


@pytest.mark.described("`lock:user_id:X`: two billing jobs of one customer do not run at once")
def test_the_key_is_the_documented_one(name: str, client) -> None:
    with task_lock("user_id", name) as lock:
        assert lock.key == f"lock:user_id:{name}"
        assert client.exists(f"lock:user_id:{name}")
    assert not client.exists(f"lock:user_id:{name}")


def test_different_users_do_not_wait_for_each_other(name: str) -> None:
    with task_lock("user_id", f"{name}-a"), task_lock("user_id", f"{name}-b"):
        pass


def test_the_lock_is_free_after_a_body_that_raised(name: str) -> None:
    with pytest.raises(RuntimeError), task_lock("user_id", name):
        raise RuntimeError
    with task_lock("user_id", name):
        pass


def test_threads_are_never_two_inside(name: str) -> None:
    inside, most = 0, 0

    def enter(_: int) -> None:
        nonlocal inside, most
        for _ in range(200):
            try:
                with task_lock("user_id", name):
                    inside += 1
                    most = max(most, inside)
                    inside -= 1
            except LockHeld:
                continue

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(8)))
    assert most == 1


def test_processes_are_never_two_inside_and_each_gets_its_turn(name: str) -> None:
    command = [sys.executable, "-m", "tests.resilience.lock_contender", settings.REDIS_URL, name, "20"]
    others = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=settings.BASE_DIR) for _ in range(3)
    ]
    mine = contend(settings.REDIS_URL, name, 20)
    results = [tuple(int(word) for word in other.communicate(timeout=60)[0].split()) for other in others]
    assert [mine, *results] == [(20, 1)] * 4


@pytest.mark.promise("P4", "the holder of a Redis lock dies", "the lock is free after its ttl")
def test_a_dead_holders_lock_ends_with_its_ttl(name: str) -> None:
    abandoned = task_lock("user_id", name, ttl=0.05)
    abandoned.__enter__()

    def enter() -> bool:
        try:
            with task_lock("user_id", name):
                return True
        except LockHeld:
            return False

    await_(enter, "the lock is free again")


def test_a_holder_that_comes_back_late_does_not_release_its_successors_lock(name: str, client) -> None:
    late = task_lock("user_id", name, ttl=0.05)
    late.__enter__()
    await_(lambda: not client.exists(f"lock:user_id:{name}"), "the lease has run out")
    with task_lock("user_id", name):
        late.__exit__(None, None, None)
        assert client.exists(f"lock:user_id:{name}")


def test_a_body_that_outlives_its_lease_is_reported(name: str, client, caplog) -> None:
    with task_lock("user_id", name, ttl=0.05):
        await_(lambda: not client.exists(f"lock:user_id:{name}"), "the lease has run out")
    assert "may have run twice" in caplog.text


def test_each_holder_gets_a_larger_fence_so_that_a_late_writer_loses(name: str) -> None:
    fences = []
    for _ in range(5):
        with task_lock("user_id", name) as lock:
            fences.append(lock.fence)
    assert fences == sorted(set(fences))


def test_fences_go_on_growing_after_redis_has_forgotten_them(name: str, client) -> None:
    with task_lock("user_id", name) as before:
        pass
    client.delete(f"fence:user_id:{name}")
    with task_lock("user_id", name) as after:
        pass
    assert after.fence > before.fence


def test_a_fence_fits_a_bigint_column_and_its_counter_expires(name: str, client) -> None:
    with task_lock("user_id", name) as lock:
        assert 0 < lock.fence < 2**63
    assert client.pttl(f"fence:user_id:{name}") > 0


def test_extending_prolongs_the_lease(name: str, client) -> None:
    with task_lock("user_id", name, ttl=1) as lock:
        lock.extend(60)
        assert client.pttl(lock.key) > 50_000


def test_extending_a_lost_lease_says_so(name: str, client) -> None:
    with task_lock("user_id", name, ttl=0.05) as lock:
        await_(lambda: not client.exists(lock.key), "the lease has run out")
        with pytest.raises(LockLost):
            lock.extend()


def test_a_lost_lease_is_not_extended_for_its_new_holder(name: str, client) -> None:
    late = task_lock("user_id", name, ttl=0.05)
    lost = late.__enter__()
    await_(lambda: not client.exists(lost.key), "the lease has run out")
    with task_lock("user_id", name, ttl=1):
        with pytest.raises(LockLost):
            lost.extend(600)
        assert client.pttl(lost.key) <= 1000


@pytest.mark.parametrize("ttl", [0, 1e17, math.inf, math.nan])
def test_a_ttl_of_nothing_or_without_end_is_refused(name: str, ttl: float) -> None:
    with pytest.raises(ValueError, match="ttl must be"), task_lock("user_id", name, ttl=ttl):
        pass
    with task_lock("user_id", name) as lock, pytest.raises(ValueError, match="ttl must be"):
        lock.extend(ttl)


def test_the_longest_ttl_is_one_that_redis_takes(name: str, client) -> None:
    with task_lock("user_id", name, ttl=MAX_TTL_S) as lock:
        assert client.pttl(lock.key) > MAX_TTL_S * 1000 - 60_000


@pytest.mark.promise("P6", "Redis is down while a lock is asked for", "the lock is not given")
def test_without_redis_the_lock_is_not_given(name: str, absent_redis, frozen_redis) -> None:
    for unreachable in (absent_redis, frozen_redis):
        with pytest.raises(LockUnavailable) as refusal, task_lock("user_id", name, client=unreachable):
            raise AssertionError("entered a lock that could not be granted")
        assert refusal.value.retry_after > 0


def test_redis_going_down_during_the_body_does_not_change_the_bodys_outcome(
    name: str, mocker, absent_redis
) -> None:
    done = threading.Event()
    with task_lock("user_id", name, ttl=1) as lock:
        mocker.patch.object(lock, "_client", absent_redis)
        done.set()
    assert done.is_set()
