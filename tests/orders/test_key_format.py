"""The Idempotency-Key as a structured string (RFC 8941): `"abc"`, `"abc";v=1` and `abc` are one key, and two keys are none."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest

from idempotency.key import parse_key
from orders.models import ApiKey, Order
from tests.orders.conftest import Caller, body
from tests.orders.test_api import problem
from tests.support.processes import web


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("abc", "abc"),
        ('"abc"', "abc"),
        ('"a, b"', "a, b"),
        (r'"say \"so\""', 'say "so"'),
        (r'"back\\slash"', r"back\slash"),
        (r"bare\slash", r"bare\slash"),
        ('half"quoted', 'half"quoted'),
        ('" "', " "),
        ('"abc";v=1', "abc"),
        ('"abc";a; b=?0;c=tok/en; d="x, \\"y";e=:aGk=:;f=-1.5;*g=*', "abc"),
        ("bare;v=1", "bare;v=1"),
        ("8e03978e-40d5-43e8-bc93-6894a57f9324", "8e03978e-40d5-43e8-bc93-6894a57f9324"),
    ],
)
def test_a_quoted_and_a_bare_key_are_read_as_the_same(header: str, key: str) -> None:
    assert parse_key(header) == key


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("abc,def", "sent once"),
        ("abc, abc", "sent once"),
        ('"abc","def"', "sent once"),
        ('"abc", "abc"', "sent once"),
        ('"abc', "quoted string"),
        ('"', "quoted string"),
        ('""', "quoted string"),
        (r'"abc\"', "quoted string"),
        (r'"a\bc"', "quoted string"),
        ('"abc"def', "quoted string"),
        *(
            (f'"abc";{bad}', "quoted string")
            for bad in ("", "A=1", "a=", 'a="x', "a=1.2345", "a= 1", "=1", "a=?2", "a b")
        ),
        ('"abc" ;a=1', "quoted string"),
        ('"abc";a=1, "abc"', "sent once"),
        (r'"\"abc\""', "quoted string"),
        ("caf\u00e9", "printable ASCII"),
    ],
)
def test_what_is_no_single_key_is_a_400_that_says_why(api: Caller, header: str, reason: str) -> None:
    [error] = problem(api.post(body(), key=header), 400)["errors"]
    assert error["field"] == "Idempotency-Key"
    assert reason in error["message"]
    assert not Order.objects.exists()


@pytest.mark.parametrize(("first", "again"), [("abc", '"abc"'), ('"abc"', "abc"), (r'"a\\b"', r"a\b")])
def test_a_retry_in_the_other_form_is_answered_with_the_same_order(
    api: Caller, first: str, again: str
) -> None:
    placed, repeated = api.post(body(), key=first), api.post(body(), key=again)
    assert repeated.json() == placed.json()
    assert repeated["Idempotent-Replayed"] == "true"
    assert problem(api.post(body(currency="eur"), key=again), 422)["code"] == "idempotency_key_reused"
    assert Order.objects.count() == 1


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_two_header_fields_are_refused_by_the_real_server() -> None:
    _, raw = ApiKey.issue("two")
    with web() as (_, url):
        address = urlsplit(url)
        with socket.create_connection((str(address.hostname), address.port or 0), timeout=10) as client:
            client.sendall(
                f"POST /api/orders HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {raw}\r\nConnection: close\r\n"
                "Idempotency-Key: abc\r\nIdempotency-Key: abc\r\nContent-Type: application/json\r\n"
                "Content-Length: 2\r\n\r\n{}".encode()
            )
            answer = b"".join(iter(lambda: client.recv(65536), b"")).decode()
    assert answer.startswith("HTTP/1.1 400 ")
    assert "must be sent once" in answer
