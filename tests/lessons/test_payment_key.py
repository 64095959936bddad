"""Lesson "payment key": the gateway charges, its answer is lost, and the message is replayed when the key is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stripe

from lab.lessons import payment_key
from payments.gateway import GatewayUnavailable, calls, transport
from tests.lab.sandbox_fixture import RunningSandbox, run_sandbox
from tests.payments.payer import Payer, captures, commit_then


@pytest.fixture
def forgetful(tmp_path: Path, settings: Any) -> Iterator[RunningSandbox]:
    """A gateway that has forgotten each key when it is used again, as Stripe has after a day."""
    calls.breaker.reset()
    with run_sandbox(tmp_path, "--keys-ttl", "0") as sandbox:
        settings.STRIPE_API_BASE, settings.STRIPE_API_KEY = sandbox.url, "sk_test"
        yield sandbox
    calls.breaker.reset()


def test_wrong_a_forgotten_key_does_not_prevent_a_second_charge(
    forgetful: RunningSandbox,
) -> None:
    forgetful.faults(gateway={"drop_reply_rate": 1})

    with pytest.raises(stripe.APIConnectionError):
        payment_key.charge(transport.client(), 7, 9999)
    forgetful.faults()
    payment_key.charge(transport.client(), 7, 9999)

    assert len(captures(forgetful, 7)) == 2


def test_right_the_id_that_is_committed_before_its_confirmation_is_charged_once(
    forgetful: RunningSandbox,
) -> None:
    payer = Payer(7)

    with pytest.raises(GatewayUnavailable):
        payer.pay(on_created=commit_then(payer, lambda: forgetful.faults(gateway={"drop_reply_rate": 1})))
    forgetful.faults()
    payer.pay()

    assert len(captures(forgetful, 7)) == 1
