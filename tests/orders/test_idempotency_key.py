"""One key is one order: when requests race, when they crash, and when many do both."""

import json
import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.http import HttpResponse

from idempotency.answers import Asked, answer_once
from idempotency.errors import InFlight
from idempotency.models import Record
from orders.api.idempotency import asked_for
from orders.models import ApiKey, Order
from orders.schema import OrderIn
from orders.services import place_order
from outbox.testing import staged
from tests.orders.conftest import Caller, body, place, units
from tests.orders.test_api import problem


@pytest.fixture
def raw_key(busy_shop: None) -> str:
    return ApiKey.issue("test")[1]


def test_identical_requests_at_once_place_one_order(raw_key: str) -> None:
    together = threading.Barrier(8)

    def post(_: int) -> Any:
        try:
            together.wait(10)
            return Caller(raw_key).post(body())
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(8)))
    assert Order.objects.count() == 1
    assert len(staged("orders.tasks.process_order")) == 1
    placed = [answer for answer in answers if answer.status_code == 202]
    assert placed
    assert len({answer.content for answer in placed}) == 1
    for answer in answers:
        if answer.status_code != 202:
            assert problem(answer, 409)["code"] == "request_in_flight"
            assert int(answer["Retry-After"]) >= 1


def test_request_whose_duplicate_is_in_flight_is_a_409(raw_key: str) -> None:
    """Sent again, it gets the answer of the first."""
    api_key = ApiKey.objects.get()
    placing, finish = threading.Event(), threading.Event()

    def slowly() -> HttpResponse:
        placing.set()
        assert finish.wait(30)
        return accepted(place(), '{"status": "pending"}')

    def first() -> None:
        try:
            answer_once(asked(api_key), slowly)
        finally:
            connection.close()

    thread = threading.Thread(target=first)
    thread.start()
    assert placing.wait(30)
    caller = Caller(raw_key)
    assert problem(caller.post(body()), 409)["code"] == "request_in_flight"
    assert caller.post(body(), key="key-2").status_code == 202
    finish.set()
    thread.join(30)
    assert caller.post(body()).content == b'{"status": "pending"}'
    assert Order.objects.count() == 2


@pytest.mark.promise(
    "P1",
    "the web process is killed before COMMIT",
    "nothing is left: no order, no message, no reservation, and the key is free",
)
def test_crash_after_placing_leaves_the_key_free(raw_key: str) -> None:
    before = units()
    api_key = ApiKey.objects.get()

    def crash() -> HttpResponse:
        place()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answer_once(asked(api_key), crash)
    assert not Order.objects.exists()
    assert units() == before
    assert Caller(raw_key).post(body()).status_code == 202


def test_a_last_step_that_fails_takes_the_recorded_answer_back(raw_key: str) -> None:
    api_key = ApiKey.objects.get()
    recorded: list[bool] = []

    def fail() -> None:
        recorded.append(Record.objects.filter(key="key-1").exists())
        raise ValueError("sold out")

    with pytest.raises(ValueError, match="sold out"):
        answer_once(asked(api_key), lambda: accepted(place(), "{}"), last=fail)
    assert recorded == [True]
    assert not Record.objects.exists()
    assert not Order.objects.exists()


@pytest.mark.promise(
    "P1",
    "the connection to the database breaks in COMMIT",
    "nothing or all of it is stored; the repetition with the same key finds out",
)
def test_connection_that_dies_in_flight_leaves_the_key_free(raw_key: str) -> None:
    """A killed web process: no clean-up runs, PostgreSQL drops the lock and the transaction."""
    api_key = ApiKey.objects.get()
    died = threading.Event()

    def die() -> None:
        def place_and_die() -> HttpResponse:
            order = place()
            connection.connection.close()
            return accepted(order, "{}")

        with pytest.raises(Exception, match="closed"):
            answer_once(asked(api_key), place_and_die)
        connection.close()
        died.set()

    thread = threading.Thread(target=die)
    thread.start()
    assert died.wait(30)
    thread.join(30)
    assert Caller(raw_key).post(body()).status_code == 202
    assert Order.objects.count() == 1


@pytest.mark.promise(
    "P1",
    "the web process is killed after COMMIT, before its answer",
    "the order is being processed; the repetition is answered with it",
)
def test_keys_repeated_and_killed_at_random_are_one_order_each(raw_key: str) -> None:
    """Each request may be cut off before it is answered, as by a kill; clients repeat until they are
    answered.
    """
    keys = [str(uuid.uuid4()) for _ in range(40)]
    cut_off = Counter[str]()

    def order(key: str) -> int:
        api_key = ApiKey.objects.get()
        try:
            for attempt in range(200):
                dying = hash((key, attempt, threading.get_ident())) % 3 == 0

                def make(dying: bool = dying) -> HttpResponse:
                    placed = place_order(
                        customer_id=1, currency="usd", payment_method="pm_card_visa", lines=[("WIDGET", 1)]
                    )
                    if dying:
                        raise ConnectionAbortedError
                    return accepted(placed, f'{{"id": {placed.id}}}')

                try:
                    answer = answer_once(Asked("customer-1", key, "same", f"api-key-{api_key.pk}"), make)
                except ConnectionAbortedError:
                    cut_off[key] += 1
                except InFlight:
                    pass
                else:
                    answered: int = json.loads(answer.content)["id"]
                    return answered
            raise AssertionError(f"{key} was never answered")
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        answered = list(pool.map(order, keys * 5))
    assert sum(cut_off.values()) > 10
    assert Order.objects.count() == Record.objects.count() == 40
    assert len(set(answered)) == 40
    assert len(staged("orders.tasks.process_order")) == 40


@pytest.mark.django_db
def test_second_record_of_a_key_is_refused_by_the_database() -> None:
    """The lock saves a second caller its work; what makes the order one is the constraint."""
    record = {"client": "api-key-1", "key": "key-1", "body_hash": "same", "status": 202, "body": "{}"}
    Record.objects.create(scope="customer-1", **record)
    for scope, client in (("customer-1", "api-key-2"), ("customer-2", "api-key-1")):
        with pytest.raises(IntegrityError), transaction.atomic():
            Record.objects.create(**record | {"scope": scope, "client": client})


class OrderInOfTheNextRelease(OrderIn):
    gift: bool = False
    note: str | None = None


def test_request_repeated_across_a_release_that_adds_optional_fields_is_the_same() -> None:
    sent = body()
    del sent["receipt_email"]
    same = [
        OrderIn(**sent),
        OrderInOfTheNextRelease(**sent),
        OrderInOfTheNextRelease(**sent, note=None, gift=False),
    ]
    assert len({hashed(each) for each in same}) == 1
    assert hashed(OrderInOfTheNextRelease(**sent, gift=True)) != hashed(same[0])


def test_optional_field_left_out_or_null_is_the_same_request(raw_key: str) -> None:
    sent = body(receipt_email=None)
    first = Caller(raw_key).post(sent)
    del sent["receipt_email"]
    assert Caller(raw_key).post(sent).content == first.content
    assert problem(Caller(raw_key).post(body()), 422)["code"] == "idempotency_key_reused"


def asked(api_key: ApiKey) -> Asked:
    """What `post(body())` asks for."""
    return asked_for(api_key, "key-1", OrderIn(**body()))


def hashed(order: OrderIn) -> str:
    """What two bodies are compared by."""
    return asked_for(ApiKey(pk=1), "key-1", order).body_hash


def accepted(order: Order, content: str) -> HttpResponse:
    """The answer to a request that placed this order."""
    return HttpResponse(content, status=202, headers={"Location": f"/api/orders/{order.pk}"})
