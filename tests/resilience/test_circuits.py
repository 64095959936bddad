from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import redis

from resilience import breaker, circuits
from resilience.breaker import Breaker


@pytest.fixture(autouse=True)
def shared(client: redis.Redis) -> Iterator[None]:
    listeners = list(breaker.on_change)
    circuits.share()
    client.delete(circuits.KEY)
    yield
    client.delete(circuits.KEY)
    breaker.on_change[:] = listeners


def down() -> None:
    raise ConnectionError("API down")


def failed(circuit: Breaker) -> None:
    with pytest.raises(ConnectionError):
        circuit.call(down)


def test_an_open_circuit_is_reported_and_a_closed_one_not(name: str) -> None:
    circuit = Breaker(2, 0.05, name=name)
    assert circuits.open_in_processes()[name] == 0, "a series that is not there cannot rise"
    failed(circuit)
    assert circuits.open_in_processes()[name] == 0
    failed(circuit)
    assert circuits.open_in_processes()[name] == 1
    circuit._opened -= 1
    failed(circuit)
    assert circuits.open_in_processes()[name] == 1, "after a probe that failed"
    circuit._opened -= 1
    assert circuit.call(lambda: "answer") == "answer"
    assert circuits.open_in_processes()[name] == 0


def test_what_a_killed_process_said_is_forgotten(name: str, client: redis.Redis) -> None:
    program = f"""
import os, signal
from resilience import circuits
from resilience.breaker import Breaker
circuits.share()
def down(): raise ConnectionError
try:
    Breaker(1, 1, name={name!r}).call(down)
except ConnectionError:
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert circuits.open_in_processes()[name] == 1
    ((member, forgotten_at),) = client.zrange(circuits.KEY, 0, -1, withscores=True)
    assert 0 < forgotten_at - client.time()[0] <= 2 + circuits.GRACE_S
    client.zadd(circuits.KEY, {member: client.time()[0] - 1})
    assert name not in circuits.open_in_processes()


def test_without_redis_a_call_has_its_own_outcome(
    name: str, absent_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuits, "get_redis", lambda: absent_redis)
    circuit = Breaker(1, 30, name=name)
    failed(circuit)
    assert circuit.state == "open"


def test_a_listener_that_fails_does_not_take_the_place_of_the_error(name: str) -> None:
    breaker.on_change.append(lambda _: 1 / 0)
    failed(Breaker(1, 30, name=name))
