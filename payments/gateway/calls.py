"""One HTTP call to the gateway: through the circuit breaker, its answer read and its errors translated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol, TypeVar

import stripe
from celery.exceptions import SoftTimeLimitExceeded

from common.clock import scaled
from payments.gateway import transport
from payments.gateway.errors import GatewayBusy, GatewayUnavailable, translated
from resilience.breaker import Breaker

#: Tries for one part of the ledger, without a pause. Reading is all or nothing: when 30 % of calls fail, a ledger of
#: ten pages would be read to its end once in 35 runs. Below the breaker's threshold, which judges outages.
READ_TRIES = 4


class HasId(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T")
Item = TypeVar("Item", bound=HasId)

#: How many keys of a series one run tries when the gateway replays stored 500s. Each hop is one request, made
#: only after the gateway itself said that it is replaying; so many stored 500s in a row are no accident.
KEY_SERIES = 8


def _is_outage(_kind: type[Exception], error: Exception) -> bool:
    # A declined card, a refused request, a 429, a stored 500 played back are answers of a gateway that is up. A soft
    # time limit that interrupts the call is no answer at all, and must not close a circuit that is open.
    if isinstance(error, SoftTimeLimitExceeded):
        return True
    return isinstance(error, GatewayUnavailable) and not isinstance(error, GatewayBusy) and not error.replayed


#: Around each HTTP call and not around a whole charge: a charge makes up to four calls, so at a given error
#: rate it fails far more often than the gateway does, and would open the circuit of a gateway that mostly
#: works.
breaker = Breaker(5, scaled(30), expected_exception=_is_outage, name="payment-gateway")


def call(operation: Callable[[stripe.StripeClient], T]) -> T:
    """Run `operation`, which makes one request and reads its answer, and return what it read.

    Raises the errors of `payments.gateway.errors`, or `circuitbreaker.CircuitBreakerError` without having sent
    anything.
    """

    def guarded() -> T:
        with translated():
            return operation(transport.client())

    result: T = breaker.call(guarded)
    return result


def post(key: str, operation: Callable[[stripe.StripeClient, Any], T]) -> T:
    """One POST under the idempotency key `key`, or under the first of its series that replays no stored 500.

    The series is fixed (`key`, `key-2`, `key-3`, ...), so every run of the same work walks the same keys and
    finds the answer of an earlier one. It is for operations that are safe under a new key; each caller says
    why.
    """
    for number in range(1, KEY_SERIES + 1):
        options = {"idempotency_key": key if number == 1 else f"{key}-{number}"}
        try:
            return call(lambda client, options=options: operation(client, options))  # type: ignore[misc]
        except GatewayUnavailable as error:
            if not error.replayed or number == KEY_SERIES:
                raise
    raise AssertionError("unreachable: the last key returns or raises")


def read(look: Callable[[], T]) -> T:
    """What `look` reads, at the first of `READ_TRIES` tries that gets an answer."""
    for last in (*[False] * (READ_TRIES - 1), True):
        try:
            return look()
        except GatewayUnavailable as error:
            if last or isinstance(error, GatewayBusy):
                raise
    raise AssertionError("unreachable: the last try returns or raises")


def pages(page: Callable[[Any], tuple[list[Item], bool]], params: Any) -> Iterator[Item]:
    """Everything in a list of the gateway's, newest first, page by page; `page(params)` reads one."""
    params = params | {"limit": 100}
    while True:
        found, more = read(partial(page, params))
        yield from found
        if not more or not found:
            return
        params = params | {"starting_after": found[-1].id}
