"""Connections to the Redis master that sentinels name, after a failover to the new one. Stands alone, reads no setting.

`sentinel://user:password@host:26379/0;sentinel://host:26379`: user, password and database are those of the master and stand
in the first URL, as kombu reads it; each URL adds a sentinel. With a query (`?socket_timeout=0.5`) as redis-py knows it.
"""

from __future__ import annotations

import re
from typing import Any, Self

from redis.connection import parse_url
from redis.sentinel import Sentinel, SentinelConnectionPool

PORT = 26379


class SentinelPool(SentinelConnectionPool):
    """A connection pool of redis-py, which Django's cache takes as its `pool_class`, too."""

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """With these options beside those of the connections to the master:

        `master_name`: what the sentinels call it (default `mymaster`). `sentinel_kwargs`: how they themselves are connected
        to: user, password, TLS, timeouts (default: the timeouts of the other connections). Raises ValueError.
        """
        # Otherwise it is redis-py's own form of a URL.
        first, *others = (parse_url(re.sub("^sentinel:", "redis:", each)) for each in split(url))
        hosts = [(each.pop("host", "localhost"), each.pop("port", PORT)) for each in (first, *others)]
        options |= first
        name, kwargs = options.pop("master_name", "mymaster"), options.pop("sentinel_kwargs", None)
        return cls(name, Sentinel(hosts, sentinel_kwargs=kwargs, **options), **options)


def split(url: str) -> list[str]:
    """The URLs of the single sentinels."""
    return re.split(";(?=sentinel:)", url)
