"""Redis as the patterns meet it: the real one, one that is gone, and one that accepts and never answers."""

import socket
import uuid
from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from resilience.connection import get_redis


@pytest.fixture
def client() -> redis.Redis:
    return get_redis()


@pytest.fixture
def name() -> str:
    """A name that no other test uses, so that nothing has to be flushed."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def absent_redis() -> redis.Redis:
    """A client of a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return _client(port)


@pytest.fixture
def frozen_redis() -> Iterator[redis.Redis]:
    """A client of a server that takes the connection and says nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client = _client(server.getsockname()[1])
        yield client
        client.close()


def _client(port: int) -> redis.Redis:
    return redis.Redis(
        port=port,
        decode_responses=True,
        socket_timeout=0.2,
        socket_connect_timeout=0.2,
        retry=Retry(NoBackoff(), 0),
    )
