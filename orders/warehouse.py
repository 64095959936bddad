"""The warehouse's API, behind a rate limit and a circuit breaker."""

from collections.abc import Mapping
from typing import Any

import requests
from celery.exceptions import SoftTimeLimitExceeded
from circuitbreaker import CircuitBreakerError
from django.conf import settings

from common.clock import scaled
from orders.models import Order
from orders.outbound import address, post_json
from resilience import breaker
from resilience.ratelimit import rate_limited

FAILURE_THRESHOLD = 5
RECOVERY_TIMEOUT_S = 30


def _is_outage(kind: type[Exception], _error: Exception) -> bool:
    # A refusal or a 429 is the answer of a warehouse that is up: it must not cut off everybody else. A soft time limit
    # that interrupts the call is no answer at all, and must not close a circuit that is open.
    return issubclass(kind, (requests.RequestException, OSError, SoftTimeLimitExceeded))


@rate_limited("warehouse", per_second=settings.WAREHOUSE_PER_SECOND)
@breaker.circuit(
    FAILURE_THRESHOLD, scaled(RECOVERY_TIMEOUT_S), expected_exception=_is_outage, name="warehouse"
)
def call_external_api(data: Mapping[str, Any], *, idempotency_key: str = "") -> dict[str, Any]:
    """Ask the warehouse to ship; returns its answer.

    After five failures in a row no more is sent for 30 s, and CircuitBreakerError is raised at once: a
    warehouse that is down must not cost every worker its time, and gets room to recover. Above `WAREHOUSE_PER_SECOND`
    calls a second, of all workers together, RateLimitExceeded is raised at once: what an outage has piled up must not
    bring the warehouse down again. Other errors are those of `post_json`.
    """
    return post_json(f"{address('WAREHOUSE_URL')}/shipments", data, idempotency_key=idempotency_key)


def retry_after_s(error: CircuitBreakerError) -> float:
    """Seconds after which a call that the circuit refused may be tried again."""
    return breaker.retry_after(error, default=scaled(RECOVERY_TIMEOUT_S))


def shipment_of(order: Order) -> dict[str, Any]:
    """What the warehouse is told about an order."""
    return {
        "order_id": order.pk,
        "customer_id": order.customer_id,
        "items": [
            {"sku": item.product.sku, "quantity": item.quantity}
            for item in order.items.select_related("product").order_by("product__sku")
        ],
    }
