"""Who is calling: Bearer keys."""

from django.http import HttpRequest
from ninja.security import HttpBearer

from orders.models import ApiKey, Order


class BearerKey(HttpBearer):
    """Accepts an active ApiKey in `Authorization: Bearer …`; views find it as `request.auth`."""

    def authenticate(self, request: HttpRequest, token: str) -> ApiKey | None:
        """The key, or None. Looked up by its hash, so that the database's comparison leaks no part of the
        key.
        """
        return ApiKey.objects.filter(key_hash=ApiKey.digest(token), is_active=True).first()


def may_see(key: ApiKey, order: Order) -> bool:
    """Whether the key may know that this order exists."""
    return key.customer_id is None or key.customer_id == order.customer_id
