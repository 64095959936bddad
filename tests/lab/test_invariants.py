"""The checks of the demo must be able to fail: every single thing that can go wrong breaks the check it belongs to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lab.invariants import Ledgers, Movement, OrderLine, Shelf, check

COMPLETED = OrderLine(1, "completed", "usd", 500, 1, (("WIDGET", 2),))
FAILED = OrderLine(2, "failed", "usd", 700, 0, (("WIDGET", 1),))
REFUNDED = OrderLine(3, "cancelled", "eur", 900, 0, (("WIDGET", 1),))

SOUND = Ledgers(
    accepted=[1, 2, 3],
    orders=[COMPLETED, FAILED, REFUNDED],
    invoices=[1],
    deliveries=[("evt_1", "7")],
    shelves=[Shelf("WIDGET", at_start=10, stock=8, reserved=0, shipped=2)],
    open_messages=0,
    unresolved_dead_letters=0,
    captures=[Movement(1, "usd", 500), Movement(3, "eur", 900)],
    refunds=[Movement(3, "eur", 900)],
    shipments=[1],
    shipped_units=[("WIDGET", 2)],
    crm_records=[1],
    receipts=[1],
    receipt_copies=1,
    webhooks=[("evt_1", "7")],
    unverified_webhooks=0,
    webhooks_due=[("order.completed of order 1", "7")],
    webhooks_staged=[("order.completed of order 1", "7")],
)


def broken(ledgers: Ledgers) -> set[str]:
    return {finding.promise for finding in check(ledgers) if not finding.holds}


def test_sound_books_hold() -> None:
    assert broken(SOUND) == set()


@pytest.mark.parametrize(
    ("wrong", "promise"),
    [
        ({"accepted": [1, 2, 3, 4]}, "every order answered 202 is in the database"),
        ({"orders": [COMPLETED, replace(FAILED, status="processing"), REFUNDED]}, "every order is final"),
        (
            {"orders": [replace(COMPLETED, processing_count=2), FAILED, REFUNDED]},
            "every completed order was completed once",
        ),
        (
            {"captures": [*SOUND.captures, Movement(1, "usd", 500)]},
            "one capture per completed order, none for others",
        ),
        ({"captures": [Movement(3, "eur", 900)]}, "one capture per completed order, none for others"),
        (
            {"captures": [*SOUND.captures, Movement(2, "usd", 700)]},
            "one capture per completed order, none for others",
        ),
        (
            {"captures": [Movement(1, "usd", 499), Movement(3, "eur", 900)]},
            "sum of completed orders = captured - refunded",
        ),
        ({"refunds": [Movement(3, "eur", 800)]}, "sum of completed orders = captured - refunded"),
        ({"receipts": []}, "one receipt (Message-ID) per completed order"),
        ({"receipts": [1, 1]}, "one receipt (Message-ID) per completed order"),
        ({"invoices": []}, "one invoice per completed order"),
        ({"invoices": [1, 1]}, "one invoice per completed order"),
        ({"shipments": [1, 1]}, "one shipment per completed order"),
        ({"shipments": [2]}, "one shipment per completed order"),
        ({"crm_records": []}, "one CRM record per completed order"),
        ({"webhooks": []}, "one webhook per (event, merchant), signature valid"),
        (
            {"webhooks": [("evt_1", "7"), ("evt_2", "7")]},
            "one webhook per (event, merchant), signature valid",
        ),
        # Nothing staged and nothing arrived is no agreement.
        (
            {"deliveries": [], "webhooks": [], "webhooks_staged": []},
            "one delivery per end of an order and subscription",
        ),
        ({"unverified_webhooks": 1}, "one webhook per (event, merchant), signature valid"),
        ({"shelves": [Shelf("WIDGET", 10, 9, 0, 2)]}, "stock + reserved + shipped = units at the start"),
        ({"shelves": [Shelf("WIDGET", 10, 7, 1, 2)]}, "units shipped, none still reserved"),
        ({"shipped_units": [("WIDGET", 3)]}, "units shipped, none still reserved"),
        ({"open_messages": 1}, "no message is open"),
        ({"unresolved_dead_letters": 1}, "no dead letter"),
    ],
)
def test_a_single_wrong_entry_breaks_its_promise(wrong: dict[str, Any], promise: str) -> None:
    assert promise in broken(replace(SOUND, **wrong))


def test_a_loss_cannot_hide_behind_a_duplicate() -> None:
    second = replace(COMPLETED, id=4)
    ledgers = replace(SOUND, orders=[COMPLETED, second], shipments=[1, 1])
    finding = next(
        finding for finding in check(ledgers) if finding.promise == "one shipment per completed order"
    )
    assert finding.database == finding.outside == "2"
    assert not finding.holds
    assert "4" in finding.difference


def test_losses_of_two_products_do_not_cancel_out() -> None:
    shelves = [Shelf("WIDGET", 10, 9, 0, 2), Shelf("GADGET", 10, 9, 0, 0)]
    assert "stock + reserved + shipped = units at the start" in broken(replace(SOUND, shelves=shelves))


def test_a_second_copy_of_a_receipt_is_shown_but_breaks_nothing() -> None:
    findings = check(replace(SOUND, receipt_copies=2))
    receipt = next(finding for finding in findings if "receipt" in finding.promise)
    assert receipt.holds
    assert receipt.outside == "1 (+1 copies)"
