"""The HTTP API: what a client is answered."""

import json
from typing import Any
from unittest.mock import MagicMock

import pytest
from django.test import Client
from pytest_mock import MockerFixture

from idempotency.models import Record
from orders.models import ApiKey, Customer, Order
from orders.services import OrderService
from outbox.models import OutboxMessage
from outbox.testing import drain, staged
from payments.gateway import CardDeclined
from tests.orders.conftest import Caller, body, place, quiet


@pytest.mark.described("a request is answered `202 Accepted` before its work is done")
def test_placed_order_is_answered_202_with_its_address(api: Caller) -> None:
    answer = api.post(body())
    assert answer.status_code == 202
    document = answer.json()
    assert document["status"] == "pending"
    assert (document["subtotal"], document["tax"], document["total"], document["currency"]) == (
        4997,
        412,
        5409,
        "usd",
    )
    assert document["items"] == [
        {"sku": "WIDGET", "quantity": 2, "unit_price": 1999},
        {"sku": "GIZMO", "quantity": 1, "unit_price": 999},
    ]
    assert answer["Location"] == f"/api/orders/{document['id']}"
    assert api.get(answer["Location"]).json() == document


def test_order_is_answered_only_after_it_and_its_message_are_committed(
    api: Caller, mocker: MockerFixture
) -> None:
    mocker.patch("outbox.emit", side_effect=RuntimeError("the outbox is broken"))
    answer = api.post(body())
    assert answer.status_code == 500
    assert answer["Content-Type"] == "application/problem+json"
    assert not Order.objects.exists()
    assert not Record.objects.exists()


class TestIdempotencyKey:
    def test_same_key_and_body_are_answered_the_same(self, api: Caller) -> None:
        first, again = api.post(body()), api.post(body())
        assert again.status_code == first.status_code == 202
        assert again.content == first.content
        assert again["Location"] == first["Location"]
        assert Order.objects.count() == 1
        assert len(staged("orders.tasks.process_order")) == 1

    def test_answer_stays_the_same_when_the_order_moves_on(self, api: Caller, charge: MagicMock) -> None:
        first = api.post(body())
        OrderService.process(order_id=first.json()["id"])
        assert api.post(body()).content == first.content

    def test_body_that_differs_in_spaces_and_order_of_keys_is_the_same(self, api: Caller) -> None:
        first = api.post(body())
        again = api.post(json.dumps(dict(reversed(body().items())), indent=4).encode())
        assert again.json() == first.json()

    def test_same_key_with_another_body_is_refused(self, api: Caller) -> None:
        api.post(body())
        answer = api.post(body(currency="eur"))
        assert problem(answer, 422)["code"] == "idempotency_key_reused"
        assert Order.objects.count() == 1

    def test_refused_request_does_not_use_up_its_key(self, api: Caller) -> None:
        assert api.post(body(items=[{"sku": "NOTHING", "quantity": 1}])).status_code == 422
        assert api.post(body()).status_code == 202

    @pytest.mark.parametrize(
        "key", [None, "", " ", "x" * 256, "caf\u00e9", "tab\there", " starts-with-space"]
    )
    def test_missing_oversized_or_unprintable_key_is_a_400(self, api: Caller, key: str | None) -> None:
        document = problem(api.post(body(), key=key), 400)
        assert document["errors"][0]["field"] == "Idempotency-Key"
        assert not Order.objects.exists()

    def test_key_of_255_characters_is_taken(self, api: Caller) -> None:
        assert api.post(body(), key="x" * 255).status_code == 202


class TestReading:
    def test_pages_list_every_order_once_newest_first(self, api: Caller) -> None:
        placed = [place().id for _ in range(7)]
        seen: list[int] = []
        cursor = None
        while True:
            page = api.get(limit=3, **({"cursor": cursor} if cursor else {})).json()
            seen += [order["id"] for order in page["items"]]
            if len(seen) == 3:
                place()  # an order placed meanwhile shifts no page
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert seen == list(reversed(placed))

    def test_list_can_be_narrowed_by_status_and_customer(self, api: Caller, charge: MagicMock) -> None:
        mine, other = place(), place(customer_id=2)
        OrderService.process(order_id=mine.id)
        assert [o["id"] for o in api.get(status="completed").json()["items"]] == [mine.id]
        assert [o["id"] for o in api.get(customer_id=2).json()["items"]] == [other.id]

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ({"limit": 0}, "limit"),
            ({"limit": 101}, "limit"),
            ({"limit": "many"}, "limit"),
            ({"cursor": "!!"}, "cursor"),
            ({"cursor": "\x00"}, "cursor"),
            ({"cursor": "-1"}, "cursor"),
            ({"status": "lost"}, "status"),
            ({"customer_id": "0"}, "customer_id"),
            ({"customer_id": "9" * 30}, "customer_id"),
        ],
    )
    def test_bad_parameter_is_a_400_that_names_it(
        self, api: Caller, query: dict[str, Any], field: str
    ) -> None:
        assert problem(api.get(**query), 400)["errors"][0]["field"] == field

    def test_unknown_order_is_a_404(self, api: Caller) -> None:
        for order_id in ("999999", "9" * 30, "0"):
            problem(api.get(f"/api/orders/{order_id}"), 404)

    def test_journey_tells_the_whole_story(
        self, api: Caller, charge: MagicMock, mocker: MockerFixture
    ) -> None:
        quiet(mocker)
        order_id = api.post(body()).json()["id"]
        drain()
        story = api.get(f"/api/orders/{order_id}/journey").json()
        assert story["order"]["status"] == "completed"
        assert [step["to_status"] for step in story["transitions"]] == ["pending", "processing", "completed"]
        steps = {step["step"]: step["status"] for step in story["steps"]}
        assert steps["process_order"] == "done"
        assert {"send_receipt", "notify_warehouse", "create_invoice"} < set(steps)
        assert len(story["invoices"]) == 1
        assert story["refund"] is None

    def test_journey_shows_a_customer_nothing_of_the_inside(
        self, api: Caller, charge: MagicMock, mocker: MockerFixture
    ) -> None:
        quiet(mocker)
        order_id = api.post(body()).json()["id"]
        drain()
        inside = "canary-of-the-inside"
        OutboxMessage.objects.filter(task="orders.tasks.send_receipt").update(
            status="dead",
            worker=inside,
            queue="low",
            headers={"note": inside},
            args=[inside],
            errors=[{"at": "now", "error": f"OSError: http://10.0.0.7:8025 {inside}", "worker": inside}],
        )
        order = Order.objects.get(pk=order_id)
        order.transitions.create(from_status="processing", to_status="processing", note=inside)
        answer = api.get(f"/api/orders/{order_id}/journey")
        steps = {step["step"]: step["status"] for step in answer.json()["steps"]}
        assert steps["send_receipt"] == "delayed"
        for hidden in (inside, "10.0.0.7", "orders.tasks", "traceback"):
            assert hidden not in answer.content.decode()
        ids = OutboxMessage.objects.values_list("message_id", flat=True)
        assert not any(str(message_id) in answer.content.decode() for message_id in ids)


class TestCancelling:
    def test_pending_order_is_cancelled(self, api: Caller) -> None:
        order = place()
        answer = api.post({"reason": "changed my mind"}, path=f"/api/orders/{order.id}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")

    def test_body_may_be_left_out_and_repetition_is_answered_the_same(self, api: Caller) -> None:
        order = place()
        first = api.post(b"", path=f"/api/orders/{order.id}/cancel")
        again = api.post(b"", path=f"/api/orders/{order.id}/cancel")
        assert first.status_code == again.status_code == 200
        assert first.json() == again.json()

    def test_failed_order_is_a_409_with_the_reason(self, api: Caller, charge: MagicMock) -> None:
        charge.side_effect = CardDeclined("no")
        order = place()
        OrderService.process(order_id=order.id)
        document = problem(api.post({}, path=f"/api/orders/{order.id}/cancel"), 409)
        assert document["code"] == "order_failed"
        assert "is failed" in document["detail"]

    def test_unknown_order_is_a_404(self, api: Caller) -> None:
        problem(api.post({}, path="/api/orders/999999/cancel"), 404)


class TestKeys:
    @pytest.mark.parametrize(
        "authorization",
        [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic dXNlcjpwYXNz", "Bearer \u00ff\u0000"],
    )
    def test_missing_or_wrong_key_is_a_401_that_asks_for_one(
        self, shop: None, authorization: str | None
    ) -> None:
        client = Client(headers={"Authorization": authorization} if authorization is not None else {})
        for answer in (
            client.get("/api/orders"),
            client.post("/api/orders", data=body(), content_type="application/json"),
        ):
            problem(answer, 401)
            assert answer["WWW-Authenticate"].startswith("Bearer")

    def test_key_that_was_switched_off_is_a_401(self, shop: None) -> None:
        key, raw = ApiKey.issue("old")
        caller = Caller(raw)
        assert caller.get().status_code == 200
        key.is_active = False
        key.save()
        problem(caller.get(), 401)

    def test_raw_key_is_stored_nowhere(self, shop: None) -> None:
        key, raw = ApiKey.issue("mine")
        stored = ApiKey.objects.filter(pk=key.pk).values().get()
        assert raw not in str(stored)
        assert stored["prefix"] == raw[:8]

    def test_key_of_one_customer_sees_and_places_only_that_customers_orders(self, shop: None) -> None:
        mine, other = place(), place(customer_id=2)
        caller = Caller(ApiKey.issue("one", customer=Customer.objects.get(pk=1))[1])
        assert [order["id"] for order in caller.get().json()["items"]] == [mine.id]
        assert caller.get(customer_id=2).json()["items"] == []
        problem(caller.get(f"/api/orders/{other.id}"), 404)
        problem(caller.get(f"/api/orders/{other.id}/journey"), 404)
        problem(caller.post({}, path=f"/api/orders/{other.id}/cancel"), 404)
        assert problem(caller.post(body(customer_id=2)), 422)["errors"][0]["field"] == "customer_id"
        other.refresh_from_db()
        assert other.status == "pending"


def test_reference_and_its_schema_are_served(api: Caller) -> None:
    reference = Client().get("/api/docs")
    assert reference.status_code == 200
    assert b"//cdn." not in reference.content, "the reference must open without the internet"
    schema = Client().get("/api/openapi.json").json()
    operation = schema["paths"]["/api/orders"]["post"]
    assert set(operation["responses"]) == {"202", "400", "401", "409", "413", "415", "422", "429", "503"}
    assert "application/problem+json" in operation["responses"]["422"]["content"]
    assert operation["parameters"][0]["name"] == "Idempotency-Key"
    assert operation["parameters"][0]["required"]


def test_reference_names_every_header_that_an_answer_has_for_its_client(
    api: Caller, mocker: MockerFixture, settings: Any
) -> None:
    plain = set(api.get().headers)
    answers = [Client().post("/api/orders"), api.post(body()), api.post(body())]
    settings.ORDERS_MAX_BACKLOG = 0
    answers.append(api.post(body(), key="key-2"))
    settings.ORDERS_MAX_BACKLOG = 1_000
    settings.ORDERS_PER_SECOND = 0.001
    answers += [api.post(body()), api.post(body())]
    settings.ORDERS_PER_SECOND = 1_000
    mocker.patch("idempotency.answers._only_one_in_flight", return_value=False)
    answers.append(api.post(body(), key="key-2"))
    sent: dict[str, set[str]] = {}
    for answer in answers:
        sent.setdefault(str(answer.status_code), set()).update(set(answer.headers) - plain)
    assert set(sent) == {"202", "401", "409", "429", "503"}
    responses = Client().get("/api/openapi.json").json()["paths"]["/api/orders"]["post"]["responses"]
    assert {status: set(responses[status]["headers"]) for status in sent} == sent


def test_nothing_is_stored_by_reading(api: Caller) -> None:
    api.get()
    api.get("/api/orders/1")
    assert not OutboxMessage.objects.exists()


def problem(answer: Any, status: int) -> dict[str, Any]:
    """The problem document of an answer, which must have this status."""
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert {"type", "title", "detail", "instance", "code"} <= set(document)
    return document


@pytest.mark.parametrize("path", ["/api/orders", "/api/orders/{id}", "/api/orders/{id}/journey"])
def test_head_is_answered_as_get_is_without_the_body(api: Caller, path: str) -> None:
    path = path.format(id=place().id)
    answer, full = api.client.head(path), api.get(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer["Content-Length"] == str(len(full.content))
    assert answer["Content-Type"] == full["Content-Type"]
