"""An Idempotency-Key belongs to the customer: whichever API key repeats a request, there is one order for it."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from orders.api import idempotency
from orders.api.schemas import OrderIn
from orders.models import ApiKey, Customer, IdempotencyRecord, Order
from outbox.testing import staged
from tests.orders.conftest import Caller, body, place
from tests.orders.test_api import problem

BEFORE = [("orders", "0003_unsold_orders")]


def customer(number: int = 1) -> Customer:
    return Customer.objects.get(pk=number)


def caller(number: int | None = 1, name: str = "key") -> Caller:
    """A caller with a new API key: of that customer, or of the shop itself (None)."""
    return Caller(ApiKey.issue(name, customer=customer(number) if number else None)[1])


@pytest.mark.parametrize("owners", [(1, 1), (None, None), (None, 1), (1, None)])
def test_request_repeated_with_a_rotated_api_key_is_answered_the_same(
    shop: None, owners: tuple[int | None, int | None]
) -> None:
    first = caller(owners[0]).post(body())
    again = caller(owners[1]).post(body())
    assert (again.status_code, again["Idempotent-Replayed"]) == (202, "true")
    assert (again.content, again["Location"]) == (first.content, first["Location"])
    assert Order.objects.count() == 1
    assert len(staged("orders.tasks.process_order")) == 1


def test_another_body_under_another_api_key_of_the_customer_is_refused(shop: None) -> None:
    caller().post(body())
    assert problem(caller().post(body(currency="eur")), 422)["code"] == "idempotency_key_reused"
    assert Order.objects.count() == 1


def test_another_body_under_one_api_key_is_refused_although_it_names_another_customer(shop: None) -> None:
    of_the_shop = caller(None)
    of_the_shop.post(body())
    assert problem(of_the_shop.post(body(customer_id=2)), 422)["code"] == "idempotency_key_reused"
    assert Order.objects.count() == 1


def test_keys_of_two_customers_do_not_meet(shop: None) -> None:
    one, two = caller(1).post(body()), caller(2).post(body(customer_id=2))
    assert (one.status_code, two.status_code) == (202, 202)
    assert one.json()["id"] != two.json()["id"]


@pytest.mark.parametrize("changes", [{}, {"currency": "eur"}])
def test_another_customers_answer_cannot_be_asked_for(shop: None, changes: dict[str, Any]) -> None:
    caller(2).post(body(customer_id=2))
    answer = caller(1).post(body(customer_id=2, **changes))
    assert problem(answer, 422)["code"] == "unknown_customer"


def test_answer_outlives_the_api_key_that_it_was_given_to(shop: None) -> None:
    first = caller(name="old").post(body())
    ApiKey.objects.get(name="old").delete()
    assert caller().post(body()).content == first.content
    assert Order.objects.count() == 1


def test_two_api_keys_of_one_customer_at_once_place_one_order(busy_shop: None) -> None:
    callers = [caller() for _ in range(2)]
    together = threading.Barrier(8)

    def post(number: int) -> Any:
        try:
            together.wait(10)
            return callers[number % 2].post(body())
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(8)))
    placed = [answer for answer in answers if answer.status_code == 202]
    assert placed
    assert len({answer.content for answer in placed}) == Order.objects.count() == 1
    for answer in answers:
        if answer.status_code != 202:
            assert problem(answer, 409)["code"] == "request_in_flight"


def test_request_in_flight_under_one_api_key_is_a_409_under_the_other(busy_shop: None) -> None:
    in_flight, answered = threading.Event(), threading.Event()
    api_key, _ = ApiKey.issue("first", customer=customer())

    def slowly() -> tuple[Order, str]:
        in_flight.set()
        assert answered.wait(30)
        return place(), "{}"

    def first() -> None:
        try:
            idempotency.answer_once(idempotency.Asked(api_key, 1, "key-1", fingerprint()), slowly)
        finally:
            connection.close()

    thread = threading.Thread(target=first)
    thread.start()
    assert in_flight.wait(30)
    other = caller()
    meanwhile = other.post(body())
    answered.set()
    thread.join(30)
    assert problem(meanwhile, 409)["code"] == "request_in_flight"
    assert other.post(body()).content == b"{}"
    assert Order.objects.count() == 1


class TestUpgrade:
    """From the release in which a key belonged to the API key."""

    @pytest.fixture
    def release_before(self, busy_shop: None) -> Iterator[Callable[[], None]]:
        """The schema of the release before; the fixture's value is the upgrade."""
        migrate(BEFORE)
        yield lambda: migrate(latest())
        migrate(latest())

    def test_no_answer_is_lost_although_one_customer_used_one_key_twice(
        self, release_before: Callable[[], None]
    ) -> None:
        keys = [ApiKey.issue(f"key {number}", customer=customer()) for number in range(2)]
        orders = [place(), place(), place(customer_id=2)]
        other, raw = ApiKey.issue("other", customer=customer(2))
        for owner, order in zip((keys[0][0], keys[1][0], other), orders, strict=True):
            answered_by_the_release_before(owner, order)
        release_before()
        for (_, key), order in zip(keys, orders, strict=False):
            assert Caller(key).post(body()).json() == {"id": order.pk}
        assert Caller(raw).post(body(customer_id=2)).json() == {"id": orders[2].pk}
        # A third key of the customer is given the first of the two answers.
        assert caller().post(body()).json() == {"id": orders[0].pk}
        assert Order.objects.count() == 3

    def test_web_process_of_the_release_before_places_nothing_twice_beside_a_new_one(
        self, release_before: Callable[[], None]
    ) -> None:
        release_before()
        old, _ = ApiKey.issue("old", customer=customer())
        order = place()
        answered_by_the_release_before(old, order)
        assert caller().post(body()).json() == {"id": order.pk}
        assert Order.objects.count() == 1


def answered_by_the_release_before(api_key: ApiKey, order: Order) -> None:
    """A record as the release before inserts it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO orders_idempotencyrecord (api_key_id, key, body_hash, order_id, answer, created_at)"
            " VALUES (%s, 'key-1', %s, %s, %s, now())",
            [api_key.pk, fingerprint(order.customer_id), order.pk, f'{{"id": {order.pk}}}'],
        )


def migrate(targets: list[tuple[str, str]]) -> None:
    MigrationExecutor(connection).migrate(targets)


def latest() -> list[tuple[str, str]]:
    """Of every app: what builds on this one's migrations went back with them."""
    return MigrationExecutor(connection).loader.graph.leaf_nodes()


def fingerprint(customer_id: int = 1) -> str:
    return idempotency.fingerprint(OrderIn(**body(customer_id=customer_id)))


def test_record_names_the_customer_of_its_order(shop: None) -> None:
    caller(None).post(body(customer_id=3))
    assert IdempotencyRecord.objects.get().customer_id == 3
