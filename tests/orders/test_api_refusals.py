"""Bad input: a 4xx problem document that names the field, nothing stored, and never a 5xx."""

import json
from typing import Any

import pytest

from idempotency.models import Record
from orders.api.parsing import MAX_BODY_BYTES
from orders.models import Order, Price, Product
from outbox.models import OutboxMessage
from tests.orders.conftest import Caller, body, place, units
from tests.orders.test_api import problem

HUGE = 10**400


def line(**changes: Any) -> dict[str, Any]:
    return body(items=[{"sku": "WIDGET", "quantity": 1, **changes}])


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        (line(sku="NOTHING"), "items[0].sku"),
        (line(sku=""), "items[0].sku"),
        (line(sku="WID\x00GET"), "items[0].sku"),
        (line(sku=None), "items[0].sku"),
        (line(sku=["WIDGET"]), "items[0].sku"),
        (line(quantity=0), "items[0].quantity"),
        (line(quantity=-1), "items[0].quantity"),
        (line(quantity=10_001), "items[0].quantity"),
        (line(quantity=HUGE), "items[0].quantity"),
        (line(quantity=1.5), "items[0].quantity"),
        (line(quantity=True), "items[0].quantity"),
        (line(quantity="2"), "items[0].quantity"),
        (line(colour="red"), "items[0].colour"),
        (body(items=[]), "items"),
        (body(items=[{"sku": "WIDGET", "quantity": 1}] * 101), "items"),
        (body(items=[{"sku": "WIDGET", "quantity": 1}] * 2), "items[1].sku"),
        (body(items=[{"quantity": 1}]), "items[0].sku"),
        (body(customer_id=999), "customer_id"),
        (body(customer_id=0), "customer_id"),
        (body(customer_id=2**63), "customer_id"),
        (body(customer_id=HUGE), "customer_id"),
        (body(customer_id="1"), "customer_id"),
        (body(currency="gbp"), "currency"),
        (body(currency="usd\n"), "currency"),
        (body(currency="dollars"), "currency"),
        (body(payment_method="pm\x00"), "payment_method"),
        (body(payment_method="x" * 256), "payment_method"),
        (body(receipt_email="nobody"), "receipt_email"),
        (body(receipt_email="a\x00@example.com"), "receipt_email"),
        (body(receipt_email="\ud800@example.com"), "receipt_email"),
        (body(receipt_email="a" * 300 + "@example.com"), "receipt_email"),
        (body(receipt_email="a@example.com\nBcc: all@example.com"), "receipt_email"),
        (body(tip=1), "tip"),
        ([], "body"),
        ("order", "body"),
        (None, "body"),
    ],
    ids=lambda value: str(value)[:40].encode("ascii", "replace").decode() if isinstance(value, str) else None,
)
def test_wrong_field_is_a_422_that_names_it(api: Caller, sent: Any, field: str) -> None:
    before = units()
    document = problem(api.post(json.dumps(sent).encode()), 422)
    assert field in [error["field"] for error in document["errors"]]
    nothing_is_stored(before)


@pytest.mark.parametrize(
    "sent",
    [
        b"{",
        b"\xff\xfe\x00",
        b'{"customer_id": NaN}',
        b'{"customer_id": ' + b"9" * 5_000 + b"}",
        b"[" * 20_000,
        b'{"customer_id": 1, "customer_id": 2}',
        b"{'customer_id': 1}",
        json.dumps(body()).encode("utf-16"),
        json.dumps(body()).encode("utf-8-sig"),
    ],
    ids=["cut off", "no UTF-8", "NaN", "5,000 digits", "deep", "key twice", "no JSON", "UTF-16", "BOM"],
)
def test_malformed_json_is_a_400_that_names_the_body(api: Caller, sent: bytes) -> None:
    before = units()
    assert problem(api.post(sent), 400)["errors"] == [{"field": "body", "message": "is not valid JSON"}]
    nothing_is_stored(before)


@pytest.mark.parametrize(
    "content_type",
    [
        "text/xml",
        "text/plain; charset=iso-8859-1",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "application/json, text/plain",
        "application/json; charset=utf-16",
        "application/json; charset=bogus",
        "\xff",
    ],
)
def test_body_declared_as_other_than_utf8_json_is_a_415(api: Caller, content_type: str) -> None:
    before = units()
    order_id = place().pk
    for path in ("/api/orders", f"/api/orders/{order_id}/cancel"):
        document = problem(post_as(api, content_type, path=path), 415)
        assert document["errors"][0]["field"] == "Content-Type"
    assert Order.objects.get().status == "pending"
    assert units() == (before[0] - 1, before[1] + 1, before[2])


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"', "application/json; profile=x"],
)
def test_parameters_of_the_content_type_are_allowed(api: Caller, content_type: str) -> None:
    assert post_as(api, content_type).status_code == 202


@pytest.mark.parametrize(
    "content_type", ["", "application/x-www-form-urlencoded", "text/plain;charset=UTF-8"]
)
def test_what_clients_send_without_being_told_a_type_is_taken_for_json(
    api: Caller, content_type: str
) -> None:
    assert post_as(api, content_type).status_code == 202


@pytest.mark.parametrize("size", [MAX_BODY_BYTES + 1, 2_000_000], ids=["above ours", "above Django's"])
def test_body_over_the_limit_is_a_413(api: Caller, size: int) -> None:
    before = units()
    sent = json.dumps(body(receipt_email=None)).encode()
    assert problem(api.post(sent + b" " * (size - len(sent))), 413)["errors"][0]["field"] == "body"
    nothing_is_stored(before)


def test_body_at_the_limit_is_taken(api: Caller) -> None:
    sent = json.dumps(body()).encode()
    assert api.post(sent + b" " * (MAX_BODY_BYTES - len(sent))).status_code == 202


def test_order_out_of_stock_is_a_409_that_names_the_product(api: Caller) -> None:
    Product.objects.filter(sku="GIZMO").update(stock=0)
    before = units()
    document = problem(api.post(body()), 409)
    assert document["code"] == "out_of_stock"
    assert document["errors"] == [{"field": "items[1].sku", "message": "GIZMO is out of stock."}]
    nothing_is_stored(before)


def test_total_that_no_gateway_takes_is_a_422(api: Caller) -> None:
    Price.objects.filter(product__sku="WIDGET").update(amount_cents=2**60)
    assert problem(api.post(body()), 422)["code"] == "total_too_large"


@pytest.mark.parametrize(
    "path",
    [
        "/api/",
        "/api/nothing",
        "/api/orders/",
        "/api/orders/one",
        "/api/orders/-1",
        "/api/orders/1/refund",
        "/api/%00",
    ],
)
def test_unknown_path_is_a_404(api: Caller, path: str) -> None:
    problem(api.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/api/orders", {"GET", "HEAD", "POST"}),
        ("DELETE", "/api/orders/1", {"GET", "HEAD"}),
        ("PATCH", "/api/orders/1", {"GET", "HEAD"}),
        ("GET", "/api/orders/1/cancel", {"POST"}),
        ("TRACE", "/api/orders", {"GET", "HEAD", "POST"}),
        ("OPTIONS", "/api/orders", {"GET", "HEAD", "POST"}),
    ],
)
def test_wrong_method_is_a_405_that_lists_the_right_ones(
    api: Caller, method: str, path: str, allowed: set[str]
) -> None:
    answer = api.client.generic(method, path)
    problem(answer, 405)
    assert set(answer["Allow"].split(", ")) == allowed


@pytest.mark.parametrize(("path", "status"), [("/api/orders/1/cancel", 405), ("/api/orders/999999", 404)])
def test_head_is_refused_where_get_is(api: Caller, path: str, status: int) -> None:
    answer = api.client.head(path)
    assert (answer.status_code, answer.content) == (status, b"")
    assert answer["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("reason", ["\x00", "x" * 501, 7, None])
def test_wrong_reason_of_a_cancellation_is_a_422(api: Caller, reason: Any) -> None:
    order_id = api.post(body()).json()["id"]
    document = problem(api.post({"reason": reason}, path=f"/api/orders/{order_id}/cancel"), 422)
    assert document["errors"][0]["field"] == "reason"
    assert Order.objects.get(pk=order_id).status == "pending"


def post_as(api: Caller, content_type: str, *, path: str = "/api/orders") -> Any:
    """POST a good body, said to be of this type."""
    sent, headers = json.dumps(body()), {"Idempotency-Key": "key-1"}
    return api.client.generic("POST", path, sent, content_type=content_type, headers=headers)


def nothing_is_stored(before: tuple[int, int, int]) -> None:
    assert not Order.objects.exists()
    assert not OutboxMessage.objects.exists()
    assert not Record.objects.exists()
    assert units() == before
