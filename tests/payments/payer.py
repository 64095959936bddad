"""An order's side of a payment, and what the sandbox's ledger says about it."""

from __future__ import annotations

import threading
from typing import Any

from payments.gateway import calls
from payments.gateway.client import Charge, PaymentGateway
from payments.gateway.errors import GatewayUnavailable
from tests.lab.sandbox_fixture import RunningSandbox

DECLINED_CARD = "pm_card_visa_chargeDeclinedInsufficientFunds"


class Payer:
    """An order as its caller keeps it: a committed intent id, and the same identity at every attempt."""

    def __init__(self, order_id: int, *, payment_method: str = "pm_card_visa") -> None:
        self.order_id = order_id
        self.payment_method = payment_method
        self.intent_id = ""
        self.lock = threading.Lock()

    def commit(self, intent_id: str) -> None:
        """As the order does: compare-and-swap, and a committed id is never replaced."""
        with self.lock:
            if self.intent_id:
                raise ClaimLost
            self.intent_id = intent_id

    def pay(self, on_created: Any = None) -> Charge:
        return PaymentGateway.charge(
            7,
            9999,
            payment_method=self.payment_method,
            idempotency_key=f"order-{self.order_id}",
            payment_intent_id=self.intent_id,
            on_created=on_created or self.commit,
        )

    def pay_in_the_end(self, attempts: int = 60) -> Charge:
        for _ in range(attempts):
            try:
                return self.pay()
            except GatewayUnavailable:
                calls.breaker.reset()
        raise AssertionError(f"not paid after {attempts} attempts")


class ClaimLost(Exception):
    pass


def captures(sandbox: RunningSandbox, order_id: int) -> list[dict[str, Any]]:
    return sandbox.ledger("charges", order_id=order_id)


def commit_then(payer: Payer, turn: Any) -> Any:
    def commit(intent_id: str) -> None:
        payer.commit(intent_id)
        turn()

    return commit
