"""What a scenario is, and how the one of a message is made from its first state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import connection

from lab.faultpoints.environment import Environment, model
from lab.faultpoints.environment import State as State


def _nothing(environment: Environment, state: State) -> None:
    """The caller does not come back: what was begun must be ended by the system itself."""


def _proven(environment: Environment, state: State) -> str:
    return ""


@dataclass(frozen=True)
class Scenario:
    """One thing that may be cut off at any I/O.

    `covers`: a task's name, `METHOD /path` of an endpoint, or the name of a pass. `start` makes the first state
    (never cut off), `act` is what is explored, `again` is what its caller does after a crash: the client
    that got no answer repeats its request. `duplicate` is a second one that does the same at once. `proves` returns what
    does not hold besides the invariants, '' if all holds. `waived`: invariant -> why it does not apply. `refusals`: names of the
    exceptions by which the product rightly says no to the slower of two.
    """

    name: str
    covers: str
    start: Callable[[Environment], State]
    act: Callable[[Environment, State], None]
    again: Callable[[Environment, State], None] = _nothing
    duplicate: Callable[[Environment, State], None] | None = None
    proves: Callable[[Environment, State], str] = _proven
    waived: dict[str, str] = field(default_factory=dict)
    refusals: tuple[str, ...] = ()


def message(
    name: str,
    task: str,
    stage: Callable[[Environment], Any],
    *,
    calm: bool = False,
    faults: dict[str, Any] | None = None,
    proves: Callable[[Environment, State], str] = _proven,
    waived: dict[str, str] | None = None,
) -> Scenario:
    """The delivery of one message: `stage` returns its id (or a pair of id and more state for `proves`)."""

    def start(environment: Environment) -> State:
        staged = stage(environment)
        message_id, more = staged if isinstance(staged, tuple) else (staged, {})
        queue = publish_only(environment, message_id)
        raw = environment.processes.peek(queue)
        if faults:
            environment.sandbox.set_faults(faults)
        return {"queue": queue, "raw": raw, **more}

    def act(environment: Environment, state: State) -> None:
        environment.processes.take(state["queue"])

    def again(environment: Environment, state: State) -> None:
        if faults:
            environment.sandbox.set_faults({})

    def duplicate(environment: Environment, state: State) -> None:
        environment.processes.put(state["queue"], state["raw"])
        environment.processes.take(state["queue"])

    return Scenario(name, task, start, act, again, duplicate, proves, waived or {})


def publish_only(environment: Environment, message_id: UUID) -> str:
    """Have the broker hold this message and no other; what else is due waits. Returns its queue."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE outbox_outboxmessage SET status = 'scheduled', deliver_at = clock_timestamp() + interval '1 hour'"
            " WHERE status = 'pending' AND message_id <> %s",
            [message_id],
        )
        cursor.execute(
            "UPDATE outbox_outboxmessage SET status = 'pending' WHERE status = 'scheduled' AND message_id = %s",
            [message_id],
        )
    environment.processes.relay.run_once()
    row = model("outbox.OutboxMessage").objects.get(message_id=message_id)
    assert row.status == "published", f"{row} was not published"
    return str(row.queue)


def staged(task: str, **kwargs: Any) -> UUID:
    """The id of the oldest open message of a task."""
    row = (
        model("outbox.OutboxMessage").objects.filter(task=task, done_at=None, **kwargs).order_by("id").first()
    )
    assert row is not None, f"no message of {task} is staged"
    return UUID(str(row.message_id))


def place(card: str = "pm_card_visa", customer_id: int = 1) -> Any:
    """An order of two products, placed."""
    from orders.services import place_order

    return place_order(
        customer_id=customer_id, currency="usd", payment_method=card, lines=[("WIDGET", 2), ("GIZMO", 1)]
    )


def processed(environment: Environment) -> Any:
    """An order that is confirmed and completed, with everything that follows from its completion still to be done."""
    order = place()
    run(environment, "orders.tasks.send_confirmation")
    queue = publish_only(environment, staged("orders.tasks.process_order", kwargs={"order_id": order.pk}))
    environment.processes.take(queue)
    order.refresh_from_db()
    assert order.status == "completed", order
    return order


#: What follows from a completed order, and the promise about it that the ledgers can judge.
FAN_OUT = {
    "orders.tasks.send_receipt": ("one receipt (Message-ID) per completed order",),
    "payments.tasks.create_invoice": ("one invoice per completed order",),
    "orders.tasks.update_inventory": ("units shipped, none still reserved",),
    "orders.tasks.notify_warehouse": (
        "one shipment per completed order",
        "units shipped, none still reserved",
    ),
    "orders.tasks.sync_to_crm": ("one CRM record per completed order",),
    "orders.tasks.track_analytics": (),
    "webhooks.tasks.publish_event": ("one delivery per end of an order and subscription",),
}
ALONE = "process_order explores the whole fan-out; here the message is alone"


def drop_fan_out(*, but: str = "") -> None:
    """Remove what follows from completed orders, except for one task: the others have scenarios of their own."""
    model("outbox.OutboxMessage").objects.filter(task__in=set(FAN_OUT) - {but}, done_at=None).delete()


def waived_without(*kept: str) -> dict[str, str]:
    """The promises that cannot hold when only the `kept` tasks of the fan-out run."""
    judged = {
        promise for task in kept for promise in FAN_OUT[task] if task != "orders.tasks.notify_warehouse"
    }
    judged |= {"one shipment per completed order"} if "orders.tasks.notify_warehouse" in kept else set()
    judged -= {"units shipped, none still reserved"}  # is about two tasks
    return {promise: ALONE for promises in FAN_OUT.values() for promise in promises if promise not in judged}


def run(environment: Environment, task: str) -> None:
    """Run the oldest open message of a task."""
    environment.processes.take(publish_only(environment, staged(task)))
