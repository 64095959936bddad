"""The checks of a chaos run must be able to fail: each kind of violation breaks the check that it belongs to, by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lab.invariants import (
    ClientRequest,
    DeadLetterLine,
    Ledgers,
    MessageLine,
    Movement,
    OrderLine,
    Sample,
    Shelf,
    check_chaos,
)
from lab.invariants.messages import AT_ACCEPTANCE, AT_COMPLETION, AT_EVERY_END

COMPLETED = OrderLine(
    1, "completed", "usd", 500, 1, (("WIDGET", 2),), tag="a", fence=2, is_shipped=True,
    moves=(("", "pending"), ("pending", "processing"), ("processing", "processing"), ("processing", "completed")),
)  # fmt: skip
UNDONE = OrderLine(
    2, "cancelled", "eur", 900, 1, (("WIDGET", 1),), tag="b", fence=2, is_shipped=True,
    moves=(("", "pending"), ("pending", "processing"), ("processing", "completed"), ("completed", "cancelled")),
)  # fmt: skip
DECLINED = OrderLine(
    3, "failed", "usd", 700, 0, (("WIDGET", 1),), tag="c", fence=1,
    moves=(("", "pending"), ("pending", "processing"), ("processing", "failed")),
)  # fmt: skip


def message(task: str, order_id: int, number: int, **changes: Any) -> MessageLine:
    line = MessageLine(f"m-{order_id}-{number}", task, "done", f"order-{order_id}", 1, 1, 0, False)
    return replace(line, **changes)


def messages_of(order: OrderLine, ends: int) -> list[MessageLine]:
    tasks = [*AT_ACCEPTANCE, *(AT_COMPLETION if order.was_completed else ()), *[AT_EVERY_END] * ends]
    return [message(task, order.id, number) for number, task in enumerate(tasks)]


DEAD_ONCE = message("webhooks.tasks.deliver", 1, 90, generation=3, replays=1)
TICKS = [
    MessageLine(
        f"s-{second}", "prune", "done", "", 1, 1, 0, False, tick=f"prune:2026-01-01T00:00:{second:02}+00:00"
    )
    for second in (0, 5, 10)
]
MESSAGES = [*messages_of(COMPLETED, 1), *messages_of(UNDONE, 2), *messages_of(DECLINED, 1), DEAD_ONCE, *TICKS]
REPLAYED = DeadLetterLine(DEAD_ONCE.message_id, "resolved", 2, failures=1, replayed=1, reopened=0)
GARBAGE = DeadLetterLine("garbage", "open", None, failures=1, replayed=0, reopened=0)
SAMPLE = Sample(1.0, {"WIDGET": 10}, {"critical": 7}, allowed=10)

SOUND = Ledgers(
    accepted=[1, 2],
    orders=[COMPLETED, UNDONE, DECLINED],
    invoices=[1, 2],
    deliveries=[("evt_1", "7"), ("evt_2", "7")],
    shelves=[Shelf("WIDGET", at_start=10, stock=7, reserved=0, shipped=3)],
    open_messages=0,
    unresolved_dead_letters=1,
    captures=[Movement(1, "usd", 500), Movement(2, "eur", 900)],
    refunds=[Movement(2, "eur", 900)],
    shipments=[1, 2],
    shipped_units=[("WIDGET", 2)],
    crm_records=[1, 2],
    receipts=[1, 2],
    receipt_copies=3,
    webhooks=[("evt_1", "7"), ("evt_2", "7")],
    unverified_webhooks=0,
    webhooks_due=[("order.completed of order 1", "7"), ("order.completed of order 2", "7")],
    webhooks_staged=[("order.completed of order 1", "7"), ("order.completed of order 2", "7")],
    requests=[ClientRequest("a", "ok", 1), ClientRequest("b", "ok", 2), ClientRequest("c", "unknown", None)],
    samples=[SAMPLE],
    messages=MESSAGES,
    dead_letters=[REPLAYED, GARBAGE],
    webhooks_enqueued=[("evt_1", "7"), ("evt_2", "7")],
    events={"evt_1": (1, 11), "evt_2": (2, 10)},
    injected=frozenset({"garbage"}),
    tick_s={"prune": 5.0},
)

CLIENTS = "each request is one order or none, as its client knows"
FENCING = "no write from a stale claim (fence and log agree)"
CAPTURES = "at most one capture per order"
ORDERING = "webhooks arrive in order, per subscription"
STOCK = "stock is conserved at every sampled instant"
CONSERVATION = "every message exists once, in one state"
ONE_PLACE = "every failure has exactly one place"
GARBAGE_ONLY = "no dead letter but injected garbage"
PASSING = "no message died of a passing fault"
LINEAGE = "a replay is another run of the same message"
BOUND = "broker depth <= limit + relays x batch, always"
TICK = "every tick of the schedule has one message"


def broken(ledgers: Ledgers) -> set[str]:
    return {finding.promise for finding in check_chaos(ledgers) if not finding.holds}


def with_message(changed: MessageLine) -> list[MessageLine]:
    return [changed if line.message_id == changed.message_id else line for line in MESSAGES]


def without(line: MessageLine) -> list[MessageLine]:
    return [each for each in MESSAGES if each is not line]


def test_sound_books_hold() -> None:
    assert broken(SOUND) == set()


def test_an_order_that_was_never_answered_may_also_not_exist() -> None:
    requests = [*SOUND.requests, ClientRequest("d", "unknown", None)]
    assert broken(replace(SOUND, requests=requests)) == set()


def test_an_order_cancelled_after_completion_need_not_have_been_shipped() -> None:
    assert broken(replace(SOUND, shipments=[1])) == set()


def test_an_order_that_reconciliation_has_set_going_has_one_more_message() -> None:
    again = [*MESSAGES, message(AT_ACCEPTANCE[0], 1, 99)]
    assert broken(replace(SOUND, messages=again, reprocessed=frozenset({1}))) == set()


@pytest.mark.parametrize(
    ("wrong", "promise"),
    [
        ({"requests": [ClientRequest("a", "ok", 9), *SOUND.requests[1:]]}, CLIENTS),
        ({"requests": [*SOUND.requests, ClientRequest("lost", "ok", 4)]}, CLIENTS),
        ({"requests": [*SOUND.requests[:2], ClientRequest("c", "fail", None)]}, CLIENTS),
        ({"requests": SOUND.requests[:2]}, CLIENTS),
        ({"orders": [COMPLETED, UNDONE, replace(DECLINED, tag="a")]}, CLIENTS),
        ({"dead_letters": [replace(REPLAYED, exception="django.db.utils.InternalError"), GARBAGE]}, PASSING),
        (
            {"dead_letters": [replace(REPLAYED, exception="celery.exceptions.NotRegistered"), GARBAGE]},
            PASSING,
        ),
        ({"orders": [replace(COMPLETED, fence=3), UNDONE, DECLINED]}, FENCING),
        (
            {
                "orders": [
                    replace(COMPLETED, moves=(*COMPLETED.moves, ("processing", "completed"))),
                    UNDONE,
                    DECLINED,
                ]
            },
            FENCING,
        ),
        ({"orders": [COMPLETED, UNDONE, replace(DECLINED, moves=DECLINED.moves[:-1])]}, FENCING),
        (
            {
                "captures": [*SOUND.captures, Movement(2, "eur", 900)],
                "refunds": [Movement(2, "eur", 900)] * 2,
            },
            CAPTURES,
        ),
        ({"webhooks": [("evt_2", "7"), ("evt_1", "7")]}, ORDERING),
        # Delivered as enqueued, but enqueued in another order than the order's log has.
        ({"events": {"evt_1": (2, 12), "evt_2": (2, 11)}}, ORDERING),
        ({"samples": [SAMPLE, replace(SAMPLE, units={"WIDGET": 9})]}, STOCK),
        ({"messages": without(MESSAGES[0])}, CONSERVATION),
        ({"messages": [*MESSAGES, message(AT_COMPLETION[1], 1, 99)]}, CONSERVATION),
        ({"messages": [*MESSAGES, message(AT_ACCEPTANCE[0], 1, 99)]}, CONSERVATION),
        ({"reprocessed": frozenset({1})}, CONSERVATION),
        ({"messages": with_message(replace(MESSAGES[0], status="lost"))}, CONSERVATION),
        ({"messages": with_message(replace(MESSAGES[0], leased=True))}, CONSERVATION),
        ({"messages": with_message(replace(MESSAGES[0], status="dead"))}, ONE_PLACE),
        ({"dead_letters": [replace(REPLAYED, state="replaying"), GARBAGE]}, ONE_PLACE),
        ({"dead_letters": [replace(REPLAYED, message_id="gone", state="open"), GARBAGE]}, ONE_PLACE),
        (
            {
                "messages": with_message(replace(DEAD_ONCE, status="cancelled")),
                "dead_letters": [replace(REPLAYED, state="open"), GARBAGE],
            },
            ONE_PLACE,
        ),
        ({"dead_letters": [replace(REPLAYED, state="open"), GARBAGE]}, GARBAGE_ONLY),
        ({"injected": frozenset()}, GARBAGE_ONLY),
        ({"dead_letters": [replace(REPLAYED, replayed=2), GARBAGE]}, LINEAGE),
        ({"dead_letters": [replace(REPLAYED, failures=2), GARBAGE]}, LINEAGE),
        ({"messages": without(DEAD_ONCE)}, LINEAGE),
        ({"messages": with_message(replace(DEAD_ONCE, generation=1))}, LINEAGE),
        ({"samples": [SAMPLE, replace(SAMPLE, depths={"critical": 11})]}, BOUND),
        ({"samples": [replace(SAMPLE, depths={})]}, BOUND),
        ({"samples": [replace(SAMPLE, units={})]}, STOCK),
        ({"messages": without(TICKS[1])}, TICK),
        # A beat that never ran, and one that ran no more.
        ({"messages": MESSAGES[:-3], "samples": [replace(SAMPLE, at_s=60.0)]}, TICK),
        ({"samples": [replace(SAMPLE, at_s=60.0)]}, TICK),
        ({"messages": [*MESSAGES, replace(TICKS[1], message_id="again")]}, TICK),
    ],
)
def test_a_violation_is_reported_by_name(wrong: dict[str, Any], promise: str) -> None:
    assert promise in broken(replace(SOUND, **wrong))


def test_a_message_an_operator_gave_its_row_begins_with_its_replay() -> None:
    """With its first one."""
    adopted = replace(DEAD_ONCE, generation=1, born_of_replay=True)
    assert broken(replace(SOUND, messages=with_message(adopted))) == set()
    assert LINEAGE in broken(
        replace(
            SOUND,
            messages=with_message(replace(adopted, replays=2)),
            dead_letters=[replace(REPLAYED, replayed=2, reopened=1, failures=2), GARBAGE],
        )
    )
