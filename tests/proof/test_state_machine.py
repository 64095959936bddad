"""Order, outbox and dead letters in any order of events, with real kills at any I/O: a stateful test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
from django.db import connection
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from config.queues import TIERS
from dlq import replay
from dlq.models import DeadLetter
from lab.crashpoints.boundaries import SIDES, Point, Watch, install, kill
from lab.crashpoints.floor import an_hour_passes, groups_with_two_heads
from lab.crashpoints.laws import violations
from lab.crashpoints.scenario import FAN_OUT, place
from lab.crashpoints.world import STOCK, World
from orders.models import Order, Product
from orders.services import CannotCancel, cancel_order
from outbox import journal
from outbox.models import OPEN, OutboxMessage
from tests.lab.sandbox_fixture import RunningSandbox

pytestmark = [pytest.mark.proof, pytest.mark.django_db(transaction=True)]

EXAMPLES, STEPS = 25, 40
picks = st.integers(0, 1_000)
cards = st.sampled_from(["pm_card_visa", "pm_card_visa", "pm_card_visa_chargeDeclined"])


class Shop(RuleBasedStateMachine):
    """Customers, workers, operators and bad luck, each whenever it likes."""

    world: ClassVar[World]
    done: ClassVar[Counter[str]]

    def __init__(self) -> None:
        super().__init__()
        self.world.renew()
        self.copies: list[tuple[str, dict[str, Any]]] = []
        self.discarded: set[str] = set()

    @initialize()
    def open_for_business(self) -> None:
        self.place("pm_card_visa")
        self.relay()

    @rule(card=cards)
    def place(self, card: str) -> None:
        place(card)
        self.done["placed"] += 1

    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        if order := _picked(Order.objects.order_by("id"), pick):
            try:
                cancel_order(order_id=order.pk)
                self.done["cancelled"] += 1
            except CannotCancel:
                self.done["cancellations refused"] += 1

    @rule()
    def relay(self) -> None:
        self.world.floor.relay.run_once()

    @rule(pick=picks)
    def run_one(self, pick: int) -> None:
        if queue := self._queue(pick):
            self.done["runs"] += self.world.floor.take(queue)

    @rule(pick=picks)
    def run_one_queue_empty(self, pick: int) -> None:
        self.relay()
        if queue := self._queue(pick):
            while self.world.floor.take(queue):
                self.done["runs"] += 1

    @rule(pick=picks, at=st.integers(0, 25), side=st.sampled_from(SIDES))
    def die_while_running_one(self, pick: int, at: int, side: str) -> None:
        if queue := self._queue(pick):
            take = self.world.floor_of_this_process(lambda floor: floor.take(queue))
            self.done["kills"] += self.world.child(take, lambda: Watch(Point(at, side), kill)).killed

    @rule(at=st.integers(0, 25), side=st.sampled_from(SIDES))
    def die_while_relaying(self, at: int, side: str) -> None:
        run_once = self.world.floor_of_this_process(lambda floor: floor.relay.run_once())
        self.done["kills"] += self.world.child(run_once, lambda: Watch(Point(at, side), kill)).killed

    @rule(pick=picks)
    def late_copy(self, pick: int) -> None:
        if self.copies:
            queue, raw = self.copies[pick % len(self.copies)]
            self.world.floor.put(queue, raw)
            self.world.floor.take(queue)
            self.done["late copies"] += 1

    @rule()
    def sweep(self) -> None:
        self.world.floor.sweeper.run_once()

    @rule()
    def time_passes(self) -> None:
        an_hour_passes()
        self.world.floor.restore()

    @rule()
    def broker_forgets(self) -> None:
        self.world.floor.forget_everything()
        self.done["broker losses"] += 1

    @rule(pick=picks)
    def message_goes_wrong(self, pick: int) -> None:
        """Its code had a bug, for now."""
        if row := _picked(
            OutboxMessage.objects.filter(status__in=("pending", "published"), lease_token=None), pick
        ):
            self.done["deaths"] += journal.bury(
                row.message_id, row.generation, guard="lease_token IS NULL", error="a bug"
            )

    @rule(pick=picks)
    def replay(self, pick: int) -> None:
        if letter := _picked(DeadLetter.objects.filter(state="open"), pick):
            replay.replay(letter.pk, actor="operator")
            self.done["replays"] += 1

    @rule(pick=picks)
    def discard(self, pick: int) -> None:
        # Others are owed to somebody: to discard them is to break a promise knowingly.
        if letter := _picked(
            DeadLetter.objects.filter(state="open", task="orders.tasks.track_analytics"), pick
        ):
            replay.discard(letter.pk, reason="of no use", actor="operator")
            self.done["discards"] += 1

    @invariant()
    def no_unit_is_lost(self) -> None:
        for product in Product.objects.all():
            assert product.stock + product.reserved + product.shipped == STOCK, product

    @invariant()
    def nothing_is_captured_twice(self) -> None:
        self.world.sandbox.forget()
        captures = Counter(entry["order_id"] for entry in self.world.sandbox.ledger("charges"))
        assert not captures or max(captures.values()) == 1, captures

    @invariant()
    def a_group_has_one_head(self) -> None:
        assert not groups_with_two_heads()

    @invariant()
    def the_dead_have_letters(self) -> None:
        dead = set(map(str, OutboxMessage.objects.filter(status="dead").values_list("message_id", flat=True)))
        assert dead == set(DeadLetter.objects.filter(state="open").values_list("message_id", flat=True))

    @invariant()
    def an_open_order_has_an_open_message(self) -> None:
        """Nothing is stuck: whoever is to go on with it exists."""
        for order_id in Order.objects.filter(status__in=("pending", "processing")).values_list(
            "id", flat=True
        ):
            todo = OutboxMessage.objects.filter(task="orders.tasks.process_order", args=[order_id])
            assert todo.filter(status__in=[*OPEN, "dead"]).exists(), f"order {order_id} waits for nobody"

    def teardown(self) -> None:
        for letter in DeadLetter.objects.filter(state="open"):
            replay.replay(letter.pk, actor="operator")
        self.world.floor.until_quiet()
        assert violations(self.world, accepted=[], waived=frozenset(self._waived())) == []
        self.done["runs of the machine"] += 1

    def _waived(self) -> Iterator[str]:
        if Order.objects.filter(status="cancelled", completed_at__isnull=False).exists():
            # A sale that was undone: its receipt and invoice stay.
            for promises in FAN_OUT.values():
                yield from promises

    def _queue(self, pick: int) -> str | None:
        """A queue that holds a message, which is noted: a copy of it may come late."""
        holding = [queue for queue in sorted(TIERS) if self.world.floor.peek(queue)]
        if not holding:
            return None
        queue = holding[pick % len(holding)]
        self.copies.append((queue, self.world.floor.peek(queue) or {}))
        return queue


def _picked(rows: Any, pick: int) -> Any:
    found = list(rows)
    return found[pick % len(found)] if found else None


def test_whatever_happens_in_whatever_order_all_ends_well(
    sandbox_settings: RunningSandbox, clean: None, settings: Any, figure: Callable[[str], None]
) -> None:
    install()
    Shop.world, Shop.done = World(sandbox_settings.url), Counter()
    Shop.world.found()
    run_state_machine_as_test(Shop, settings=_SETTINGS)
    figure(", ".join(f"{count} {what}" for what, count in sorted(Shop.done.items())))
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE crashpoints_witness")


_SETTINGS = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
