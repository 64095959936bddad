"""`python -m bench_seed`: the tables, customers and goods of the shop; prints the API's key and the merchants' secrets.

BENCH_WEBHOOKS is the address of a merchant with a place for `{customer_id}`, BENCH_SKUS how many goods there are besides those
of the demo.
"""

from __future__ import annotations

import json
import os

import django


def main() -> None:
    django.setup()
    from django.core.management import call_command

    from orders.models import ApiKey, Price, Product
    from orders.seed import STOCK, seed_demo
    from webhooks.models import Subscription
    from webhooks.seed import seed_demo as seed_webhooks

    call_command("migrate", verbosity=0, interactive=False)
    seed_demo()
    seed_webhooks(os.environ["BENCH_WEBHOOKS"])
    for number in range(int(os.environ["BENCH_SKUS"])):
        product = Product.objects.create(sku=f"SKU-{number}", name=f"Product {number}", stock=STOCK)
        for currency in ("usd", "eur"):
            Price.objects.create(product=product, currency=currency, amount_cents=1000 + number)
    _, key = ApiKey.issue("bench")
    secrets = dict(Subscription.objects.filter(is_active=True).values_list("customer_id", "secret"))
    print(json.dumps({"api_key": key, "secrets": secrets}))


if __name__ == "__main__":
    main()
