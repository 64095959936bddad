"""Money: what the gateway moved is what the orders say, to the cent and in each currency."""

from __future__ import annotations

from collections import Counter

from lab.invariants.finding import Finding, none, same
from lab.invariants.records import Ledgers


def at_most_one_capture_per_order(ledgers: Ledgers) -> Finding:
    """Also for orders whose money went back: a refund must not hide that it was taken twice."""
    times = Counter(capture.order_id for capture in ledgers.captures)
    twice = (f"order {order_id} was charged {count} times" for order_id, count in times.items() if count > 1)
    return none("at most one capture per order", f"{times.total():,} captures", twice)


def one_capture_per_completed_order(ledgers: Ledgers) -> Finding:
    refunded = {refund.order_id for refund in ledgers.refunds}
    kept = [capture.order_id for capture in ledgers.captures if capture.order_id not in refunded]
    completed = [order.id for order in ledgers.in_status("completed")]
    return same("one capture per completed order, none for others", completed, kept)


def captured_money_is_completed_money(ledgers: Ledgers) -> Finding:
    totals: Counter[str] = Counter()
    for order in ledgers.in_status("completed"):
        totals[order.currency] += order.total_cents
    captured: Counter[str] = Counter()
    for capture in ledgers.captures:
        captured[capture.currency] += capture.amount_cents
    for refund in ledgers.refunds:
        captured[refund.currency] -= refund.amount_cents
    left, right = _money(totals), _money(captured)
    return Finding("sum of completed orders = captured - refunded", left, right, left == right)


def _money(sums: Counter[str]) -> str:
    return (
        ", ".join(f"{sums[currency] / 100:,.2f} {currency}" for currency in sorted(sums) if sums[currency])
        or "0"
    )
