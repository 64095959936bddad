"""What must be true after any run, as pure functions over plain data (`ledgers`); each reports its violation by name."""

from __future__ import annotations

from collections.abc import Callable

from lab.invariants import effects, messages, money, orders, stock
from lab.invariants.finding import Finding
from lab.invariants.records import (
    ClientRequest,
    DeadLetterLine,
    Ledgers,
    MessageLine,
    Movement,
    OrderLine,
    Pair,
    Sample,
    Shelf,
)

__all__ = [
    "ClientRequest",
    "DeadLetterLine",
    "Finding",
    "Ledgers",
    "MessageLine",
    "Movement",
    "OrderLine",
    "Pair",
    "Sample",
    "Shelf",
    "check",
    "check_chaos",
]

Invariant = Callable[[Ledgers], Finding]

#: What any run must leave behind, in the order in which a reader wants it.
OUTCOME: tuple[Invariant, ...] = (
    orders.accepted_orders_are_recorded,
    orders.every_order_is_final,
    orders.orders_complete_once,
    money.one_capture_per_completed_order,
    money.captured_money_is_completed_money,
    effects.one_receipt_per_completed_order,
    effects.one_invoice_per_completed_order,
    effects.one_shipment_per_completed_order,
    effects.one_crm_record_per_completed_order,
    effects.every_end_is_published,
    effects.webhooks_take_effect_once,
    stock.no_unit_is_lost,
    stock.what_left_the_shelf_was_shipped,
    messages.no_message_is_open,
)
#: What needs the longer ledgers of a chaos run.
UNDER_FIRE: tuple[Invariant, ...] = (
    orders.clients_and_database_agree,
    orders.orders_move_as_their_log_may,
    money.at_most_one_capture_per_order,
    effects.webhooks_arrive_in_order,
    stock.no_unit_is_lost_at_any_time,
    messages.every_message_exists_once,
    messages.every_failure_has_one_place,
    messages.only_garbage_is_left,
    messages.no_message_dies_of_a_passing_fault,
    messages.replays_are_runs_of_the_same_message,
    messages.the_broker_stays_bounded,
    messages.every_tick_ran_once,
)


def check(ledgers: Ledgers) -> list[Finding]:
    """Every invariant of a run that must end without a dead letter."""
    return [invariant(ledgers) for invariant in (*OUTCOME, messages.no_dead_letter)]


def check_chaos(ledgers: Ledgers) -> list[Finding]:
    """Every invariant of a run in which garbage was injected, processes died and an operator replayed."""
    return [invariant(ledgers) for invariant in (*OUTCOME, *UNDER_FIRE)]
