"""Effects of a completed order outside of it: receipt, invoice, shipment, CRM record, webhooks; each once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lab.invariants.finding import Finding, none, same
from lab.invariants.records import Ledgers


def one_receipt_per_completed_order(ledgers: Ledgers) -> Finding:
    finding = same("one receipt (Message-ID) per completed order", ledgers.completed_once(), ledgers.receipts)
    if ledgers.receipt_copies > len(ledgers.receipts):
        copies = ledgers.receipt_copies - len(ledgers.receipts)
        # Not a violation: SMTP cannot tell a lost answer from a lost email, and mail programs fold equal Message-IDs.
        return replace(finding, outside=f"{finding.outside} (+{copies} copies)")
    return finding


def one_invoice_per_completed_order(ledgers: Ledgers) -> Finding:
    return same(
        "one invoice per completed order",
        ledgers.invoices,
        ledgers.completed_once(),
        sides=("{} invoices", "{} orders"),
    )


def one_shipment_per_completed_order(ledgers: Ledgers) -> Finding:
    # An order that was cancelled after its completion may have been shipped before that, once, or not at all.
    undone = {order.id for order in ledgers.orders if order.was_completed and order.status == "cancelled"}
    shipped = list(ledgers.shipments)
    for order_id in undone & set(shipped):
        shipped.remove(order_id)
    return same(
        "one shipment per completed order", [order.id for order in ledgers.in_status("completed")], shipped
    )


def one_crm_record_per_completed_order(ledgers: Ledgers) -> Finding:
    return same("one CRM record per completed order", ledgers.completed_once(), ledgers.crm_records)


def every_end_is_published(ledgers: Ledgers) -> Finding:
    """Else a `publish_event` that stages nothing would leave nothing to compare, and 0 = 0."""
    return same(
        "one delivery per end of an order and subscription",
        ledgers.webhooks_staged,
        ledgers.webhooks_due,
        sides=("{}", "{} due"),
    )


def webhooks_take_effect_once(ledgers: Ledgers) -> Finding:
    finding = same("one webhook per (event, merchant), signature valid", ledgers.deliveries, ledgers.webhooks)
    if ledgers.unverified_webhooks:
        return replace(finding, holds=False, difference=f"{ledgers.unverified_webhooks} not verified")
    return finding


def webhooks_arrive_in_order(ledgers: Ledgers) -> Finding:
    """A merchant sees events first in the order in which they were committed; what was replayed comes when it comes.

    Of one order that is the order of its transition log. Of several it is that of the deliveries: their transactions may
    overlap, and then no log says which one was first.
    """
    place = {pair: number for number, pair in enumerate(ledgers.webhooks_enqueued)}

    def wrong() -> Iterator[str]:
        last: dict[str, tuple[str, str]] = {}
        last_line: dict[tuple[str, int], int] = {}
        for pair in ledgers.webhooks:
            if pair not in place:
                continue
            if pair[0] in ledgers.events:
                order_id, line = ledgers.events[pair[0]]
                if line < last_line.get((pair[1], order_id), line):
                    yield f"merchant {pair[1]} got {pair[0]} after a later event of order {order_id}"
                last_line[pair[1], order_id] = line
            before = last.get(pair[1])
            if before is not None and place[before] > place[pair]:
                yield f"merchant {pair[1]} got {before[0]} before {pair[0]}"
            else:
                last[pair[1]] = pair

    return none("webhooks arrive in order, per subscription", f"{len(place):,} deliveries", wrong())
