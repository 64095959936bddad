"""payments/gateway/client.py: each answer of the gateway becomes one of the three kinds that callers tell apart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from circuitbreaker import CircuitBreakerError

from payments.gateway import calls
from payments.gateway.client import READ_TRIES, PaymentGateway
from payments.gateway.errors import (
    CardDeclined,
    GatewayBusy,
    GatewayMisconfigured,
    GatewayUnavailable,
    InvalidRequest,
)
from tests.lab.sandbox_fixture import RunningSandbox
from tests.payments.payer import DECLINED_CARD, Payer, captures, commit_then


def test_a_declined_card_is_a_final_answer_with_the_banks_code(sandbox_settings: RunningSandbox) -> None:
    payer = Payer(10, payment_method=DECLINED_CARD)
    for _ in range(2):
        with pytest.raises(CardDeclined) as caught:
            payer.pay()
        assert caught.value.decline_code == "insufficient_funds"
    assert captures(sandbox_settings, 10) == []


def test_a_decline_whose_answer_was_lost_is_learned_from_the_intent(sandbox_settings: RunningSandbox) -> None:
    payer = Payer(11, payment_method=DECLINED_CARD)
    with pytest.raises(GatewayUnavailable):
        payer.pay(
            on_created=commit_then(payer, lambda: sandbox_settings.faults(gateway={"drop_reply_rate": 1}))
        )
    sandbox_settings.faults()
    with pytest.raises(CardDeclined, match="insufficient_funds"):
        payer.pay()


def test_a_card_that_asks_for_the_customer_is_declined(
    sandbox_settings: RunningSandbox,
) -> None:
    """It can no longer be captured."""
    payer = Payer(12, payment_method="pm_card_authenticationRequired")
    with pytest.raises(CardDeclined) as caught:
        payer.pay()
    assert caught.value.decline_code == "authentication_required"
    assert PaymentGateway.retrieve(payer.intent_id).status == "canceled"
    with pytest.raises(CardDeclined):
        payer.pay()


def test_a_payment_method_that_does_not_exist_is_declined(sandbox_settings: RunningSandbox) -> None:
    with pytest.raises(CardDeclined, match="No such PaymentMethod") as caught:
        Payer(14, payment_method="pm_card_of_nobody").pay()
    assert caught.value.decline_code == "invalid_payment_method"


def test_a_stored_intent_over_another_amount_is_refused(sandbox_settings: RunningSandbox) -> None:
    payment = PaymentGateway.charge(1, 500)
    with pytest.raises(InvalidRequest, match="is for 500 usd, not 501 usd"):
        PaymentGateway.charge(1, 501, payment_intent_id=payment.id)
    with pytest.raises(InvalidRequest):
        PaymentGateway.charge(1, 500, currency="eur", payment_intent_id=payment.id)


def test_what_asking_again_cannot_mend_is_permanent(sandbox_settings: RunningSandbox) -> None:
    with pytest.raises(InvalidRequest):
        PaymentGateway.charge(1, 500, payment_intent_id="pi_unknown")
    PaymentGateway.charge(1, 500, idempotency_key="order-13")
    with pytest.raises(InvalidRequest, match="idempotent requests"):
        PaymentGateway.charge(1, 501, idempotency_key="order-13")


def test_a_rate_limit_leaves_the_circuit_closed(
    sandbox_settings: RunningSandbox,
) -> None:
    """It says when to try again."""
    sandbox_settings.faults(gateway={"rate_limit_rate": 1, "retry_after": 7})
    for _ in range(10):
        with pytest.raises(GatewayBusy) as caught:
            PaymentGateway.charge(1, 500)
        assert caught.value.retry_after == 7.0


@pytest.mark.promise("P6", "the gateway fails", "five calls per process, then none")
def test_five_outages_open_the_circuit_and_nothing_more_is_sent(
    sandbox_settings: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tests' short delays would half-open it between two calls.
    monkeypatch.setattr(calls.breaker, "_recovery_timeout", 30)
    sandbox_settings.faults(gateway={"error_rate": 1})

    for _ in range(5):
        with pytest.raises(GatewayUnavailable):
            PaymentGateway.charge(1, 500)

    with pytest.raises(CircuitBreakerError):
        PaymentGateway.charge(1, 500)

    assert sandbox_settings.bitten("gateway", "error_rate") == 5


def test_declined_cards_leave_the_circuit_closed(sandbox_settings: RunningSandbox) -> None:
    for order_id in range(200, 210):
        with pytest.raises(CardDeclined):
            Payer(order_id, payment_method=DECLINED_CARD).pay()
    Payer(210).pay()


def test_a_wrong_key_is_permanent_and_appears_nowhere(
    sandbox_settings: RunningSandbox, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.STRIPE_API_KEY = "pk_live_topsecret"
    with caplog.at_level("DEBUG"), pytest.raises(GatewayMisconfigured) as caught:
        PaymentGateway.charge(1, 500)
    assert "topsecret" not in f"{caught.value} {caught.value.__context__!r} {caplog.text}"


def test_no_secret_of_a_successful_charge_is_logged(
    sandbox_settings: RunningSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG"):
        Payer(14).pay()
    assert "_secret_" not in caplog.text
    assert "sk_test" not in caplog.text


def test_the_list_of_intents_goes_past_its_first_page(sandbox_settings: RunningSandbox) -> None:
    paid = {PaymentGateway.charge(1, 500 + number).id for number in range(101)}
    listed = [intent.id for intent in PaymentGateway.intents_since(datetime.now(UTC) - timedelta(hours=1))]
    assert len(listed) == 101
    assert set(listed) == paid


def test_a_page_that_fails_is_requested_again(
    sandbox_settings: RunningSandbox,
) -> None:
    """Before the whole reading is given up."""
    sandbox_settings.faults(gateway={"error_rate": 1})
    with pytest.raises(GatewayUnavailable):
        list(PaymentGateway.intents_since(datetime.now(UTC) - timedelta(hours=1)))
    assert sandbox_settings.bitten("gateway", "error_rate") == READ_TRIES
