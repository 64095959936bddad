"""Secrets are never shown."""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Callable

import pytest

from dlq.masking import MASK, masked, masked_prefix, masked_text


def test_the_values_of_secret_keys_are_masked_at_any_depth() -> None:
    shown = masked(
        {
            "order_id": 42,
            "Password": "hunter2",
            "nested": [{"api_key": {"a": 1}, "access-token": "t", "sku": "WIDGET"}],
            "card_number": 4242424242424242,
            "headers": {"Authorization": "Bearer abcdefghij"},
        }
    )
    assert shown == {
        "order_id": 42,
        "Password": MASK,
        "nested": [{"api_key": MASK, "access-token": MASK, "sku": "WIDGET"}],
        "card_number": MASK,
        "headers": {"Authorization": MASK},
    }


def test_the_original_is_not_changed() -> None:
    original = {"token": ["a"]}
    masked(original)
    assert original == {"token": ["a"]}


def test_celerys_text_copies_of_the_arguments_are_masked_whole() -> None:
    assert masked({"argsrepr": "('hunter2',)", "kwargsrepr": "{}"}) == {"argsrepr": MASK, "kwargsrepr": MASK}


@pytest.mark.parametrize(
    "text",
    [
        "connect failed: password=hunter2 host=db",
        "{'password': 'hunter2'}",
        '{"reset_token": "hunter2"}',
        "Authorization: Bearer hunter2hunter2",
        "sent Bearer hunter2hunter2 to them",
        "Invalid API Key provided: sk_live_hunter2hunter2",
        "postgres://user:hunter2@db/orders",
        "postgres://user:p@hunter2@db/orders",
        "Authorization: Token hunter2",
        'Authorization: Digest username="u", response="hunter2"',
        "Authorization: AWS4-HMAC-SHA256 Credential=hunter2, Signature=hunter2",
        "Cookie: csrf=1; session=hunter2",
        r"b'GET / HTTP/1.1\r\nAuthorization: Custom hunter2\r\nHost: x'",
        "{'Authorization': 'Token hunter2', 'order': 1}",
        r"{\"password\": \"hunter2\", \"order\": 1}",
        r"{\\\"password\\\": \\\"hun\\\\\\\"hunter2\\\"}",
        r'{"password": "hun\"hunter2", "order": 1}',
        '{"password": "hunter2 is cut off here',
        "('password','hunter2')",
        "[(b'authorization', b'Token hunter2')]",
        "tokens: ['a', 'hunter2']",
        "if password == 'hunter2':",
        "password => 'hunter2'",
        "pwd=hunter2",
        "db_pass=hunter2",
        "passcode=hunter2",
        "sessionid=hunter2",
        "X-Auth: hunter2",
        "user[password]=hunter2&page=1",
        "user%5Bpassword%5D=hunter2&page=1",
        "push as ghp_hunter2hunter2hunter2hunter2hunt failed",
        "Incorrect API key provided: sk-proj-hunter2hunter2",
        "invalid eyJhbGciOiJIUzI1NiJ9.hunter2.hunter2",
        "No such client secret: pi_3MtwBwLkdIwHu7ix_secret_hunter2",
        "POST https://hooks.slack.com/services/T0/B0/hunter2 failed",
        f"Forbidden (CSRF cookie not set.): /reset/MQ/hunter2-{'0a' * 16}/",
        "-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_secrets_in_free_text_are_masked(text: str) -> None:
    assert "hunter2" not in masked_text(text)


def test_card_numbers_are_masked_and_other_long_numbers_are_not() -> None:
    assert masked_text("card 4242 4242 4242 4242 declined") == f"card {MASK} declined"
    assert masked_text("order 20260101123456") == "order 20260101123456"


@pytest.mark.parametrize(
    "text",
    [
        "KeyError: 'WIDGET' in order 42 of customer 7 (attempt 3 of 5)",
        'File "/srv/app/orders/tokens.py", line 3, in get_secret',
        "https://api.example.com:443/orders?page=1",
        "author: joe, bypass: 1, spin=2, opinion: none",
    ],
)
def test_text_without_secrets_is_left_alone(text: str) -> None:
    assert masked_text(text) == text


def test_what_surrounds_a_secret_is_left_alone() -> None:
    assert masked_text('{"password": "a\\"b", "order": 1}') == f'{{"password": {MASK}, "order": 1}}'
    assert masked_text("pi_3Mtw_secret_abc is gone") == f"pi_3Mtw_secret_{MASK} is gone"
    assert masked_text("postgres://u:p@ss@db/orders") == f"postgres://u:{MASK}@db/orders"


def test_a_pair_whose_first_names_a_secret_is_masked() -> None:
    headers = [["Authorization", "Token hunter2"], ["Accept", "text/html"], ["Your card was declined", 42]]
    assert masked(headers) == [["Authorization", MASK], *headers[1:]]


def test_a_prefix_shows_no_secret_that_reaches_past_it() -> None:
    text = "x" * 90 + " ghp_hunter2hunter2hunter2hunter2hunt " + "y" * 1000
    assert masked_prefix(text, 100) == "x" * 90 + f" {MASK} yy"


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "token",
        "token-",
        "token ",
        'token="',
        'token=\\"',
        "token=[",
        "token\\",
        '"token",',
        "authorization",
        "authorization: ",
        "eyJ-",
        "eyJhbGciOiJIUzI1NiJ9.",
        "\\neyJ",
        "pi_a_secret_",
        "://a:",
        "Bearer ",
        "1 ",
        "hooks.slack.com/a/",
        "-----BEGIN PRIVATE KEY-----",
        '"',
        " ",
    ],
)
def test_masking_a_text_of_any_kind_costs_in_proportion_to_its_length(unit: str) -> None:
    """The detail page masks what a producer sent while a request waits, and holds the interpreter meanwhile."""
    text = unit * (64 * 1024 // len(unit))
    began = time.process_time()
    masked_text(text)
    assert time.process_time() - began < 1


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_masking_an_encoded_file_costs_in_proportion_to_its_length(encode: Callable[[bytes], bytes]) -> None:
    text = encode(random.Random(7).randbytes(48 * 1024)).decode()
    began = time.process_time()
    masked_text(f"cannot store {text}")
    masked_text(f"eyJ{text}")
    assert time.process_time() - began < 1
