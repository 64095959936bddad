"""The payment gateway, in the order of steps that makes a second capture impossible.

    create the PaymentIntent (moves no money)  ->  commit its id  ->  confirm that id (moves the money)

Why this holds without relying on idempotency keys, which the provider forgets after about a day:

- Only an intent whose id is committed on the order is ever confirmed, and a committed id is never replaced. A
  crash, an expired key or a stale worker between create and commit leaves at worst an intent that is never
  confirmed.
- The gateway captures an intent once: confirming it again answers `payment_intent_unexpected_state`, and the
  intent itself then says what happened. So confirming is safe under any key and on any day.

The keys are a second line of defence: they keep retries within a day from leaving such orphans. And they have a trap:
the provider stores the first answer, a 500 too, and plays it back for a day (`Idempotent-Replayed: true`).
Asking again under that key cannot succeed, so `payments.gateway.calls.post` goes on to the next key of a fixed
series; by the two rules above that cannot capture twice, and for refunds `refund` looks at the gateway's list
first.

Source of the steps: https://docs.stripe.com/api/idempotent_requests, brandur.org/idempotency-keys.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from payments.gateway import answers
from payments.gateway.answers import Intent, RefundAnswer
from payments.gateway.calls import READ_TRIES, call, pages, post, read
from payments.gateway.errors import (
    CardDeclined,
    ChargeRefused,
    GatewayBusy,
    GatewayError,
    GatewayMisconfigured,
    GatewayUnavailable,
    InvalidRequest,
    RequestRefused,
    UnexpectedState,
)

__all__ = [
    "READ_TRIES",
    "CardDeclined",
    "Charge",
    "ChargeRefused",
    "GatewayBusy",
    "GatewayError",
    "GatewayMisconfigured",
    "GatewayUnavailable",
    "Intent",
    "InvalidRequest",
    "PaymentGateway",
    "Refunded",
    "UnexpectedState",
]

#: What an idempotency key begins with when the rest of it is the id of an order.
_ORDER_KEY = "order-"
#: Status of a refund where nothing had been captured: the intent was cancelled instead.
VOIDED = "voided"


@dataclass(frozen=True)
class Charge:
    """A captured payment: the money was taken. `status` is always `succeeded`."""

    id: str
    status: str
    amount_cents: int
    currency: str


@dataclass(frozen=True)
class Refunded:
    """What was given back: `amount_cents` is the total of the intent's refunds, `id` and `status` are the
    last one's.

    `status` is `voided` (and `id` empty) when nothing had been captured and the intent was cancelled instead.
    """

    id: str
    status: str
    amount_cents: int


class PaymentGateway:
    """The gateway behind `settings.STRIPE_API_BASE`: Stripe, or anything that speaks its PaymentIntents.

    Every method raises `GatewayUnavailable` (ask again), `InvalidRequest` (never ask again) or, while the
    circuit is open, `circuitbreaker.CircuitBreakerError` (nothing was sent).
    """

    @classmethod
    def charge(
        cls,
        customer_id: int,
        total_cents: int,
        *,
        currency: str = "usd",
        payment_method: str = "pm_card_visa",
        idempotency_key: str | None = None,
        payment_intent_id: str = "",
        on_created: Callable[[str], Any] | None = None,
    ) -> Charge:
        """Take `total_cents` (minor units) from the customer, at most once for one `idempotency_key`.

        `on_created(intent_id)` must commit the id, or raise if the caller has lost its claim; the next call
        passes that id as `payment_intent_id`. Without the pair, "at most once" lasts as long as the gateway
        keeps its keys; without a key every call is another charge. A key `order-<id>` also names the order
        for reconciliation.

        Raises `CardDeclined` when the money was certainly not taken, and its `ChargeRefused` for a charge that the
        gateway accepts from no customer, such as an amount below its minimum.
        """
        key = idempotency_key or f"charge-{uuid.uuid4()}"
        if payment_intent_id:
            intent = cls.retrieve(payment_intent_id)
        else:
            intent = cls._create(customer_id, total_cents, currency, payment_method, key)
        if (intent.amount_cents, intent.currency) != (total_cents, currency.lower()):
            raise InvalidRequest(
                f"{intent.id} is for {intent.amount_cents} {intent.currency}, not {total_cents} {currency}"
            )
        if not payment_intent_id and on_created is not None:
            on_created(intent.id)
        if intent.is_confirmable:
            intent = cls._confirm(intent.id, payment_method)
        return cls._outcome(intent)

    @classmethod
    def retrieve(cls, intent_id: str) -> Intent:
        """The intent as the gateway knows it now: the truth after any ambiguous answer."""
        return call(lambda client: answers.intent(client.v1.payment_intents.retrieve(intent_id)))

    @classmethod
    def intents(cls, intent_ids: Iterable[str]) -> Iterator[Intent]:
        """Each of these that the gateway knows, one call each."""
        for intent_id in intent_ids:
            try:
                yield read(partial(cls.retrieve, intent_id))
            except InvalidRequest:
                continue

    @classmethod
    def intents_since(cls, since: datetime) -> Iterator[Intent]:
        """Every intent created at or after `since`, newest first, page by page."""
        return pages(cls._page_of_intents, {"created": {"gte": int(since.timestamp())}})

    @classmethod
    def refund(cls, intent_id: str, *, order_id: int, idempotency_key: str) -> Refunded:
        """Give back all that this intent captured and has not yet given back; cancel it if it captured
        nothing.

        The total of the refunds never exceeds what was captured: the gateway refuses more, and the amount is
        computed from its own list, which also finds the refund of an earlier run whose answer was lost, whatever
        its key's age.
        """
        intent = cls.retrieve(intent_id)
        if intent.status != "succeeded":
            return cls._void(intent)
        refunds = cls._refunds_of(intent_id)
        given = _given(refunds)
        if given.amount_cents >= intent.captured_cents:
            return given
        left_cents = intent.captured_cents - given.amount_cents
        # A key belongs to one amount: after a part was given back by hand, an older run's key would be refused for
        # good. And a failed refund stays under its key, so the next one needs its own; the count is the gateway's.
        failed = sum(refund.is_void for refund in refunds)
        key = f"{idempotency_key}-{left_cents}-after-{failed}"
        params: Any = {
            "payment_intent": intent_id,
            "amount": left_cents,
            "metadata": {"order_id": str(order_id)},
        }
        try:
            made = post(
                key, lambda client, options: answers.refund(client.v1.refunds.create(params, options))
            )
        except UnexpectedState as error:
            raise GatewayBusy(f"{intent_id} was refunded by somebody else just now: {error}", 1.0) from None
        return Refunded(made.id, made.status, given.amount_cents + made.amount_cents)

    @classmethod
    def given_back(cls, intent_id: str) -> Refunded:
        """What was given back of this intent so far, by us or by hand; asks for nothing."""
        return _given(read(partial(cls._refunds_of, intent_id)))

    @classmethod
    def _page_of_intents(cls, params: Any) -> tuple[list[Intent], bool]:
        return call(lambda client: answers.page(client.v1.payment_intents.list(params), answers.intent))

    @classmethod
    def _create(
        cls, customer_id: int, total_cents: int, currency: str, payment_method: str, key: str
    ) -> Intent:
        metadata = {"customer_id": str(customer_id)}
        if key.startswith(_ORDER_KEY):
            metadata["order_id"] = key.removeprefix(_ORDER_KEY)
        params: Any = {
            "amount": total_cents,
            "currency": currency.lower(),
            "payment_method": payment_method,
            "payment_method_types": ["card"],
            "metadata": metadata,
        }
        with _refusal_is_final():
            return post(
                key, lambda client, options: answers.intent(client.v1.payment_intents.create(params, options))
            )

    @classmethod
    def _confirm(cls, intent_id: str, payment_method: str) -> Intent:
        params: Any = {"payment_method": payment_method}
        try:
            with _refusal_is_final():
                return post(
                    f"{intent_id}-confirm",
                    lambda client, options: answers.intent(
                        client.v1.payment_intents.confirm(intent_id, params, options)
                    ),
                )
        except UnexpectedState as error:
            # An earlier run whose answer was lost, or a cancellation, has changed it: only the intent says how.
            intent = cls.retrieve(intent_id)
            if intent.is_confirmable:
                # Still not confirmed: it lacks something that another try will not add, such as a payment method.
                raise ChargeRefused(str(error), "payment_method") from None
            return intent

    @classmethod
    def _outcome(cls, intent: Intent) -> Charge:
        if intent.status == "succeeded":
            return Charge(intent.id, intent.status, intent.captured_cents, intent.currency)
        if intent.status == "canceled":
            raise CardDeclined(f"{intent.id} was cancelled", "canceled")
        if intent.status == "requires_action":
            # There is no customer at the screen to answer the bank's question. Left open, it could be answered after the order
            # failed.
            cls._cancel(intent.id)
            raise CardDeclined(f"{intent.id} needs the customer's authentication", "authentication_required")
        if intent.decline_code:
            raise CardDeclined(f"{intent.id} was declined: {intent.decline_code}", intent.decline_code)
        raise GatewayUnavailable(f"{intent.id} is {intent.status}: not known yet whether it will be captured")

    @classmethod
    def _void(cls, intent: Intent) -> Refunded:
        if intent.status == "processing":
            raise GatewayBusy(f"{intent.id} is processing: it can be refunded when it has been captured")
        if intent.status != "canceled":
            cls._cancel(intent.id)
        return Refunded("", VOIDED, 0)

    @classmethod
    def _cancel(cls, intent_id: str) -> None:
        try:
            post(
                f"{intent_id}-cancel",
                lambda client, options: answers.intent(
                    client.v1.payment_intents.cancel(intent_id, {}, options)
                ),
            )
        except UnexpectedState as error:
            # It was captured or cancelled in this moment; the next run retrieves it and decides.
            raise GatewayBusy(f"{intent_id} moved on while it was being cancelled: {error}", 1.0) from None

    @classmethod
    def _refunds_of(cls, intent_id: str) -> list[RefundAnswer]:
        """Newest first. One page: a hundred refunds of one intent do not happen here, and are refused."""
        params: Any = {"payment_intent": intent_id, "limit": 100}
        found, more = call(lambda client: answers.page(client.v1.refunds.list(params), answers.refund))
        if more:
            raise InvalidRequest(f"{intent_id} has more than 100 refunds: a person must decide")
        return found


@contextmanager
def _refusal_is_final() -> Iterator[None]:
    """Around the calls that lead to a capture: a 400 to one of them means that there was none and will be none.

    As a dead letter the order would stay in processing, with its stock reserved, until a person looked, who could do
    nothing about it. A refusal that is our fault, such as a wrong API key or an unknown id, is not of this kind.
    """
    try:
        yield
    except RequestRefused as error:
        raise ChargeRefused(str(error), error.code) from None


def _given(refunds: list[RefundAnswer]) -> Refunded:
    valid = [refund for refund in refunds if not refund.is_void]
    last = valid[0] if valid else RefundAnswer("", VOIDED, 0)
    return Refunded(last.id, last.status, sum(refund.amount_cents for refund in valid))
