"""Refusing early, while it is cheap: a rate per API key, and no new orders on top of a backlog that is already too
long.
"""

import logging
from functools import lru_cache

from django.conf import settings

from orders.api.problems import busy
from orders.models import ApiKey
from outbox.stats import backlog
from resilience.backpressure import Admission, QueueFull
from resilience.dedup import is_duplicate
from resilience.ratelimit import TokenBucket

logger = logging.getLogger(__name__)

#: Seconds between two log lines about one key.
REPORT_EVERY_S = 60.0


def check_rate(key: ApiKey) -> None:
    """Take one of the key's tokens; raises a 429 problem when it places more than `ORDERS_PER_SECOND`."""
    permit = TokenBucket(settings.ORDERS_PER_SECOND).acquire(f"orders-api-key-{key.pk}")
    if not permit:
        # Once a minute for a key: a line for each refusal would fill the log while it is needed most.
        if not is_duplicate(f"rate-limited-{key.pk}", ttl=REPORT_EVERY_S):
            logger.warning("API key %s places more than ORDERS_PER_SECOND orders", key.pk)
        raise busy(
            429,
            "rate_limited",
            f"This key may place {settings.ORDERS_PER_SECOND:g} orders a second.",
            retry_after_s=permit.wait_seconds,
        )


def check_backlog() -> None:
    """Raises a 503 problem while `ORDERS_MAX_BACKLOG` messages are open: an order accepted now would wait too
    long.
    """
    try:
        _admission(settings.ORDERS_MAX_BACKLOG).check()
    except QueueFull as error:
        raise busy(
            503,
            "overloaded",
            "Too much work is waiting; no order was stored.",
            retry_after_s=error.retry_after,
        ) from error


@lru_cache(maxsize=4)
def _admission(limit: int) -> Admission:
    return Admission("orders", count=lambda: backlog(limit), limit=limit)
