import time

import pytest

from resilience.connection import UNAVAILABLE, get_redis


def test_one_client_is_shared_by_the_whole_process() -> None:
    assert get_redis() is get_redis()


def test_a_change_of_address_gives_another_client(settings, absent_redis) -> None:
    before = get_redis()
    settings.REDIS_URL = f"redis://127.0.0.1:{absent_redis.connection_pool.connection_kwargs['port']}/0"
    assert get_redis() is not before


@pytest.mark.parametrize("fixture", ["absent_redis", "frozen_redis"])
def test_a_redis_that_is_down_costs_one_timeout_and_no_hidden_retries(
    settings, request, fixture: str
) -> None:
    port = request.getfixturevalue(fixture).connection_pool.connection_kwargs["port"]
    settings.REDIS_URL = f"redis://127.0.0.1:{port}/0"
    settings.RESILIENCE_REDIS_TIMEOUT = 0.2
    began = time.monotonic()
    with pytest.raises(UNAVAILABLE):
        get_redis().ping()
    assert time.monotonic() - began < 1.0
