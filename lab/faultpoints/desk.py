"""The dead-letter desk: what an operator does there."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db import connection

import outbox
from lab.faultpoints.environment import Environment, model
from lab.faultpoints.scenario import (
    Scenario,
    State,
    drop_fan_out,
    message,
    place,
    processed,
    run,
    staged,
    waived_without,
)


def _dead(message_id: UUID) -> int:
    """Make the message a dead letter; returns its id."""
    from outbox import dead_lettering

    failure = dead_lettering.Failure("seeded", RuntimeError("seeded"))
    assert dead_lettering.dead_letter_worker_failure(message_id, 1, failure, worker=None)
    return int(model("dlq.DeadLetter").objects.get(message_id=str(message_id)).pk)


def _dead_order(environment: Environment) -> State:
    place()
    return {"dead_letter": _dead(staged("orders.tasks.process_order"))}


def _dead_head(environment: Environment) -> State:
    """A dead head of an ordered group, and one that waits behind it."""
    for _ in range(2):
        processed(environment)
    for _ in range(2):
        run(environment, "webhooks.tasks.publish_event")
    drop_fan_out()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE outbox_outboxmessage SET passes_over_dead = false")
    return {"dead_letter": _dead(staged("webhooks.tasks.deliver"))}


def _replay(environment: Environment, state: State) -> None:
    from dlq import replay

    replay.replay(state["dead_letter"], actor="operator")


def _replay_unless_done(environment: Environment, state: State) -> None:
    from dlq import replay

    # The operator looks first, and the desk refuses a dead letter that is not open.
    if model("dlq.DeadLetter").objects.get(pk=state["dead_letter"]).state == "open":
        replay.replay(state["dead_letter"], actor="operator")


def _replay_as_a_second_operator(environment: Environment, state: State) -> None:
    from dlq import replay

    try:
        replay.replay(state["dead_letter"], actor="another operator")
    except replay.NotReplayable:
        state["refused"] = True


def _is_resolved(environment: Environment, state: State) -> str:
    dead_letter = model("dlq.DeadLetter").objects.get(pk=state["dead_letter"])
    replays = dead_letter.events.filter(what="replayed").count()
    row = model("outbox.OutboxMessage").objects.get(message_id=dead_letter.message_id)
    holds = dead_letter.state == "resolved" and replays == row.replays == 1
    return (
        ""
        if holds
        else f"dead letter {dead_letter.state}, replayed {replays} times, its message {row.replays} times"
    )


def _discard(environment: Environment, state: State) -> None:
    from dlq import replay

    replay.discard(state["dead_letter"], reason="of no use any more", actor="operator")


def _discard_unless_done(environment: Environment, state: State) -> None:
    if model("dlq.DeadLetter").objects.get(pk=state["dead_letter"]).state == "open":
        _discard(environment, state)


def _is_discarded(environment: Environment, state: State) -> str:
    dead_letter = model("dlq.DeadLetter").objects.get(pk=state["dead_letter"])
    row = model("outbox.OutboxMessage").objects.get(message_id=dead_letter.message_id)
    return (
        ""
        if dead_letter.state == "discarded" and row.status == "cancelled"
        else f"dead letter {dead_letter.state}, message {row.status}"
    )


def _misspelt_order(environment: Environment) -> State:
    """A dead letter of an order that there is not, and the order that was meant."""
    place()
    message_id = staged("orders.tasks.process_order")
    row = model("outbox.OutboxMessage").objects.get(message_id=message_id)
    order_id = row.kwargs["order_id"]
    row.kwargs["order_id"] = 0
    row.save(update_fields=["kwargs"])
    return {"dead_letter": _dead(message_id), "order": order_id}


def _edit(environment: Environment, state: State) -> None:
    from dlq.operations.edit import edit

    edit(state["dead_letter"], {"order_id": state["order"]}, actor="operator")


def _edit_unless_done(environment: Environment, state: State) -> None:
    if model("dlq.DeadLetter").objects.get(pk=state["dead_letter"]).state == "open":
        _edit(environment, state)


def _edit_as_a_second_operator(environment: Environment, state: State) -> None:
    from dlq.replay import NotReplayable

    try:
        _edit(environment, state)
    except NotReplayable:
        state["refused"] = True


def _is_resolved_by_its_copy(environment: Environment, state: State) -> str:
    dead_letter = model("dlq.DeadLetter").objects.get(pk=state["dead_letter"])
    found = model("outbox.OutboxMessage").objects.filter(task="orders.tasks.process_order").order_by("id")
    rows = [(str(row.message_id), row.status, row.kwargs["order_id"]) for row in found]
    expected = [
        (dead_letter.message_id, "cancelled", 0),
        (dead_letter.edited_as, "done", state["order"]),
    ]
    return (
        ""
        if dead_letter.state == "resolved" and rows == expected
        else f"dead letter {dead_letter.state}, messages {rows}"
    )


def _silent(environment: Environment) -> Any:
    """A dead letter that was sent again long ago, and the message that asks for such."""
    from dlq.queue import DeadLetterQueue
    from dlq.unanswered import reopen

    DeadLetterQueue.add("lost", "orders", {}, "seeded")
    model("dlq.DeadLetter").objects.update(state="replaying", replayed_at="2001-01-01T00:00:00Z")
    return outbox.enqueue(reopen.s()), {}


def _is_open_and_says_so_once(environment: Environment, state: State) -> str:
    dead_letter = model("dlq.DeadLetter").objects.get(message_id="lost")
    said = dead_letter.events.filter(what="returned").count()
    return (
        ""
        if (dead_letter.state, said) == ("open", 1)
        else f"dead letter {dead_letter.state}, and said {said} times"
    )


def _operation(environment: Environment) -> Any:
    """A replay of one dead letter, confirmed, and the message that drives it."""
    from dlq.operations import control, selection

    state = _dead_order(environment)
    chosen = model("dlq.DeadLetter").objects.filter(pk=state["dead_letter"])
    operation = control.start(selection.draft("replay", chosen, actor="operator"), actor="operator")
    return staged("dlq.operations.driver.advance"), {**state, "operation": operation.pk}


def _is_resolved_by_its_operation(environment: Environment, state: State) -> str:
    operation = model("dlq.Operation").objects.get(pk=state["operation"])
    outcomes = list(operation.items.values_list("outcome", flat=True))
    holds = (operation.state, outcomes) == ("done", ["succeeded"])
    return _is_resolved(environment, state) or (
        "" if holds else f"operation {operation.state}, items {outcomes}"
    )


_DISCARDED: dict[str, Any] = {
    **waived_without(),
    "no delivery is open": "its message was discarded by an operator",
    "webhooks arrive as recorded": "the discarded one never arrives",
    "one webhook per (event, merchant), signature valid": "the discarded one is in neither ledger",
}

DESK: tuple[Scenario, ...] = (
    Scenario("replay", "replay", _dead_order, _replay, again=_replay_unless_done, duplicate=_replay_as_a_second_operator,
             proves=_is_resolved, refusals=("NotReplayable",)),
    Scenario("edit", "edit", _misspelt_order, _edit, again=_edit_unless_done, duplicate=_edit_as_a_second_operator,
             proves=_is_resolved_by_its_copy, refusals=("NotReplayable",)),
    Scenario("discard", "discard", _dead_head, _discard, again=_discard_unless_done, proves=_is_discarded,
             waived=_DISCARDED, refusals=("NotDiscardable",)),
    message("operation", "dlq.operations.driver.advance", _operation, proves=_is_resolved_by_its_operation),
    message("reopen_silent", "dlq.unanswered.reopen", _silent, proves=_is_open_and_says_so_once,
            waived={"no dead letter": "it is what there is to be"}),
)  # fmt: skip
