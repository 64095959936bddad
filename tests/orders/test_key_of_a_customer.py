"""An Idempotency-Key belongs to the customer: whichever API key repeats a request, there is one order for it."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpResponse

from idempotency.answers import answer_once
from idempotency.models import Record
from orders.api.idempotency import asked_for
from orders.models import ApiKey, Customer, Order
from orders.schema import OrderIn
from outbox.database import may_pass
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


def test_another_body_is_refused_although_it_names_another_customer(shop: None) -> None:
    """Under one API key."""
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


@pytest.mark.promise(
    "P1",
    "the API key is rotated and deleted between a request and its repetition",
    "the repetition with the new API key is answered with the first order",
)
def test_answer_outlives_the_api_key_that_it_was_given_to(shop: None) -> None:
    first = caller(name="old").post(body())
    ApiKey.objects.get(name="old").delete()
    assert caller().post(body()).content == first.content
    assert Order.objects.count() == 1


@pytest.mark.promise(
    "P1",
    "two API keys of one customer send the same Idempotency-Key at once",
    "one order; the other request gets 409 or the same answer",
)
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


def test_request_in_flight_is_a_409_under_another_api_key(busy_shop: None) -> None:
    in_flight, answered = threading.Event(), threading.Event()
    api_key, _ = ApiKey.issue("first", customer=customer())

    def slowly() -> HttpResponse:
        in_flight.set()
        assert answered.wait(30)
        place()
        return HttpResponse("{}", status=202)

    def first() -> None:
        try:
            answer_once(asked_for(api_key, "key-1", OrderIn(**body())), slowly)
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

    @pytest.mark.promise(
        "P1",
        "a web process of the release in which a key belonged to the API key runs beside a new one",
        "one order for a key of a customer",
    )
    def test_old_web_process_beside_a_new_one_places_nothing_twice(
        self, release_before: Callable[[], None]
    ) -> None:
        """The old one is of the release in which a key belonged to the API key."""
        release_before()
        old, _ = ApiKey.issue("old", customer=customer())
        order = place()
        answered_by_the_release_before(old, order)
        assert caller().post(body()).json() == {"id": order.pk}
        assert Order.objects.count() == 1


class TestMove:
    """From the release that kept the answers in a table of `orders`."""

    @pytest.fixture
    def move(self, busy_shop: None) -> Iterator[Callable[[], None]]:
        migrate([("orders", "0007_nothing_guessed_in_an_import")])
        yield lambda: migrate(latest())
        migrate(latest())

    @pytest.mark.parametrize("stored", ["key-1", '"key-1"'])
    def test_answer_from_before_is_given_byte_by_byte(self, move: Callable[[], None], stored: str) -> None:
        api_key, raw = ApiKey.issue("old")
        order = place()
        answered_by_the_release_before(api_key, order, key=stored)
        move()
        for again in (Caller(raw).post(body()), caller().post(body())):
            assert (again.status_code, again.content) == (202, f'{{"id": {order.pk}}}'.encode())
            assert again["Location"] == f"/api/orders/{order.pk}"
            assert again["Content-Type"] == "application/json; charset=utf-8"
        assert problem(Caller(raw).post(body(currency="eur")), 422)["code"] == "idempotency_key_reused"
        assert Order.objects.count() == 1

    def test_more_rows_than_a_batch_are_moved(self, move: Callable[[], None]) -> None:
        order = place()
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO orders_idempotencyrecord (customer_id, key, body_hash, order_id, answer, created_at)"
                " SELECT 1, 'key ' || number, 'same', %s, '{}', now() FROM generate_series(1, 25000) number",
                [order.pk],
            )
        move()
        assert Record.objects.filter(scope="customer-1", client="").count() == 25_000

    def test_answer_of_an_old_process_is_found_by_a_new_one(self, move: Callable[[], None]) -> None:
        move()
        order = place()
        answered_by_the_release_before(ApiKey.issue("old")[0], order)
        assert caller().post(body()).json() == {"id": order.pk}
        assert Order.objects.count() == 1

    @pytest.mark.promise(
        "P1",
        "a web process of the release that kept the answers in a table of `orders` runs beside a new one",
        "one order for a key; the old process answers 503 for a key that the new one has answered",
    )
    def test_old_process_cannot_commit_an_order_a_new_one_answered(self, move: Callable[[], None]) -> None:
        """Under the same key."""
        move()
        assert caller().post(body()).status_code == 202
        old, _ = ApiKey.issue("old", customer=customer())
        with pytest.raises(OperationalError) as refused, transaction.atomic():
            answered_by_the_release_before(old, place())
        assert may_pass(refused.value), "the client would not be told to come again"
        assert Order.objects.count() == 1

    def test_old_process_and_a_new_one_take_the_same_lock(self, move: Callable[[], None]) -> None:
        move()
        api = caller()
        name = int.from_bytes(hashlib.sha256(b"customer-1:key-1").digest()[:8], signed=True)
        with ThreadPoolExecutor(1) as pool, transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [name])

            def post() -> Any:
                try:
                    return api.post(body())
                finally:
                    connection.close()

            assert problem(pool.submit(post).result(30), 409)["code"] == "request_in_flight"

    def test_answer_of_a_new_process_survives_the_way_back(self, move: Callable[[], None]) -> None:
        move()
        answer = caller().post(body())
        migrate([("orders", "0007_nothing_guessed_in_an_import")])
        with connection.cursor() as cursor:
            cursor.execute("SELECT customer_id, key, order_id, answer FROM orders_idempotencyrecord")
            assert cursor.fetchall() == [(1, "key-1", answer.json()["id"], answer.content.decode())]
        move()
        assert caller().post(body()).content == answer.content


def test_answer_is_kept_for_as_long_as_its_order(shop: None) -> None:
    caller().post(body(), key="another")
    first = caller().post(body()).json()["id"]
    Order.objects.get(pk=first).delete()
    assert caller().post(body()).json()["id"] != first
    assert Order.objects.count() == Record.objects.count() == 2


def answered_by_the_release_before(api_key: ApiKey, order: Order, *, key: str = "key-1") -> None:
    """A record as the release before inserts it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO orders_idempotencyrecord (api_key_id, key, body_hash, order_id, answer, created_at)"
            " VALUES (%s, %s, %s, %s, %s, now())",
            [api_key.pk, key, fingerprint(order.customer_id), order.pk, f'{{"id": {order.pk}}}'],
        )


def migrate(targets: list[tuple[str, str]]) -> None:
    MigrationExecutor(connection).migrate(targets)


def latest() -> list[tuple[str, str]]:
    """Of every app: what builds on this one's migrations went back with them."""
    return MigrationExecutor(connection).loader.graph.leaf_nodes()


def fingerprint(customer_id: int = 1) -> str:
    return asked_for(ApiKey(pk=1), "key-1", OrderIn(**body(customer_id=customer_id))).body_hash


def test_record_names_the_customer_of_its_order(shop: None) -> None:
    caller(None).post(body(customer_id=3))
    assert Record.objects.get().scope == "customer-3"
