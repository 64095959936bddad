"""What must be true after any run, as pure functions over plain data: the database's books beside the outside world's.

The two sides are written by different programs (the app, and the sandbox, which never reads the app's database), so that
agreement is evidence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Pair = tuple[str, str]
Key = TypeVar("Key", int, Pair)


@dataclass(frozen=True)
class OrderLine:
    """One order as the database has it; amounts in minor units."""

    id: int
    status: str
    currency: str
    total_cents: int
    processing_count: int
    units: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Movement:
    """Money that the gateway moved: a capture or a refund."""

    order_id: int
    currency: str
    amount_cents: int


@dataclass(frozen=True)
class Shelf:
    """One product's units, and how many there were before the first order."""

    sku: str
    at_start: int
    stock: int
    reserved: int
    shipped: int


@dataclass(frozen=True)
class Books:
    """Everything that the invariants look at. Order ids that are repeated happened more than once."""

    accepted: Sequence[int]  # ids answered with 202
    orders: Sequence[OrderLine]
    invoices: Sequence[int]
    deliveries: Sequence[Pair]  # (event id, merchant) that the database counts as delivered
    shelves: Sequence[Shelf]
    open_messages: int
    dead_letters: int
    captures: Sequence[Movement]
    refunds: Sequence[Movement]
    shipments: Sequence[int]
    shipped_units: Sequence[tuple[str, int]]
    crm_records: Sequence[int]
    receipts: Sequence[int]  # one entry a distinct Message-ID
    receipt_copies: int
    webhooks: Sequence[Pair]  # (event id, merchant) that merchants took, each once
    unverified_webhooks: int

    def in_status(self, status: str) -> list[OrderLine]:
        return [order for order in self.orders if order.status == status]


@dataclass(frozen=True)
class Finding:
    """One invariant, with the figure of each side and, where it does not hold, what differs."""

    promise: str
    database: str
    outside: str
    holds: bool
    difference: str = ""


def check(books: Books) -> list[Finding]:
    """Every invariant over these books, in the order in which a reader wants them."""
    return [invariant(books) for invariant in INVARIANTS]


def accepted_orders_are_recorded(books: Books) -> Finding:
    known = [order.id for order in books.orders if order.id in set(books.accepted)]
    return _same("every order answered 202 is in the database", known, books.accepted)


def every_order_is_final(books: Books) -> Finding:
    final = [order.id for order in books.orders if order.status in ("completed", "failed", "cancelled")]
    return _same("every order is final", final, [order.id for order in books.orders], sides=("{} final", "of {}"))


def orders_complete_once(books: Books) -> Finding:
    done = books.in_status("completed")
    runs = [order.id for order in done for _ in range(order.processing_count)]
    return _same("every completed order was completed once", runs, [order.id for order in done], sides=("{} times", "{} orders"))


def one_capture_per_completed_order(books: Books) -> Finding:
    refunded = {refund.order_id for refund in books.refunds}
    kept = [capture.order_id for capture in books.captures if capture.order_id not in refunded]
    return _same("one capture per completed order, none for others", _completed(books), kept)


def captured_money_is_completed_money(books: Books) -> Finding:
    totals: Counter[str] = Counter()
    for order in books.in_status("completed"):
        totals[order.currency] += order.total_cents
    captured: Counter[str] = Counter()
    for capture in books.captures:
        captured[capture.currency] += capture.amount_cents
    for refund in books.refunds:
        captured[refund.currency] -= refund.amount_cents
    left, right = _money(totals), _money(captured)
    return Finding("sum of completed orders = captured - refunded", left, right, left == right)


def one_receipt_per_completed_order(books: Books) -> Finding:
    finding = _same("one receipt (Message-ID) per completed order", _completed(books), books.receipts)
    if books.receipt_copies > len(books.receipts):
        copies = books.receipt_copies - len(books.receipts)
        # Not a violation: SMTP cannot tell a lost answer from a lost mail, and mail programs fold equal Message-IDs.
        return Finding(finding.promise, finding.database, f"{finding.outside} (+{copies} copies)", finding.holds, finding.difference)
    return finding


def one_invoice_per_completed_order(books: Books) -> Finding:
    return _same("one invoice per completed order", books.invoices, _completed(books), sides=("{} invoices", "{} orders"))


def one_shipment_per_completed_order(books: Books) -> Finding:
    return _same("one shipment per completed order", _completed(books), books.shipments)


def one_crm_record_per_completed_order(books: Books) -> Finding:
    return _same("one CRM record per completed order", _completed(books), books.crm_records)


def webhooks_take_effect_once(books: Books) -> Finding:
    finding = _same("one webhook per (event, merchant), signature valid", books.deliveries, books.webhooks)
    if books.unverified_webhooks:
        return Finding(
            finding.promise, finding.database, finding.outside, False, f"{books.unverified_webhooks} not verified"
        )
    return finding


def no_unit_is_lost(books: Books) -> Finding:
    now = sum(shelf.stock + shelf.reserved + shelf.shipped for shelf in books.shelves)
    then = sum(shelf.at_start for shelf in books.shelves)
    holds = all(shelf.stock + shelf.reserved + shelf.shipped == shelf.at_start for shelf in books.shelves)
    return Finding("stock + reserved + shipped = units at the start", f"{now:,}", f"{then:,} at start", holds)


def what_left_the_shelf_was_shipped(books: Books) -> Finding:
    shelves: Counter[str] = Counter({shelf.sku: shelf.shipped for shelf in books.shelves})
    sold: Counter[str] = Counter()
    for order in books.in_status("completed"):
        for sku, quantity in order.units:
            sold[sku] += quantity
    shipped: Counter[str] = Counter()
    for sku, quantity in books.shipped_units:
        shipped[sku] += quantity
    held = sum(shelf.reserved for shelf in books.shelves)
    holds = +shelves == +sold == +shipped and held == 0
    difference = "" if holds else f"sold {sold.total()}, still reserved {held}"
    return Finding("units shipped, none still reserved", f"{shelves.total():,}", f"{shipped.total():,}", holds, difference)


def no_message_is_open(books: Books) -> Finding:
    return Finding("no message is open", str(books.open_messages), "-", books.open_messages == 0)


def no_dead_letter(books: Books) -> Finding:
    return Finding("no dead letter", str(books.dead_letters), "-", books.dead_letters == 0)


INVARIANTS: tuple[Callable[[Books], Finding], ...] = (
    accepted_orders_are_recorded,
    every_order_is_final,
    orders_complete_once,
    one_capture_per_completed_order,
    captured_money_is_completed_money,
    one_receipt_per_completed_order,
    one_invoice_per_completed_order,
    one_shipment_per_completed_order,
    one_crm_record_per_completed_order,
    webhooks_take_effect_once,
    no_unit_is_lost,
    what_left_the_shelf_was_shipped,
    no_message_is_open,
    no_dead_letter,
)


def _completed(books: Books) -> list[int]:
    return [order.id for order in books.in_status("completed")]


def _same(
    promise: str, left: Iterable[Key], right: Iterable[Key], *, sides: tuple[str, str] = ("{}", "{}")
) -> Finding:
    """Both sides hold the same things, each as often: counted as multisets, so that a duplicate cannot hide a loss."""
    ours, theirs = Counter(left), Counter(right)
    parts = [
        f"{label} {', '.join(map(str, sorted(extra)[:5]))}{' ...' if len(extra) > 5 else ''}"
        for label, extra in (("only left:", ours - theirs), ("only right:", theirs - ours))
        if extra
    ]
    figures = [side.format(f"{book.total():,}") for side, book in zip(sides, (ours, theirs), strict=True)]
    return Finding(promise, *figures, holds=ours == theirs, difference="; ".join(parts))


def _money(sums: Counter[str]) -> str:
    return ", ".join(f"{sums[currency] / 100:,.2f} {currency}" for currency in sorted(sums) if sums[currency]) or "0"
