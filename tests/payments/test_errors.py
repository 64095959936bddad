"""payments/gateway/errors.py: what leaves the gateway module is bounded and carries no secret."""

from __future__ import annotations

import pickle

import pytest
import stripe

from payments.gateway.errors import CardDeclined, GatewayBusy, redact, translated


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, 1.0),
        ({"retry-after": "999999"}, 3600.0),
        (
            {"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"},
            30.0,
        ),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({}, None),
    ],
)
def test_a_busy_gateways_retry_after_is_bounded_or_none(
    headers: dict[str, str], seconds: float | None
) -> None:
    with pytest.raises(GatewayBusy) as raised, translated():
        raise stripe.RateLimitError("slow down", http_status=429, headers=headers)
    assert raised.value.retry_after == seconds


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
