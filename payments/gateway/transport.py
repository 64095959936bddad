"""The official `stripe` client with an HTTP transport in which every wait ends.

One client per process, one keep-alive session per thread; a forked child builds its own, because two
processes that share a TLS connection read each other's answers. Retries are not made here: they belong to the
message, which knows its attempts, survives a restart and is seen by an operator.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import requests
import stripe
from django.conf import settings

from common.http import read_within

#: Time to a TCP connection. A gateway that is up accepts at once.
CONNECT_SECONDS = 3.0
#: Longest silence in an answer.
READ_SECONDS = 10.0
#: The whole answer. A server that drips a byte every nine seconds keeps within READ_SECONDS for ever. Three
#: calls of this length fit into the lease of an order (60 s), so a slow gateway does not make two workers
#: share one.
TOTAL_SECONDS = 15.0

# At INFO the client writes a line a call, at DEBUG whole bodies with the intents' client secrets.
logging.getLogger("stripe").setLevel(logging.WARNING)
# The client would keep an id file in the home directory and send the platform with every call.
stripe.enable_telemetry = False


class BoundedTransport(stripe.HTTPClient):
    """One HTTP request, bounded in time, that follows no redirect and ignores `~/.netrc`.

    Raises `stripe.APIConnectionError` for every failure to get a complete answer.
    """

    name = "requests"

    def __init__(self) -> None:
        super().__init__()
        self._sessions = threading.local()

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        post_data: Any = None,
        *,
        _usage: Any = None,
    ) -> tuple[Any, int, Mapping[str, str]]:
        since = time.monotonic()
        try:
            response = self._session().request(
                method,
                url,
                headers=headers,
                data=post_data,
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                # A POST that is redirected becomes a GET, and its Authorization header goes to another host.
                allow_redirects=False,
                stream=True,
            )
            read_within(response, since=since, total_s=TOTAL_SECONDS)
        except OSError as error:  # requests' own errors are, too
            raise stripe.APIConnectionError(f"{type(error).__name__}: {error}") from error
        if 300 <= response.status_code < 400:
            raise stripe.APIConnectionError(
                f"the gateway redirects (HTTP {response.status_code}); not followed"
            )
        return response.content, response.status_code, response.headers

    def close(self) -> None:
        self._session().close()

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._sessions, "session", None)
        if session is None:
            session = self._sessions.session = requests.Session()
            # Without an auth of its own, requests lets an entry in ~/.netrc replace the Authorization header.
            session.auth = lambda request: request
        return session


def client() -> stripe.StripeClient:
    """This process's client for `settings.STRIPE_API_BASE`, made at the first use."""
    return _client(settings.STRIPE_API_KEY, settings.STRIPE_API_BASE)


@lru_cache(maxsize=4)
def _client(api_key: str, api_base: str) -> stripe.StripeClient:
    return stripe.StripeClient(
        api_key,
        base_addresses={"api": api_base.rstrip("/")},
        max_network_retries=0,
        http_client=BoundedTransport(),
    )


os.register_at_fork(after_in_child=_client.cache_clear)
