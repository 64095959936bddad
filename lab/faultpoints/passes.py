"""Passes of the processes around the tasks: relay, rescuer, beat, and the worker's parent."""

from __future__ import annotations

import os
from typing import Any

from django.conf import settings
from django.db import connection
from django.test import override_settings

from lab.faultpoints.environment import World, model
from lab.faultpoints.scenario import (
    Scenario,
    State,
    drop_fan_out,
    place,
    processed,
    publish_only,
    run,
    staged,
    waived_without,
)


def _backlog(world: World) -> State:
    """Pending in several queues, scheduled and due, and a group whose head must be promoted."""
    processed(world)
    run(world, "webhooks.tasks.publish_event")
    place(
        "pm_card_visa_chargeDeclined", customer_id=2
    )  # What follows from a paid order is staged once already.
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE outbox_outboxmessage SET deliver_at = clock_timestamp() WHERE status = 'scheduled'"
        )
    return {}


def _relay_pass(world: World, state: State) -> None:
    # Small batches and a small depth limit, so that the pass meets the valve.
    with override_settings(OUTBOX_DEPTH_LIMIT=3):
        world.floor.relay.run_once()


def _no_queue_is_too_deep(world: World, state: State) -> str:
    return state.get("too_deep", "")


def _look_at_the_depths(world: World, state: State) -> None:
    if state.get("strike") == "pair":
        return  # Killed since, the relay of the recovery has filled the queues up to its own limit.
    depths = world.floor.publisher.depths(settings.OUTBOX_QUEUES)
    # Of two relays at once each may add what it saw as room.
    limit = 6 if state.get("strike") in ("rival", "frozen") else 3
    if deep := {queue: depth for queue, depth in depths.items() if depth > limit}:
        state["too_deep"] = f"depths {deep}"


def _losses(world: World) -> State:
    """A message that a run began and left, one whose worker is gone, one that the broker lost, and workers that are gone."""
    order = processed(world)
    run(world, "webhooks.tasks.publish_event")
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE outbox_outboxmessage SET deliver_at = clock_timestamp() WHERE status = 'scheduled'"
        )
    world.floor.relay.run_once()
    world.floor.forget_everything()
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE outbox_outboxmessage SET started_at = clock_timestamp() - interval '1 hour',"
            " lease_token = gen_random_uuid(), lease_until = clock_timestamp() - interval '1 minute',"
            " deliveries = 1 WHERE task = 'orders.tasks.send_receipt'"
        )
        cursor.execute(
            "UPDATE outbox_outboxmessage SET started_at = clock_timestamp() - interval '1 hour',"
            " lease_token = gen_random_uuid(), lease_until = clock_timestamp() + interval '1 hour',"
            " deliveries = 1, worker = gen_random_uuid() || ':1' WHERE task = 'orders.tasks.sync_to_crm'"
        )
        cursor.execute(
            "UPDATE outbox_outboxmessage SET published_at = published_at - interval '1 hour' WHERE status = 'published'"
        )
        cursor.execute(
            "INSERT INTO outbox_worker (incarnation, hostname, pid, beat_at)"
            " VALUES (gen_random_uuid(), 'gone', 1, clock_timestamp() - interval '1 hour')"
        )
    return {"order_id": order.pk}


def _rescue(world: World, state: State) -> None:
    world.floor.rescuer._seeing_since -= 3_600  # A new one does not judge by heartbeats yet.
    world.floor.rescuer.run_once()


def _cursors() -> dict[str, Any]:
    return dict(model("outbox.Schedule").objects.values_list("name", "next_at"))


def _slots(world: World) -> State:
    """Beat was away for forty minutes."""
    _beat(world, {})
    model("outbox.OutboxMessage").objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE outbox_schedule SET next_at = next_at - interval '40 minutes'")
    return {"cursors": _cursors()}


def _beat(world: World, state: State) -> None:
    from config.celery import app
    from outbox.scheduler import Scheduler

    Scheduler(app=app, lazy=False).run_once()


def _each_slot_once(world: World, state: State) -> str:
    for name, entry in settings.CELERY_BEAT_SCHEDULE.items():
        slots = round((_cursors()[name] - state["cursors"][name]).total_seconds() / entry["schedule"])
        messages = model("outbox.OutboxMessage").objects.filter(task=entry["task"]).count()
        if messages != slots:
            return f"{name}: {slots} slots, {messages} messages"
    return ""


def _lost_child(world: World) -> State:
    """A run began, and its process died: the worker's parent is about to say so."""
    place()
    message_id = staged("orders.tasks.process_order")
    publish_only(world, message_id)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE outbox_outboxmessage SET started_at = clock_timestamp(), lease_token = gen_random_uuid(),"
            " lease_until = clock_timestamp() + interval '1 hour', deliveries = 1 WHERE message_id = %s",
            [message_id],
        )
    return {"message_id": str(message_id)}


def _tell_of_the_lost_child(world: World, state: State) -> None:
    from outbox.worker_failure import worker_failure

    worker_failure(
        message_id=state["message_id"],
        generation=1,
        exception=None,
        error="WorkerLostError",
        traceback="",
        lost=True,
        pid=os.getpid(),
    )


def _about_to_be_processed(world: World) -> State:
    order = place()
    return {"order_id": order.pk, "queue": publish_only(world, staged("orders.tasks.process_order"))}


def _process(world: World, state: State) -> None:
    world.floor.take(state["queue"])


def _cancel(world: World, state: State) -> None:
    from orders.services import cancel_order

    cancel_order(order_id=state["order_id"])


def _two_webhooks(world: World) -> State:
    """Two events for one customer: the first is about to be posted, the second waits behind it."""
    for _ in range(2):
        processed(world)
    for _ in range(2):
        run(world, "webhooks.tasks.publish_event")
    drop_fan_out()
    return {"queue": publish_only(world, staged("webhooks.tasks.deliver"))}


def _two_events(world: World) -> State:
    """Two events of one order: the first is about to be published, the second waits behind it."""
    from orders.services import cancel_order

    order = processed(world)
    cancel_order(order_id=order.pk)
    drop_fan_out(but="webhooks.tasks.publish_event")
    return {"queue": publish_only(world, staged("webhooks.tasks.publish_event"))}


def _whatever_is_due(world: World, state: State) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE outbox_outboxmessage SET deliver_at = clock_timestamp() WHERE status = 'scheduled'"
        )
    world.floor.relay.run_once()
    while world.floor.take(state["queue"]):
        pass


PASSES: tuple[Scenario, ...] = (
    Scenario("relay", "relay pass", _backlog, _relay_pass, again=_look_at_the_depths, rival=_relay_pass,
             proves=_no_queue_is_too_deep),
    Scenario("rescuer", "rescuer pass", _losses, _rescue, rival=_rescue),
    Scenario("beat", "beat pass", _slots, _beat, again=_beat, rival=_beat, proves=_each_slot_once,
             waived={"nothing is enqueued twice": "each slot has a message of the same task"}),
    # The customer cancels while the order is being charged.
    Scenario("process_while_cancelled", "cancellation", _about_to_be_processed, _process, rival=_cancel,
             waived=waived_without(), refusals=("CannotCancel",)),
    # Another worker runs whatever else may run, while the first webhook is on its way.
    Scenario("deliver_in_order", "ordered group", _two_webhooks, _process, rival=_whatever_is_due,
             waived=waived_without()),
    Scenario("publish_in_order", "ordered group", _two_events, _process, rival=_whatever_is_due,
             waived=waived_without()),
    Scenario("lost_child", "worker's parent", _lost_child, _tell_of_the_lost_child, rival=_tell_of_the_lost_child),
)  # fmt: skip
