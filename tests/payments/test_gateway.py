"""payments/gateway/client.py against the sandbox, with the official client: one capture, whatever happens."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from payments.gateway.client import PaymentGateway
from payments.gateway.errors import (
    CardDeclined,
    GatewayBusy,
    GatewayUnavailable,
)
from tests.lab.sandbox_fixture import RunningSandbox, run_sandbox
from tests.payments.payer import ClaimLost, Payer, captures, commit_then


class Killed(BaseException):
    """The process dies here."""


@pytest.mark.described("`PaymentGateway.charge(customer_id, total_cents)` returns a payment with an `id`")
def test_charge_is_called_as_the_documents_do(sandbox_settings: RunningSandbox) -> None:
    payment = PaymentGateway.charge(1, 9999)
    assert payment.id.startswith("pi_")
    assert payment.status == "succeeded"
    (charge,) = sandbox_settings.ledger("charges")
    assert charge["amount"] == 9999


@pytest.mark.described("a charge with an idempotency key is made once")
def test_charge_twice_for_one_order_captures_once(sandbox_settings: RunningSandbox) -> None:
    payer = Payer(1)
    assert payer.pay() == payer.pay()
    assert len(captures(sandbox_settings, 1)) == 1


def test_the_order_is_named_on_the_intent(sandbox_settings: RunningSandbox) -> None:
    payment = Payer(41).pay()
    assert PaymentGateway.retrieve(payment.id).order_id == 41


def test_nothing_is_captured_before_the_id_is_committed(sandbox_settings: RunningSandbox) -> None:
    seen: list[int] = []
    payer = Payer(2)

    def commit(intent_id: str) -> None:
        seen.append(len(captures(sandbox_settings, 2)))
        payer.commit(intent_id)

    payer.pay(on_created=commit)
    assert seen == [0]
    assert len(captures(sandbox_settings, 2)) == 1


def test_a_caller_that_lost_its_claim_captures_nothing(sandbox_settings: RunningSandbox) -> None:
    def lost(intent_id: str) -> None:
        raise ClaimLost

    with pytest.raises(ClaimLost):
        Payer(3).pay(on_created=lost)
    assert captures(sandbox_settings, 3) == []


def test_a_crash_before_the_ids_commit_finds_the_same_intent(
    sandbox_settings: RunningSandbox,
) -> None:
    """After the intent was created."""
    payer = Payer(4)
    lost: list[str] = []

    def killed(intent_id: str) -> None:
        lost.append(intent_id)
        raise Killed

    with pytest.raises(Killed):
        payer.pay(on_created=killed)
    assert payer.pay().id == lost[0]
    assert len(captures(sandbox_settings, 4)) == 1


@pytest.mark.promise(
    "P3",
    "a worker is killed between creating the payment and committing its id",
    "a payment is left behind that is never confirmed",
)
def test_a_crash_before_the_ids_commit_leaves_an_unconfirmed_intent(tmp_path: Path, settings: Any) -> None:
    """If the key has expired before the next run; the first intent is never confirmed."""
    with run_sandbox(tmp_path, "--keys-ttl", "0") as sandbox:
        settings.STRIPE_API_BASE, settings.STRIPE_API_KEY = sandbox.url, "sk_test"
        payer = Payer(5)
        lost: list[str] = []

        def killed(intent_id: str) -> None:
            lost.append(intent_id)
            raise Killed

        with pytest.raises(Killed):
            payer.pay(on_created=killed)

        assert payer.pay().id != lost[0], "the key did not expire: the test shows nothing"
        assert len(captures(sandbox, 5)) == 1
        assert PaymentGateway.retrieve(lost[0]).captured_cents == 0


def test_an_order_charged_again_after_its_keys_expired_is_captured_once(
    tmp_path: Path, settings: Any
) -> None:
    with run_sandbox(tmp_path, "--keys-ttl", "0") as sandbox:
        settings.STRIPE_API_BASE, settings.STRIPE_API_KEY = sandbox.url, "sk_test"
        payer = Payer(6)
        # The capture happens and its answer is lost; the dead letter is replayed when all keys are forgotten.
        with pytest.raises(GatewayUnavailable):
            payer.pay(on_created=commit_then(payer, lambda: sandbox.faults(gateway={"drop_reply_rate": 1})))
        sandbox.faults()
        payer.pay()
        payer.pay()
        assert len(captures(sandbox, 6)) == 1


@pytest.mark.promise(
    "P3",
    "a worker is killed after the capture, before it is recorded",
    "the next run finds the intent captured and completes the order",
)
@pytest.mark.parametrize("fault", ["drop_reply_rate", "wrong_json_rate"])
def test_a_gateway_that_acts_and_then_does_not_say_so_captures_once(
    sandbox_settings: RunningSandbox, fault: str
) -> None:
    payer = Payer(7)

    with pytest.raises(GatewayUnavailable):
        payer.pay(on_created=commit_then(payer, lambda: sandbox_settings.faults(gateway={fault: 1})))
    assert len(captures(sandbox_settings, 7)) == 1, "it did not act: the test shows nothing"

    sandbox_settings.faults()
    payer.pay()
    assert len(captures(sandbox_settings, 7)) == 1


@pytest.mark.parametrize(
    "faults",
    [
        {"drop_reply_rate": 0.5},
        {"error_rate": 0.5},
        {"cached_error_rate": 0.4},
        {"wrong_json_rate": 0.3, "redirect_rate": 0.3},
        {"rate_limit_rate": 0.5},
    ],
    ids=lambda faults: "+".join(faults),
)
def test_twenty_orders_through_a_failing_gateway_are_captured_once_each(
    sandbox_settings: RunningSandbox, faults: dict[str, float]
) -> None:
    sandbox_settings.faults(gateway=faults, seed=20)
    for order_id in range(100, 120):
        Payer(order_id).pay_in_the_end()
    sandbox_settings.faults()
    assert sorted(int(charge["order_id"]) for charge in sandbox_settings.ledger("charges")) == [
        *range(100, 120)
    ]


def test_a_stored_server_error_does_not_block_the_order_for_a_day(sandbox_settings: RunningSandbox) -> None:
    payer = Payer(8)
    sandbox_settings.faults(gateway={"cached_error_rate": 1})
    with pytest.raises(GatewayUnavailable):
        payer.pay()
    sandbox_settings.faults()
    with pytest.raises(GatewayUnavailable):  # the confirmation's key gets its stored error too
        payer.pay(
            on_created=commit_then(payer, lambda: sandbox_settings.faults(gateway={"cached_error_rate": 1}))
        )
    sandbox_settings.faults()
    payer.pay()
    assert len(captures(sandbox_settings, 8)) == 1


def test_five_threads_at_once_capture_once(sandbox_settings: RunningSandbox) -> None:
    # Slow enough that they overlap: the twins of a request in flight are answered 409.
    sandbox_settings.faults(gateway={"latency_ms": 30})
    payer = Payer(9)
    barrier = threading.Barrier(5)
    outcomes: list[Any] = []

    def run() -> None:
        barrier.wait()
        try:
            outcomes.append(payer.pay().id)
        except (GatewayBusy, ClaimLost) as error:
            outcomes.append(error)

    threads = [threading.Thread(target=run) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    payer.pay_in_the_end()
    assert len(outcomes) == 5, "a thread ended with another error"
    assert len(captures(sandbox_settings, 9)) == 1


def test_an_overtaken_run_finds_the_other_runs_capture(tmp_path: Path, settings: Any) -> None:
    """Its keys have expired."""
    with run_sandbox(tmp_path, "--keys-ttl", "0") as sandbox:
        settings.STRIPE_API_BASE, settings.STRIPE_API_KEY = sandbox.url, "sk_test"
        payer = Payer(15)
        # This run is frozen between commit and confirm while another one captures.
        payment = payer.pay(on_created=commit_then(payer, lambda: payer.pay()))
        assert payment.status == "succeeded"
        assert len(captures(sandbox, 15)) == 1


def test_a_payment_that_was_cancelled_just_before_its_confirmation_is_declined(
    sandbox_settings: RunningSandbox,
) -> None:
    payer = Payer(16)

    def cancel() -> None:
        PaymentGateway.refund(payer.intent_id, order_id=16, idempotency_key="refund-order-16")

    with pytest.raises(CardDeclined) as caught:
        payer.pay(on_created=commit_then(payer, cancel))
    assert caught.value.decline_code == "canceled"
    assert captures(sandbox_settings, 16) == []
