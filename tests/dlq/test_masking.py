"""Secrets are never shown."""

from __future__ import annotations

import pytest

from dlq.masking import MASK, masked, masked_text


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
    ],
)
def test_secrets_in_free_text_are_masked(text: str) -> None:
    assert "hunter2" not in masked_text(text)


def test_card_numbers_are_masked_and_other_long_numbers_are_not() -> None:
    assert masked_text("card 4242 4242 4242 4242 declined") == f"card {MASK} declined"
    assert masked_text("order 20260101123456") == "order 20260101123456"


def test_text_without_secrets_is_left_alone() -> None:
    text = "KeyError: 'WIDGET' in order 42 of customer 7 (attempt 3 of 5)"
    assert masked_text(text) == text
