"""Processing an order: claim it, charge outside of any transaction, and complete it in one."""

import logging
from functools import partial
from typing import TypedDict
from uuid import uuid4

import outbox
from orders import lifecycle
from orders.models import Order
from payments.gateway import CardDeclined, ChargeRefused, PaymentGateway

logger = logging.getLogger(__name__)

Status = Order.Status


class Outcome(TypedDict):
    """`status`: completed or failed by this call; already_processed, cancelled or in_progress by another one."""

    status: str
    order_id: int


class OrderService:
    """Order processing under the name that callers know it by."""

    @staticmethod
    def process(order_id: int) -> Outcome:
        """Charge and complete the order, once, however often and wherever this is called at the same time.

        Takes its argument by position too: a dead letter may hold a job's arguments as a list.

        A declined card is an outcome (`failed`), not an error. Raises what the gateway raises when it cannot
        say whether it charged (the claim is released, call again), and Order.DoesNotExist.
        """
        message = outbox.current()
        owner = str(message.message_id) if message else f"call-{uuid4()}"
        order = lifecycle.claim(order_id=order_id, owner=owner)
        if order is None:
            return _standing(order_id)
        try:
            payment = PaymentGateway.charge(
                order.customer_id,
                order.total_cents,
                currency=order.currency,
                payment_method=order.payment_method,
                # One key for the life of the order: charging it again returns the first charge.
                idempotency_key=f"order-{order.pk}",
                payment_intent_id=order.payment_intent_id,
                on_created=partial(lifecycle.keep_intent, order),
            )
        except CardDeclined as error:
            if lifecycle.fail(order, reason=_reason(order_id, error)):
                return Outcome(status=Status.FAILED.value, order_id=order_id)
            return _standing(order_id)
        except Exception:
            if lifecycle.release(order):
                raise
            # Cancelled or taken over meanwhile: what the charge said is no longer ours to report.
            logger.warning(
                "order %s was taken over by another run during its charge", order_id, exc_info=True
            )
            return _standing(order_id)
        if lifecycle.complete(order, payment_id=payment.id):
            return Outcome(status=Status.COMPLETED.value, order_id=order_id)
        # Charged, but the order is no longer ours. If it will not be delivered, the money goes back.
        lifecycle.request_refund(order_id=order_id, payment_id=payment.id)
        return _standing(order_id)


def _reason(order_id: int, error: CardDeclined) -> str:
    """Why the order failed, in words that its customer may read."""
    if not isinstance(error, ChargeRefused):
        return str(error)
    # Placement should have refused it, or we ask in a wrong way: what the gateway says then is for developers.
    logger.warning("order %s: the gateway refuses the charge: %s", order_id, error)
    return f"The payment provider does not accept this charge: {error.decline_code or 'invalid request'}."


def _standing(order_id: int) -> Outcome:
    """What has become of an order that is not ours to process."""
    order = Order.objects.get(pk=order_id)
    if order.status == Status.CANCELLED:
        if order.payment_intent_id and not order.payment_id:
            # Its holder at the time of the cancellation may have charged it and died before recording that.
            lifecycle.request_refund(order_id=order_id)
        return Outcome(status=Status.CANCELLED.value, order_id=order_id)
    done = order.status in (Status.COMPLETED, Status.FAILED)
    return Outcome(status="already_processed" if done else "in_progress", order_id=order_id)
