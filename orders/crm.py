"""The CRM's API: what an order looks like there, and the ways in which a sync can fail."""

import requests

from orders.models import Order
from orders.outbound import RateLimited, Refused, address, post_json

#: Refusals that are about the data. Any other is about us (a key that expired, an address that moved), and every order
#: would meet it.
_DATA_IS_WRONG = frozenset({400, 409, 413, 422})


class ServiceUnavailable(Exception):
    """The CRM did not take it now; `retry_after` is the wait in seconds that it asked for, or None."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class InvalidDataError(Exception):
    """The CRM will never take this data; the text is its reason."""


class SyncService:
    """Copies entities into the CRM. Sending one again replaces it there, so a repetition is harmless."""

    @staticmethod
    def sync(entity_type: str, entity_id: int) -> None:
        """Send the entity's present state; raises ServiceUnavailable, InvalidDataError, or Refused when the CRM wants
        nothing from us, whatever the data.
        """
        if entity_type != "order":
            raise InvalidDataError(f"The CRM takes orders, not {entity_type}.")
        order = Order.objects.select_related("customer").get(pk=entity_id)
        record = {
            "order_id": order.pk,
            "status": order.status,
            "currency": order.currency,
            "total_cents": order.total_cents,
            "customer_id": order.customer_id,
            "customer_name": order.customer.name,
            "customer_email": order.customer.email,
        }
        try:
            post_json(
                f"{address('CRM_URL')}/orders", record, idempotency_key=f"crm-order-{order.pk}-{order.status}"
            )
        except RateLimited as error:
            raise ServiceUnavailable(str(error), error.retry_after) from error
        except Refused as error:
            if error.status not in _DATA_IS_WRONG:
                raise
            raise InvalidDataError(error.reason or str(error)) from error
        except requests.RequestException as error:
            raise ServiceUnavailable(str(error)) from error
