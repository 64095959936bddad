"""One JSON request to another system, in which every wait ends; its errors say what the answer means."""

import time
from collections.abc import Mapping
from typing import Any

import requests
from django.conf import settings

from common.http import read_within
from resilience.retry_after import parse_retry_after

#: Seconds for the connection and for each wait for bytes.
TIMEOUT_S = 3.0
#: Seconds for a whole answer: one that drips keeps within TIMEOUT_S for ever. Below the soft time limit of the tasks that
#: ask, so that it ends as the neighbour's failure. Only an answer that drips before its body meets that limit.
TOTAL_S = 10.0


class NotConfigured(Exception):
    """The setting has no address: asking again cannot help before somebody sets it."""

    def __init__(self, setting: str) -> None:
        super().__init__(f"{setting} is not set")


class RateLimited(Exception):
    """429: the other system is up and asks for a later call. `retry_after` is in seconds, None if it did not
    say.
    """

    def __init__(self, url: str, retry_after: float | None) -> None:
        super().__init__(f"{url} answered 429")
        self.retry_after = retry_after


class Refused(Exception):
    """A 4xx: the other service read the request and refused it. `status` and `reason` are from its answer."""

    def __init__(self, url: str, status: int, reason: str) -> None:
        super().__init__(f"{url} answered {status}: {reason}")
        self.status = status
        self.reason = reason


class Unusable(requests.RequestException):
    """An answer that is neither success nor refusal (a redirect, a 5xx): it may or may not have had its
    effect.
    """


def address(setting: str) -> str:
    """The base address that the setting names. Raises NotConfigured when it names none."""
    url: str = getattr(settings, setting)
    if not url:
        # requests would raise an error of the kind that an outage raises.
        raise NotConfigured(setting)
    return url


def post_json(url: str, data: Mapping[str, Any], *, idempotency_key: str = "") -> dict[str, Any]:
    """POST `data` and return the JSON object that comes back.

    Raises RateLimited, Refused, or, when asking again with the same key makes sense,
    requests.RequestException.
    """
    since = time.monotonic()
    response = requests.post(
        url,
        json=data,
        headers={"Idempotency-Key": idempotency_key} if idempotency_key else {},
        timeout=TIMEOUT_S,
        # requests would follow a redirected POST with a GET, whose 200 says nothing about our request.
        allow_redirects=False,
        stream=True,
    )
    read_within(response, since=since, total_s=TOTAL_S)
    status = response.status_code
    if status == 429:
        asked = parse_retry_after(response.headers.get("Retry-After"), date=response.headers.get("Date"))
        raise RateLimited(url, asked)
    if 400 <= status < 500 and status != 408:
        raise Refused(url, status, response.text[:300])
    if not 200 <= status < 300:
        raise Unusable(f"{url} answered {status}")
    answer = response.json()
    if not isinstance(answer, dict):
        raise Unusable(f"{url} answered {status} with JSON that is no object")
    return answer
