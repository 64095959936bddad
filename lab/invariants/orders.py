"""Acceptance, termination and fencing: what was accepted exists once, ends, and moves only as its log may."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from lab.invariants.finding import Finding, none, same
from lab.invariants.records import FINAL, Ledgers, OrderLine

#: Every step that an order may make; a claim may be taken over any number of times.
LEGAL = {
    ("", "pending"),
    ("pending", "processing"),
    ("processing", "processing"),
    ("processing", "completed"),
    ("processing", "failed"),
    ("pending", "cancelled"),
    ("processing", "cancelled"),
    ("completed", "cancelled"),
}


def accepted_orders_are_recorded(ledgers: Ledgers) -> Finding:
    accepted = set(ledgers.accepted)
    known = [order.id for order in ledgers.orders if order.id in accepted]
    return same("every order answered 202 is in the database", known, ledgers.accepted)


def clients_and_database_agree(ledgers: Ledgers) -> Finding:
    """ok: exactly that order; fail: none; unknown: at most one; and no order without a request."""
    by_tag: dict[str, list[int]] = {}
    for order in ledgers.orders:
        by_tag.setdefault(order.tag, []).append(order.id)

    def wrong() -> Iterator[str]:
        for request in ledgers.requests:
            have = by_tag.get(request.tag, [])
            if request.outcome == "ok" and have != [request.order_id]:
                yield f"{request.tag} was told {request.order_id}, the database has {have}"
            if request.outcome == "fail" and have:
                yield f"{request.tag} was refused, the database has {have}"
            if request.outcome == "unknown" and len(have) > 1:
                yield f"{request.tag} got no answer, the database has {have}"
        asked = {request.tag for request in ledgers.requests}
        for tag in by_tag.keys() - asked:
            yield f"no request asked for {by_tag[tag]} ({tag or 'no tag'})"

    outcomes = Counter(request.outcome for request in ledgers.requests)
    figures = ", ".join(f"{outcomes[name]:,} {name}" for name in ("ok", "fail", "unknown"))
    return none("each request is one order or none, as its client knows", figures, wrong())


def every_order_is_final(ledgers: Ledgers) -> Finding:
    final = [order.id for order in ledgers.orders if order.status in FINAL]
    return same(
        "every order is final", final, [order.id for order in ledgers.orders], sides=("{} final", "of {}")
    )


def orders_complete_once(ledgers: Ledgers) -> Finding:
    done = [order for order in ledgers.orders if order.was_completed]
    runs = [order.id for order in done for _ in range(order.processing_count)]
    return same(
        "every completed order was completed once",
        runs,
        [order.id for order in done],
        sides=("{} times", "{} orders"),
    )


def orders_move_as_their_log_may(ledgers: Ledgers) -> Finding:
    """Fencing: each claim raised the fence once, and nothing was written under an earlier claim after a later one."""

    def wrong(order: OrderLine) -> Iterator[str]:
        status = ""
        for before, after in order.moves:
            if before != status or (before, after) not in LEGAL:
                yield f"order {order.id} went {before or 'new'} -> {after} when it was {status or 'new'}"
            status = after
        if order.moves and status != order.status:
            yield f"order {order.id} is {order.status}, its log ends with {status}"
        # A cancellation raises the fence as well: it ends the lease of the order's holder.
        raised = sum(after in ("processing", "cancelled") for _, after in order.moves)
        if order.fence != raised:
            yield f"order {order.id} has fence {order.fence} after {raised} claims"

    claims = sum(after == "processing" for order in ledgers.orders for _, after in order.moves)
    found = (text for order in ledgers.orders for text in wrong(order))
    return none("no write from a stale claim (fence and log agree)", f"{claims:,} claims", found)
