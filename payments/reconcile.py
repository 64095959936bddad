"""Reconciliation: the gateway's ledger against our orders, because only the gateway knows where the money is.

An ambiguous answer that outlived its retries ends as a dead letter that says "perhaps charged". Here it
becomes yes or no. What has one right answer is healed: an order whose money was taken is processed again
(which finds the capture and completes it), an order that ended without a sale is refunded. What has not is
listed for a person.

Each run sees what is there now, so it can be run at any time, twice, or by two at once: healing sends
messages whose effects are themselves once-only, and a finding is one row from its first sight until it is
gone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.db import transaction
from django.db.models import Q

from common import clock
from orders import selectors as orders
from payments import disputes, findings
from payments.findings import Difference
from payments.gateway.client import Intent, PaymentGateway, Refunded
from payments.gateway.errors import InvalidRequest
from payments.models import Finding, Refund
from payments.refunds import settle

#: How far back the gateway's list is read. Differences found once are followed however old they grow, and so are
#: orders whose payment may yet be taken: a dead letter can be replayed on day three.
WINDOW = timedelta(days=1)
#: Payments asked for one by one, of older orders that are still being processed, and of those that ended without a
#: sale: a call each, so that even at a third of a second the two parts end well inside the task's time limit.
OPEN_ORDERS, ENDED_ORDERS = 300, 100
#: Refused refunds whose payments are asked about, with two calls each, and payments of which too much was taken, with
#: one. Where there are more, others of them each time.
FAILED_REFUNDS, EXCESSES = 50, 100
#: What is younger is probably still being worked on: the critical queue's longest back-off is five minutes. Not for
#: what was found already: a run with a longer grace must not report it as gone.
GRACE = timedelta(minutes=10)

#: The periodic run mends a difference again only after this long: where the repair failed there is a dead letter by
#: then, and one more every quarter of an hour would hide the others.
MEND_AGAIN = timedelta(hours=6)

Kind = Finding.Kind
Action = Finding.Action


@dataclass
class Reconciliation:
    """The outcome of one run: how much was compared, what differs, how many earlier findings are gone."""

    since: datetime
    intents: int = 0
    captured: int = 0
    differences: list[Difference] = field(default_factory=list)
    resolved: int = 0

    def lines(self) -> Iterator[str]:
        """For people, one finding a line."""
        yield (
            f"compared {self.intents} payment intents ({self.captured} captured) "
            f"since {self.since:%Y-%m-%d %H:%M} UTC with the orders"
        )
        for difference in self.differences:
            order = f"order {difference.order_id}" if difference.order_id is not None else "no order"
            yield (
                f"  {difference.kind}: {order}, {difference.subject}: {difference.detail} "
                f"-> {difference.action.label}"
            )
        yield f"{len(self.differences)} open findings, {self.resolved} resolved since the last run"


def reconcile(
    *,
    window: timedelta = WINDOW,
    grace: timedelta = GRACE,
    heal: bool = True,
    mend_again: timedelta = MEND_AGAIN,
) -> Reconciliation:
    """Compare, record the findings and, with `heal`, start what mends them, at most once in `mend_again`.

    Raises `payments.gateway.errors.GatewayUnavailable` or `circuitbreaker.CircuitBreakerError` when the gateway
    cannot be read; nothing is then concluded from what was not seen.
    """
    now = clock.now()
    run = Reconciliation(since=now - window)
    completed = _completed(run.since)
    captured: set[str] = set()
    followed = set(
        Finding.objects.filter(resolved_at__isnull=True, subject__startswith="pi_").values_list(
            "subject", flat=True
        )
    )
    for intent in _intents(run.since, followed):
        run.intents += 1
        if intent.captured_cents <= 0:
            continue
        run.captured += 1
        captured.add(intent.id)
        # Most captures are of completed orders that were read in one query above; only the odd ones cost a
        # query.
        order = completed.get(intent.id) or _order(intent)
        if order is not None or intent.order_id is not None:
            run.differences.extend(
                _compare(intent, order, before=None if intent.id in followed else now - grace)
            )
    for payment_id, order in completed.items():
        if payment_id not in captured and not _is_captured(payment_id):
            run.differences.append(
                Difference(
                    Kind.COMPLETED_NOT_CAPTURED,
                    payment_id,
                    order.pk,
                    "the order is completed, the gateway captured nothing",
                    Action.NEEDS_A_PERSON,
                )
            )
    run.differences.extend(_refund_differences(before=now - grace, settling=heal))
    run.differences.extend(disputes.differences(since=run.since, learning=heal))
    run.differences = _without_those_paid_back(run.differences)
    with transaction.atomic():
        run.resolved = findings.record(run.differences, now)
        if heal:
            findings.heal(run.differences, now, mend_again)
    return run


def _completed(since: datetime) -> dict[str, Any]:
    """Payment id to order: the window's completed orders, and older ones whose missing capture was found
    before.
    """
    found = {order.payment_id: order for order in orders.charged_orders(since=since)}
    open_findings = Finding.objects.filter(kind=Kind.COMPLETED_NOT_CAPTURED, resolved_at__isnull=True)
    for payment_id in open_findings.values_list("subject", flat=True):
        if payment_id not in found and (order := orders.order_by_payment_intent(payment_id)) is not None:
            found[payment_id] = order
    return {payment_id: order for payment_id, order in found.items() if order.is_completed}


def _intents(since: datetime, followed: set[str]) -> Iterator[Intent]:
    """The window's intents, and older ones: those of open findings, and those of orders that may yet be charged."""
    seen: set[str] = set()
    for intent in PaymentGateway.intents_since(since):
        # A page boundary moves when an intent is created meanwhile; nothing may be counted twice.
        if intent.id not in seen:
            seen.add(intent.id)
            yield intent
    # An id unknown to the gateway is no charge; `completed_not_captured` has its own look at such an id.
    yield from PaymentGateway.intents(sorted((followed | set(_unsettled(since))) - seen))


def _unsettled(before: datetime) -> Iterator[str]:
    """Payments of orders placed `before` that wait for their charge, or ended without a sale and without a refund."""
    yield from (intent_id for _, intent_id in orders.intents_in_processing(before=before, limit=OPEN_ORDERS))
    ended = orders.intents_without_sale(before=before, limit=ENDED_ORDERS)
    # A refund that is not settled is a finding of its own.
    refunded = set(
        Refund.objects.filter(order_id__in=[order_id for order_id, _ in ended]).values_list(
            "order_id", flat=True
        )
    )
    yield from (intent_id for order_id, intent_id in ended if order_id not in refunded)


def _order(intent: Intent) -> Any | None:
    order = orders.order_by_payment_intent(intent.id)
    if order is None and intent.order_id is not None:
        try:
            return orders.get_order(intent.order_id)
        except ObjectDoesNotExist:
            return None
    return order


def _is_captured(payment_id: str) -> bool:
    try:
        return PaymentGateway.retrieve(payment_id).captured_cents > 0
    except InvalidRequest:
        return False


def _compare(intent: Intent, order: Any | None, *, before: datetime | None) -> Iterator[Difference]:
    """What is wrong with one captured intent; nothing while it is younger than the grace period, if it has one."""
    if before is not None and intent.created_at > before:
        return
    paid = f"captured {intent.captured_cents} {intent.currency}"

    def differs(kind: Kind, detail: str, action: Action, excess_cents: int = 0) -> Difference:
        order_id = order.pk if order else intent.order_id
        return Difference(kind, intent.id, order_id, f"{paid}, {detail}", action, excess_cents)

    def is_too_much(kind: Kind, detail: str, excess_cents: int) -> Difference:
        return differs(kind, detail, Action.NEEDS_A_PERSON, excess_cents)

    if order is None:
        yield is_too_much(Kind.CAPTURED_WITHOUT_ORDER, "the order does not exist", intent.captured_cents)
    elif intent.id not in (order.payment_intent_id, order.payment_id):
        other = order.payment_intent_id or order.payment_id or "none"
        yield is_too_much(Kind.CAPTURED_TWICE, f"the order's payment is {other}", intent.captured_cents)
    elif (intent.captured_cents, intent.currency) != (order.total_cents, order.currency):
        owed_cents = order.total_cents if intent.currency == order.currency else 0
        yield is_too_much(
            Kind.AMOUNT_DIFFERS,
            f"the order's total is {order.total_cents} {order.currency}",
            intent.captured_cents - owed_cents,
        )
    elif order.is_unsold:
        refund = Refund.objects.filter(order_id=order.pk).first()
        if refund is None or refund.status == Refund.Status.VOIDED:
            yield differs(Kind.CAPTURED_NOT_REFUNDED, f"the order is {order.status}", Action.REFUND_REQUESTED)
    elif not order.is_completed:
        yield differs(Kind.CAPTURED_NOT_COMPLETED, f"the order is {order.status}", Action.PROCESSING_REARMED)


def _refund_differences(*, before: datetime, settling: bool) -> Iterator[Difference]:
    found = Finding.objects.filter(kind=Kind.REFUND_OVERDUE, resolved_at__isnull=True)
    overdue = Refund.objects.filter(
        Q(created_at__lte=before) | Q(order_id__in=found.values("order_id")), status=Refund.Status.PENDING
    )
    for refund in overdue.order_by("pk"):
        detail = f"requested at {refund.created_at:%Y-%m-%d %H:%M}"
        yield Difference(
            Kind.REFUND_OVERDUE, f"order-{refund.order_id}", refund.order_id, detail, Action.REFUND_REQUESTED
        )
    failed = Refund.objects.filter(status=Refund.Status.FAILED).order_by("?")
    for number, refund in enumerate(failed):
        if settling and number < FAILED_REFUNDS and _is_paid_back(refund):
            continue
        detail = f"the bank refused {refund.gateway_refund_id}"
        yield Difference(
            Kind.REFUND_FAILED, f"order-{refund.order_id}", refund.order_id, detail, Action.NEEDS_A_PERSON
        )


def _is_paid_back(refund: Refund) -> bool:
    """Whether refunds that the bank did carry out, made by a person or by a replay, now give everything back."""
    for intent in PaymentGateway.intents([refund.payment_intent_id]):
        given = _given_back(intent.id)
        if 0 < intent.captured_cents <= given.amount_cents:
            return settle(refund, given).status != Refund.Status.FAILED
    return False


def _without_those_paid_back(differences: list[Difference]) -> list[Difference]:
    """Without those of which a person has given back at the gateway what was taken too much."""
    excesses = [difference for difference in differences if difference.excess_cents > 0]
    asked = random.sample(excesses, min(len(excesses), EXCESSES))
    ended = [each for each in asked if _given_back(each.subject).amount_cents >= each.excess_cents]
    return [difference for difference in differences if difference not in ended]


def _given_back(intent_id: str) -> Refunded:
    try:
        return PaymentGateway.given_back(intent_id)
    except InvalidRequest:  # more refunds than are read: a person must go on looking
        return Refunded("", Refund.Status.VOIDED, 0)
