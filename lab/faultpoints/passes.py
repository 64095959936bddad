"""Passes of the processes around the tasks: relay, rescuer, beat, and the worker's parent."""

from __future__ import annotations

import os
from typing import Any

from django.conf import settings
from django.db import connection
from django.test import override_settings

import outbox
from lab.faultpoints.environment import Environment, model
from lab.faultpoints.runs import rows
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
from lab.faultpoints.witness import once


def _backlog(environment: Environment) -> State:
    """Pending in several queues, scheduled and due, and a group whose head must be promoted."""
    processed(environment)
    run(environment, "webhooks.tasks.publish_event")
    place(
        "pm_card_visa_chargeDeclined", customer_id=2
    )  # What follows from a paid order is staged once already.
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE outbox_outboxmessage SET deliver_at = clock_timestamp() WHERE status = 'scheduled'"
        )
    return {}


def _relay_pass(environment: Environment, state: State) -> None:
    # Small batches and a small depth limit, so that the pass meets the valve.
    with override_settings(OUTBOX_DEPTH_LIMIT=3):
        environment.processes.relay.run_once()


def _no_queue_is_too_deep(environment: Environment, state: State) -> str:
    return state.get("too_deep", "")


def _look_at_the_depths(environment: Environment, state: State) -> None:
    if state.get("strike") == "pair":
        return  # Killed since, the relay of the recovery has filled the queues up to its own limit.
    depths = environment.processes.publisher.depths(settings.OUTBOX_QUEUES)
    # Of two relays at once each may add what it saw as room.
    limit = 6 if state.get("strike") in ("duplicate", "frozen") else 3
    if deep := {queue: depth for queue, depth in depths.items() if depth > limit}:
        state["too_deep"] = f"depths {deep}"


def _losses(environment: Environment) -> State:
    """A message that a run began and left, one whose worker is gone, one that the broker lost, and workers that are gone."""
    order = processed(environment)
    run(environment, "webhooks.tasks.publish_event")
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE outbox_outboxmessage SET deliver_at = clock_timestamp() WHERE status = 'scheduled'"
        )
    environment.processes.relay.run_once()
    environment.processes.forget_everything()
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


def _rescue(environment: Environment, state: State) -> None:
    environment.processes.rescuer._seeing_since -= 3_600  # A new one does not judge by heartbeats yet.
    environment.processes.rescuer.run_once()


def _cursors() -> dict[str, Any]:
    return dict(model("outbox.Schedule").objects.values_list("name", "next_at"))


def _ticks(environment: Environment) -> State:
    """Beat was down for forty minutes."""
    _beat(environment, {})
    model("outbox.OutboxMessage").objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE outbox_schedule SET next_at = next_at - interval '40 minutes'")
    return {"cursors": _cursors()}


def _beat(environment: Environment, state: State) -> None:
    from config.celery import app
    from outbox.scheduler import Scheduler

    Scheduler(app=app, lazy=False).run_once()


def _each_tick_once(environment: Environment, state: State) -> str:
    for name, entry in settings.CELERY_BEAT_SCHEDULE.items():
        ticks = round((_cursors()[name] - state["cursors"][name]).total_seconds() / entry["schedule"])
        messages = model("outbox.OutboxMessage").objects.filter(task=entry["task"]).count()
        if messages != ticks:
            return f"{name}: {ticks} ticks, {messages} messages"
    return ""


def _lost_child(environment: Environment) -> State:
    """A run began, and its process died: the worker's parent is about to say so."""
    place()
    message_id = staged("orders.tasks.process_order")
    publish_only(environment, message_id)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE outbox_outboxmessage SET started_at = clock_timestamp(), lease_token = gen_random_uuid(),"
            " lease_until = clock_timestamp() + interval '1 hour', deliveries = 1 WHERE message_id = %s",
            [message_id],
        )
    return {"message_id": str(message_id)}


def _tell_of_the_lost_child(environment: Environment, state: State) -> None:
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


def _about_to_be_processed(environment: Environment) -> State:
    order = place()
    return {"order_id": order.pk, "queue": publish_only(environment, staged("orders.tasks.process_order"))}


def _process(environment: Environment, state: State) -> None:
    environment.processes.take(state["queue"])


def _cancel(environment: Environment, state: State) -> None:
    from orders.services import cancel_order

    cancel_order(order_id=state["order_id"])


def _two_webhooks(environment: Environment) -> State:
    """Two events for one customer: the first is about to be posted, the second waits behind it."""
    for _ in range(2):
        processed(environment)
    for _ in range(2):
        run(environment, "webhooks.tasks.publish_event")
    drop_fan_out()
    return {"queue": publish_only(environment, staged("webhooks.tasks.deliver"))}


def _two_events(environment: Environment) -> State:
    """Two events of one order: the first is about to be published, the second waits behind it."""
    from orders.services import cancel_order

    order = processed(environment)
    cancel_order(order_id=order.pk)
    drop_fan_out(but="webhooks.tasks.publish_event")
    return {"queue": publish_only(environment, staged("webhooks.tasks.publish_event"))}


def _whatever_is_due(environment: Environment, state: State) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE outbox_outboxmessage SET deliver_at = clock_timestamp() WHERE status = 'scheduled'"
        )
    environment.processes.relay.run_once()
    while environment.processes.take(state["queue"]):
        pass


def _two_of_a_task(environment: Environment) -> State:
    for _ in range(2):
        outbox.enqueue(once.s())
    return {}


def _pause(environment: Environment, state: State) -> None:
    from outbox import pausing

    pausing.pause_task(once.name, actor="operator")
    environment.processes.relay.run_once()


def _two_set_aside(environment: Environment) -> State:
    _two_of_a_task(environment)
    _pause(environment, {})
    return {}


def _resume(environment: Environment, state: State) -> None:
    from outbox import pausing

    pausing.resume_task(once.name)
    environment.processes.relay.run_once()


def _look_and_resume(environment: Environment, state: State) -> None:
    is_paused = model("outbox.PausedTask").objects.exclude(paused_by="").exists()
    # Of two at once the other may have published before the pause, or after its end.
    if is_paused and state.get("strike") not in ("duplicate", "frozen"):
        state["published"] = model("outbox.OutboxMessage").objects.filter(publish_count__gt=0).count()
    _resume(environment, state)


def _each_runs_once_and_none_while_paused(environment: Environment, state: State) -> str:
    runs, published = len(rows("once")), state.get("published", 0)
    return "" if (runs, published) == (2, 0) else f"{runs} runs, {published} published while paused"


_ALIKE = {"nothing is enqueued twice": "two messages of one task are the question"}

PASSES: tuple[Scenario, ...] = (
    Scenario("relay", "relay pass", _backlog, _relay_pass, again=_look_at_the_depths, duplicate=_relay_pass,
             proves=_no_queue_is_too_deep),
    Scenario("rescuer", "rescuer pass", _losses, _rescue, duplicate=_rescue),
    Scenario("beat", "beat pass", _ticks, _beat, again=_beat, duplicate=_beat, proves=_each_tick_once,
             waived={"nothing is enqueued twice": "each tick has a message of the same task"}),
    # The customer cancels while the order is being charged.
    Scenario("process_while_cancelled", "cancellation", _about_to_be_processed, _process, duplicate=_cancel,
             waived=waived_without(), refusals=("CannotCancel",)),
    # Another worker runs whatever else may run, while the first webhook is on its way.
    Scenario("deliver_in_order", "ordered group", _two_webhooks, _process, duplicate=_whatever_is_due,
             waived=waived_without()),
    Scenario("publish_in_order", "ordered group", _two_events, _process, duplicate=_whatever_is_due,
             waived=waived_without()),
    # Another relay makes a pass at any moment of it.
    Scenario("pause_task", "pause of a task", _two_of_a_task, _pause, again=_look_and_resume, duplicate=_relay_pass,
             proves=_each_runs_once_and_none_while_paused, waived=_ALIKE),
    Scenario("resume_task", "resume of a task", _two_set_aside, _resume, again=_look_and_resume, duplicate=_relay_pass,
             proves=_each_runs_once_and_none_while_paused, waived=_ALIKE),
    Scenario("lost_child", "worker's parent", _lost_child, _tell_of_the_lost_child, duplicate=_tell_of_the_lost_child),
)  # fmt: skip
