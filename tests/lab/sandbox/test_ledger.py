"""The ledger is the evidence: it keeps what was answered, whatever happens to the process."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
import requests
import stripe

from lab.sandbox import objects
from lab.sandbox.ledger import Closed, Ledger
from tests.lab.sandbox.conftest import gateway_at, order
from tests.lab.sandbox_fixture import RunningSandbox, run_sandbox


def test_a_killed_sandbox_has_not_forgotten_an_answered_capture(tmp_path: Path) -> None:
    """It is killed under load."""
    answered: list[str] = []
    enough = threading.Event()

    def pay(client: stripe.StripeClient, buyer: int) -> None:
        for number in range(10_000):
            try:
                intent = client.v1.payment_intents.create(order(buyer * 10_000 + number, confirm=True))
            except stripe.APIConnectionError:
                return
            answered.append(intent.id)
            if len(answered) >= 100:
                enough.set()

    with run_sandbox(tmp_path) as running:
        buyers = [threading.Thread(target=pay, args=(gateway_at(running.url), buyer)) for buyer in range(4)]
        for buyer in buyers:
            buyer.start()
        assert enough.wait(timeout=30)
        running.process.kill()
        for buyer in buyers:
            buyer.join()

    with run_sandbox(tmp_path) as restarted:
        captured = [charge["payment_intent"] for charge in restarted.ledger("charges")]
        assert set(answered) <= set(captured)
        assert len(captured) == len(set(captured))
        assert restarted.summary("charges")["repeated"] == []


def test_the_ledger_itself_refuses_a_second_capture_of_an_intent(tmp_path: Path) -> None:
    charge = {"object": "charge", "payment_intent": "pi_1", "created": 1}
    ledger = Ledger(tmp_path)
    with ledger.transaction() as db:
        objects.put(db, charge | {"id": "ch_1"})
    with pytest.raises(sqlite3.IntegrityError), ledger.transaction() as db:
        objects.put(db, charge | {"id": "ch_2"})
    assert [row["id"] for row in ledger.read("SELECT id FROM gateway_object")] == ["ch_1"]
    ledger.close()


def test_a_closed_ledger_takes_nothing_more(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.close()
    with pytest.raises(Closed), ledger.transaction():
        pass


def test_a_second_capture_for_one_order_stands_out(
    gateway: stripe.StripeClient, sandbox: RunningSandbox
) -> None:
    for order_id in (1, 2, 2):
        gateway.v1.payment_intents.create(order(order_id, confirm=True))
    assert sandbox.summary("charges") == {
        "count": 3,
        "amounts": {"eur": 3 * 4990},
        "orders": 2,
        "repeated": ["2"],
    }
    assert len(sandbox.ledger("charges", order_id=2)) == 2


def test_a_reset_leaves_nothing(gateway: stripe.StripeClient, sandbox: RunningSandbox) -> None:
    sandbox.faults(crm={"error_rate": 1})
    intent = gateway.v1.payment_intents.create(order(confirm=True), options={"idempotency_key": "k"})
    sandbox.reset()
    assert gateway.v1.payment_intents.list().data == []
    assert sandbox.ledger("charges") == []
    again = gateway.v1.payment_intents.create(order(confirm=True), options={"idempotency_key": "k"})
    assert again.id != intent.id


def test_a_restored_ledger_is_as_it_was_at_its_snapshot(
    gateway: stripe.StripeClient, sandbox: RunningSandbox
) -> None:
    kept = gateway.v1.payment_intents.create(order(1, confirm=True), options={"idempotency_key": "kept"})
    requests.put(f"{sandbox.url}/ledger/snapshot", timeout=10).raise_for_status()
    before = sandbox.ledger("charges")
    for number in (2, 3):
        key = {"idempotency_key": f"later-{number}"}
        later = gateway.v1.payment_intents.create(order(number, confirm=True), options=key)
        requests.put(f"{sandbox.url}/ledger", timeout=10).raise_for_status()
        assert sandbox.ledger("charges") == before
        again = gateway.v1.payment_intents.create(order(number, confirm=True), options=key)
        assert again.id != later.id  # the key is forgotten, too
    same = gateway.v1.payment_intents.create(order(1, confirm=True), options={"idempotency_key": "kept"})
    assert same.id == kept.id


def test_a_ledger_without_a_snapshot_cannot_be_put_back(tmp_path: Path) -> None:
    with run_sandbox(tmp_path) as running:
        assert requests.put(f"{running.url}/ledger", timeout=10).status_code == 409


def test_all_books_at_once_are_each_of_them(gateway: stripe.StripeClient, sandbox: RunningSandbox) -> None:
    gateway.v1.payment_intents.create(order(confirm=True))
    ledgers = requests.get(f"{sandbox.url}/ledger", timeout=10).json()
    assert ledgers["charges"]
    assert ledgers == {name: sandbox.ledger(name) for name in ledgers}
    assert set(ledgers) == {"charges", "refunds", "shipments", "crm", "webhooks", "mail"}
