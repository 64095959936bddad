"""Demo data: there after one run, unchanged by the next."""

from orders.models import Customer, Price, Product
from orders.seed import seed_demo
from tests.orders.conftest import place


def test_seeding_again_changes_nothing(db: None) -> None:
    seed_demo()
    place(quantity=3)
    seed_demo()
    assert list(Customer.objects.order_by("pk").values_list("pk", flat=True)) == list(range(1, 21))
    assert Product.objects.get(sku="WIDGET").stock == 1_000_000 - 3
    assert set(Price.objects.values_list("product__sku", "currency")) == {
        (sku, currency) for sku in ("WIDGET", "GADGET", "GIZMO") for currency in ("usd", "eur")
    }


def test_customer_made_afterwards_gets_an_id_of_its_own(db: None) -> None:
    seed_demo()
    assert Customer.objects.create(name="Ada", email="ada@example.com").pk == 21
