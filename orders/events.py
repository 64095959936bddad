"""Announcing what happened to an order: each event becomes the messages that `OUTBOX_EVENTS` names for it.

The only module of orders/ that another app needs in order to start something: none of them imports the tasks.
"""

import outbox


def announce(event: str, order_id: int, *, customer_id: int | None = None) -> None:
    """Emit an event of the order, in the caller's transaction, findable by the order's correlation id.

    `customer_id`: given for an event that the customer's own systems are told. Its tasks get the event's name, and those
    that are `ordered` run in the order of that customer's events; everything else that follows from it waits for nothing.
    Raises EnqueueError for an event that `OUTBOX_EVENTS` does not have.
    """
    told = {} if customer_id is None else {"event": event}
    outbox.emit(
        event,
        ordering_key="" if customer_id is None else f"customer-{customer_id}",
        correlation_id=correlation_id(order_id),
        order_id=order_id,
        **told,
    )


def correlation_id(order_id: int | str) -> str:
    """What every message of one order carries, so that its journey can be looked up."""
    return f"order-{order_id}"
