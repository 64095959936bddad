"""Clients that place orders at a steady rate, whatever happens, and write down what they were told.

The log is half of the evidence: every request is known by a tag of its own (the receipt's address), so that what the
database has can be held against what each client believes.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import requests

from lab.invariants import ClientRequest
from lab.shoppers import CURRENCIES, CUSTOMERS, SKUS, TRY_AGAIN

DECLINED_CARDS = ("pm_card_visa_chargeDeclined", "pm_card_visa_chargeDeclinedInsufficientFunds")


@dataclass(frozen=True)
class _Wish:
    """What one client wants, decided before the run so that a seed's orders do not depend on timing."""

    number: int
    body: dict[str, Any]
    impatient: bool  # gives up after its first try: whether the order exists is unknown
    repeats: bool  # sends the same request once more after it was accepted
    cancels_after_s: float | None

    @property
    def tag(self) -> str:
        return str(self.body["receipt_email"])


@dataclass
class Clients:
    """Places order number n at n / rate seconds after `start`; `tick` is to be called often."""

    base_url: str
    api_key: str
    orders: int
    rate: float
    seed: int
    threads: int = 24
    patience_s: float = 30.0
    log: list[ClientRequest] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    placed: int = 0
    in_flight: int = 0
    retries: int = 0

    def __post_init__(self) -> None:
        dice = random.Random(f"{self.seed}/orders")
        self._wishes = [_wish(dice, number) for number in range(self.orders)]
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="client")
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._local = threading.local()
        self._begun = 0.0

    def start(self) -> None:
        self._begun = time.monotonic()

    def tick(self) -> None:
        """Send what is due."""
        due = min(self.orders, int((time.monotonic() - self._begun) * self.rate) + 1)
        while self.placed < due:
            self._pool.submit(self._place, self._wishes[self.placed])
            self.placed += 1

    @property
    def finished(self) -> bool:
        return len(self.log) >= self.orders

    def stop(self) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)

    def counts(self) -> dict[str, int]:
        with self._lock:
            outcomes = [request.outcome for request in self.log]
        return {name: outcomes.count(name) for name in ("ok", "fail", "unknown")}

    def _place(self, wish: _Wish) -> None:
        key = str(uuid.uuid4())
        outcome, order_id = "unknown", None
        give_up_at = time.monotonic() + (0.0 if wish.impatient else self.patience_s)
        while True:
            wait = 0.3
            answer = self._post("/api/orders", wish.body, key, timeout=0.3 if wish.impatient else 6.0)
            if answer is not None:
                if answer.status_code == 202:
                    outcome, order_id = "ok", int(answer.json()["id"])
                    break
                if answer.status_code not in TRY_AGAIN:
                    outcome = "fail"
                    self._surprise(f"order {wish.number}: {answer.status_code} {answer.text[:200]}")
                    break
                wait = min(2.0, float(answer.headers.get("Retry-After", wait)))
            if time.monotonic() >= give_up_at or self._stop.wait(wait):
                break
            self.retries += 1
        if order_id is not None:
            self._afterwards(wish, key, order_id)
        with self._lock:
            self.log.append(ClientRequest(wish.tag, outcome, order_id))

    def _afterwards(self, wish: _Wish, key: str, order_id: int) -> None:
        if wish.repeats:
            again = self._post("/api/orders", wish.body, key, timeout=6.0)
            if again is not None and again.status_code == 202 and int(again.json()["id"]) != order_id:
                self._surprise(
                    f"order {wish.number}: one key, two orders: {order_id} and {again.json()['id']}"
                )
        if wish.cancels_after_s is not None and not self._stop.wait(wish.cancels_after_s):
            self._post(f"/api/orders/{order_id}/cancel", {"reason": "changed my mind"}, None, timeout=6.0)

    def _post(
        self, path: str, body: dict[str, Any], key: str | None, *, timeout: float
    ) -> requests.Response | None:
        """One try; None when its outcome is unknown."""
        session = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
        headers = {"Authorization": f"Bearer {self.api_key}"} | ({"Idempotency-Key": key} if key else {})
        with self._lock:
            self.in_flight += 1
        try:
            response: requests.Response = session.post(
                f"{self.base_url}{path}", json=body, headers=headers, timeout=timeout
            )
            return response
        except requests.RequestException:
            return None
        finally:
            with self._lock:
                self.in_flight -= 1

    def _surprise(self, text: str) -> None:
        with self._lock:
            self.surprises.append(text)


def _wish(dice: random.Random, number: int) -> _Wish:
    skus = dice.sample(SKUS, dice.randint(1, len(SKUS)))
    body = {
        "customer_id": dice.choice(CUSTOMERS),
        "currency": dice.choice(CURRENCIES),
        "payment_method": dice.choice(DECLINED_CARDS) if dice.random() < 0.04 else "pm_card_visa",
        "items": [{"sku": sku, "quantity": dice.randint(1, 5)} for sku in skus],
        "receipt_email": f"order-{number}@shop.example",
    }
    return _Wish(
        number,
        body,
        impatient=dice.random() < 0.03,
        repeats=dice.random() < 0.05,
        cancels_after_s=dice.uniform(0.0, 4.0) if dice.random() < 0.05 else None,
    )
