"""Demo data: every demo customer subscribes to everything."""

from collections.abc import Iterable

from webhooks.models import Subscription

DEMO_CUSTOMERS = range(1, 21)


def seed_demo(url_template: str, *, customer_ids: Iterable[int] = DEMO_CUSTOMERS) -> None:
    """One active subscription for each demo customer at `url_template.format(customer_id=…)`.

    May be run again, with another address too: what the customers had before is switched off.
    """
    for customer_id in customer_ids:
        url = url_template.format(customer_id=customer_id)
        Subscription.objects.filter(customer_id=customer_id).exclude(url=url).update(
            is_active=False, disabled_reason="replaced by a new demo address"
        )
        Subscription.objects.update_or_create(
            customer_id=customer_id, url=url, defaults={"is_active": True, "disabled_reason": ""}
        )
