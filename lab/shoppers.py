"""Clients that place orders over HTTP with care: one Idempotency-Key per order, sent again until it is answered."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import requests

SKUS = ("WIDGET", "GADGET", "GIZMO")
CURRENCIES = ("usd", "eur")
CUSTOMERS = range(1, 21)

# Answers that say "not now": the same key is sent again. Everything else that is not 202 is a bug of the caller.
TRY_AGAIN = {409, 425, 429, 500, 502, 503, 504}


@dataclass
class Shoppers:
    """Places ``orders`` orders from ``threads`` threads; ``accepted``: the ids answered 202, ``refused``: the rest."""

    base_url: str
    api_key: str
    orders: int
    threads: int = 8
    patience_s: float = 60.0
    seed: int | None = None
    accepted: list[int] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    retries: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _pool: ThreadPoolExecutor | None = None

    def start(self) -> None:
        """Begin placing; returns at once."""
        dice = random.Random(self.seed)
        bodies = [random_order(dice) for _ in range(self.orders)]
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="shopper")
        for body in bodies:
            self._pool.submit(self._place, body)

    @property
    def finished(self) -> bool:
        return len(self.accepted) + len(self.refused) >= self.orders

    def stop(self) -> None:
        """Place no more."""
        self._stop.set()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _place(self, body: dict[str, Any]) -> None:
        key = str(uuid.uuid4())
        give_up_at = time.monotonic() + self.patience_s
        problem = "stopped"
        while not self._stop.is_set() and time.monotonic() < give_up_at:
            wait = 0.2
            try:
                answer = requests.post(
                    f"{self.base_url}/api/orders",
                    json=body,
                    headers={"Authorization": f"Bearer {self.api_key}", "Idempotency-Key": key},
                    timeout=15,
                )
            except requests.RequestException as error:
                problem = str(error)
            else:
                if answer.status_code == 202:
                    with self._lock:
                        self.accepted.append(int(answer.json()["id"]))
                    return
                problem = f"{answer.status_code} {answer.text[:200]}"
                if answer.status_code not in TRY_AGAIN:
                    break
                wait = float(answer.headers.get("Retry-After", wait))
            with self._lock:
                self.retries += 1
            self._stop.wait(wait)
        with self._lock:
            self.refused.append(problem)


def random_order(dice: random.Random, skus: Sequence[str] = SKUS) -> dict[str, Any]:
    """The body of an order of a customer for one to three of the SKUs."""
    customer = dice.choice(CUSTOMERS)
    chosen = dice.sample(skus, dice.randint(1, min(3, len(skus))))
    return {
        "customer_id": customer,
        "currency": dice.choice(CURRENCIES),
        "payment_method": "pm_card_visa",
        "items": [{"sku": sku, "quantity": dice.randint(1, 5)} for sku in chosen],
        "receipt_email": f"customer-{customer}@shop.example",
    }
