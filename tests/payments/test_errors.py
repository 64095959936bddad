"""payments/gateway/errors.py: what leaves the gateway module is bounded and carries no secret."""

from __future__ import annotations

import pickle

import pytest

from payments.gateway.errors import CardDeclined, GatewayBusy, redact, retry_after_seconds


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("1.5", 1.5),
        ("0", 1.0),
        ("-3", 1.0),
        ("999999", 3600.0),
        ("nan", None),
        ("inf", None),
        ("soon", None),
    ],
)
def test_retry_after_is_a_bounded_number_of_seconds_or_nothing(header: str, seconds: float | None) -> None:
    assert retry_after_seconds({"retry-after": header}) == seconds


def test_no_retry_after_is_nothing() -> None:
    assert retry_after_seconds({}) is None


@pytest.mark.parametrize(
    "secret", ["sk_live_abc123", "rk_test_abc123", "whsec_abc123", "pi_1_secret_abc123", "sk_test_****c123"]
)
def test_secrets_are_cut_out_of_messages(secret: str) -> None:
    assert "c123" not in redact(f"Invalid API Key provided: {secret} (see the docs)")


def test_a_whole_page_as_an_answer_is_cut() -> None:
    assert len(redact("<html>" * 10_000)) <= 300


def test_errors_survive_the_way_from_the_worker_to_its_parent() -> None:
    declined = pickle.loads(pickle.dumps(CardDeclined("no", "lost_card")))
    busy = pickle.loads(pickle.dumps(GatewayBusy("later", 7.0)))
    assert (str(declined), declined.decline_code) == ("no", "lost_card")
    assert (str(busy), busy.retry_after) == ("later", 7.0)
