"""Disputes (chargebacks): the customer's bank takes a payment back, and decides later whether it stays so.

Nothing here argues with the bank. A dispute is recorded, from the gateway's events and from its list, and is a finding:
for a person until evidence is submitted, waiting for the bank then, for a person again if it is lost. Events come late,
twice and out of order, so that a row takes over the newest word only.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from datetime import datetime

from django.db import transaction
from django.db.models import Q

from common import clock
from orders import selectors as orders
from orders.events import announce
from payments import findings
from payments.findings import Difference
from payments.gateway import answers, money
from payments.gateway.answers import DisputeAnswer
from payments.gateway.calls import call, pages, read
from payments.gateway.errors import InvalidRequest
from payments.models import Dispute, Finding, Refund

logger = logging.getLogger(__name__)

State = Dispute.State
_STATES = {"won": State.WON, "lost": State.LOST, "warning_closed": State.CLOSED, "prevented": State.CLOSED}
#: Open disputes that are asked for one by one in each reconciliation; where there are more, others of them each time.
FOLLOWED = 100

_TO_DO = Q(state__in=[State.OPEN, State.LOST], handled_at__isnull=True)


def record(told: DisputeAnswer, *, told_at: datetime | None = None, kind: str = "") -> Dispute:
    """Record what the gateway reports about a dispute, and what follows from it; recording it again changes nothing.

    `told_at` is the time of the event that reported it, None for an answer of the gateway, which is the current state.
    `kind` is the last part of the event's type: `funds_withdrawn` and `funds_reinstated` say where the money is.
    """
    now = clock.now()
    moment = told_at or now
    with transaction.atomic():
        Dispute.objects.get_or_create(
            dispute_id=told.id,
            defaults={
                "amount_cents": told.amount_cents,
                "currency": told.currency,
                "gateway_status": told.status[:50],
                "opened_at": told.created_at or moment,
                # Older than any report about it, so that the update below applies.
                "told_at": datetime.fromtimestamp(0, moment.tzinfo),
            },
        )
        # Of two reports at once the second waits here, and compares with what the first wrote.
        dispute = Dispute.objects.select_for_update().get(dispute_id=told.id)
        # Times are whole seconds: of two reports in one second the one that ends the dispute is the later.
        same_time = dispute.told_at == told_at and dispute.state == State.OPEN
        if told_at is None or told_at > dispute.told_at or same_time:
            _take_over(dispute, told, moment)
            if told_at is not None:
                dispute.told_at = told_at
        if kind == "funds_withdrawn":
            dispute.withdrawn_at = dispute.withdrawn_at or moment
        elif kind == "funds_reinstated":
            dispute.reinstated_at = dispute.reinstated_at or moment
        dispute.save()
        if dispute.state in (State.WON, State.CLOSED):
            _refund_after_all(dispute)
        findings.follow(dispute.dispute_id, difference(dispute), now)
    return dispute


def differences(*, since: datetime, learning: bool) -> Iterator[Difference]:
    """What is to be done about disputes. With `learning` the gateway is asked first, for those opened after `since` and
    those that are open: an event may have been lost.
    """
    if learning:
        try:
            _learn(since)
        except InvalidRequest as error:
            # A restricted key may lack the right to read disputes: their events are what is left.
            logger.warning("disputes cannot be read from the gateway: %s", error)
    for dispute in Dispute.objects.filter(_TO_DO).select_related("order").order_by("pk"):
        if (found := difference(dispute)) is not None:
            yield found


def difference(dispute: Dispute) -> Difference | None:
    """What is to be done about one dispute, None when nothing is."""
    paid = money(dispute.amount_cents, dispute.currency)
    whose = (
        ""
        if dispute.order_id
        else f", {dispute.payment_intent_id or dispute.charge_id} is no order's payment"
    )
    what = f"{paid} disputed ({dispute.reason or 'no reason given'}){whose}"
    if dispute.state == State.OPEN:
        due = f", evidence is due by {dispute.due_by:%Y-%m-%d %H:%M} UTC" if dispute.due_by else ""
        reviewed = dispute.gateway_status.endswith("under_review")
        action = Finding.Action.WAITS_FOR_THE_BANK if reviewed else Finding.Action.NEEDS_A_PERSON
        return _difference(dispute, Finding.Kind.DISPUTED, f"{what}: {dispute.gateway_status}{due}", action)
    if dispute.state == State.LOST and not dispute.handled_at and not _was_to_be_refunded(dispute):
        return _difference(dispute, Finding.Kind.DISPUTE_LOST, f"{what}: lost", Finding.Action.NEEDS_A_PERSON)
    return None


def of_payment(payment_intent_id: str) -> list[DisputeAnswer]:
    """The payment's disputes for which the gateway refuses a refund, from its own list."""
    found = pages(_page, {"payment_intent": payment_intent_id})
    return [told for told in found if told.blocks_refunds]


def mark_handled(dispute: Dispute, *, by: str) -> bool:
    """A person has done what follows from a lost dispute: its finding ends. False for one that is not lost."""
    now = clock.now()
    with transaction.atomic():
        lost = Dispute.objects.filter(pk=dispute.pk, state=State.LOST, handled_at__isnull=True)
        if not lost.update(handled_at=now, handled_by=by[:150]):
            return False
        findings.follow(dispute.dispute_id, None, now)
    return True


def _take_over(dispute: Dispute, told: DisputeAnswer, moment: datetime) -> None:
    dispute.charge_id = told.charge_id
    dispute.payment_intent_id = told.payment_intent_id
    dispute.amount_cents, dispute.currency = told.amount_cents, told.currency
    dispute.reason, dispute.due_by = told.reason[:100], told.due_by
    dispute.gateway_status = told.status[:50]
    # A status that a later version of the gateway adds counts as open: a person looks at it.
    dispute.state = _STATES.get(told.status, State.OPEN)
    dispute.closed_at = None if dispute.state == State.OPEN else dispute.closed_at or moment
    if dispute.order_id is None:
        order = orders.order_by_payment_intent(told.payment_intent_id)
        dispute.order_id = order.pk if order else None


def _refund_after_all(dispute: Dispute) -> None:
    """The money is ours again, and the order was to be refunded: now the gateway will do it."""
    if dispute.order_id is None:
        return
    waiting = Refund.objects.filter(order_id=dispute.order_id, status=Refund.Status.DISPUTED)
    if waiting.update(status=Refund.Status.PENDING):
        announce("order.refund_due", dispute.order_id)


def _was_to_be_refunded(dispute: Dispute) -> bool:
    """Whether the bank only did what we wanted to do: the order ended without a sale, and its refund was refused."""
    return (
        dispute.order is not None
        and dispute.order.is_unsold
        and Refund.objects.filter(order=dispute.order, status=Refund.Status.DISPUTED).exists()
    )


def _difference(dispute: Dispute, kind: Finding.Kind, detail: str, action: Finding.Action) -> Difference:
    return Difference(kind, dispute.dispute_id, dispute.order_id, detail, action)


def _learn(since: datetime) -> None:
    seen = set()
    for told in pages(_page, {"created": {"gte": int(since.timestamp())}}):
        seen.add(told.id)
        record(told)
    still_open = Dispute.objects.filter(state=State.OPEN).values_list("dispute_id", flat=True)
    followed = [dispute_id for dispute_id in still_open if dispute_id not in seen]
    for dispute_id in random.sample(followed, min(len(followed), FOLLOWED)):
        try:
            record(read(lambda: _one(dispute_id)))  # noqa: B023
        except InvalidRequest:  # Unknown to the gateway: what its event said is all that there is.
            continue


def _one(dispute_id: str) -> DisputeAnswer:
    return call(lambda client: answers.dispute(client.v1.disputes.retrieve(dispute_id).to_dict()))


def _page(params: object) -> tuple[list[DisputeAnswer], bool]:
    return call(
        lambda client: answers.page(
            client.v1.disputes.list(params),  # type: ignore[arg-type]
            lambda each: answers.dispute(each.to_dict()),
        )
    )
