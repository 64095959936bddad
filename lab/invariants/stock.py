"""Stock: no unit appears or disappears, at the end and at every moment that was looked at."""

from __future__ import annotations

from collections import Counter

from lab.invariants.finding import Finding, none
from lab.invariants.records import Ledgers


def no_unit_is_lost(ledgers: Ledgers) -> Finding:
    now = sum(shelf.stock + shelf.reserved + shelf.shipped for shelf in ledgers.shelves)
    then = sum(shelf.at_start for shelf in ledgers.shelves)
    holds = all(shelf.stock + shelf.reserved + shelf.shipped == shelf.at_start for shelf in ledgers.shelves)
    return Finding("stock + reserved + shipped = units at the start", f"{now:,}", f"{then:,} at start", holds)


def no_unit_is_lost_at_any_time(ledgers: Ledgers) -> Finding:
    at_start = {shelf.sku: shelf.at_start for shelf in ledgers.shelves}
    wrong = [
        f"{sku} had {units:,} units of {at_start.get(sku, 0):,} after {sample.at_s:.1f} s"
        for sample in ledgers.samples
        for sku, units in sample.units.items()
        if units != at_start.get(sku, 0)
    ]
    if at_start and not any(sample.units for sample in ledgers.samples):
        wrong.append("no shelf was ever looked at")
    return none("stock is conserved at every sampled instant", f"{len(ledgers.samples):,} samples", wrong)


def what_left_the_shelf_was_shipped(ledgers: Ledgers) -> Finding:
    shelves: Counter[str] = Counter({shelf.sku: shelf.shipped for shelf in ledgers.shelves})
    sold: Counter[str] = Counter()
    for order in ledgers.orders:
        for sku, quantity in order.units:
            if order.status == "completed":
                sold[sku] += quantity
            elif order.is_shipped:
                shelves[sku] -= (
                    quantity  # cancelled after its units had left: the warehouse may know of it or not
                )
    shipped: Counter[str] = Counter()
    for sku, quantity in ledgers.shipped_units:
        shipped[sku] += quantity
    held = sum(shelf.reserved for shelf in ledgers.shelves)
    holds = +shelves == +sold == +shipped and held == 0
    difference = "" if holds else f"sold {sold.total()}, still reserved {held}"
    return Finding(
        "units shipped, none still reserved",
        f"{shelves.total():,}",
        f"{shipped.total():,}",
        holds,
        difference,
    )
