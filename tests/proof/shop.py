"""A shop to which anything may happen: who acts in it, and what must hold at any time and in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any, ClassVar
from unittest.mock import patch

from django.test import Client
from hypothesis.stateful import RuleBasedStateMachine, invariant

from config.celery import app
from config.queues import TIERS
from dlq import replay
from dlq.models import DeadLetter, DeadLetterEvent
from lab.faultpoints import in_process
from lab.faultpoints.environment import STOCK, Environment
from lab.faultpoints.invariants import violations
from lab.faultpoints.scenario import FAN_OUT
from orders.models import DailyTotals, Order, Product
from orders.services import CannotCancel, cancel_order
from outbox.models import OutboxMessage
from outbox.status import OPEN
from tests.proof.strikes import Strikes

#: What an operator may give up, and what is then not promised any more. Anything else is owed to somebody.
LOST_CAUSES = {
    task: FAN_OUT[task] for task in ("orders.tasks.track_analytics", "payments.tasks.create_invoice")
}
#: When one of these dies, the next of its group passes it; it comes after them once it is replayed.
PASSED_OVER = ("webhooks.tasks.publish_event", "webhooks.tasks.deliver")
#: What the message of a dead letter in that state may be.
_MEANS = {"open": ("dead",), "replaying": OPEN, "resolved": ("done",), "discarded": ("cancelled",)}
#: Of the queues that hold a message the last by name: if it can be, `low`, where the lost causes are.
LAST = -1
_ITEMS = [{"sku": "WIDGET", "quantity": 2}, {"sku": "GIZMO", "quantity": 1}]

Wish = dict[str, Any]


class Shop(RuleBasedStateMachine):
    """Everything new at the beginning of each run; `done` counts over all of them."""

    environment: ClassVar[Environment]
    strikes: ClassVar[Strikes]
    client: ClassVar[Client]
    done: ClassVar[Counter[str]]

    @classmethod
    def found(cls, sandbox_url: str) -> None:
        cls.environment, cls.done = Environment(sandbox_url), Counter()
        cls.strikes = Strikes(cls.environment)
        cls.environment.found()
        cls.client = cls.environment.client()
        cls()._rehearse()

    def __init__(self) -> None:
        super().__init__()
        self.environment.renew()
        self.accepted: list[int] = []
        self.copies: list[tuple[str, dict[str, Any]]] = []
        self.bugs = ExitStack()

    # What the rules are made of.

    def ask_for(self, wish: Wish) -> int:
        """Post the next customer's order; the same again, with the same key, until it is noted as accepted."""
        while (answer := self._post(wish)).status_code == 409:
            # The session of a request that was killed lives on until its server notices.
            assert answer.json()["code"] == "request_in_flight", answer.content
        assert answer.status_code == 202, answer.content
        return int(answer.json()["id"])

    def _post(self, wish: Wish) -> Any:
        return self.client.post(
            "/api/orders",
            data={**wish, "currency": "usd", "items": _ITEMS},
            content_type="application/json",
            headers={"Idempotency-Key": f"customer {len(self.accepted)}"},
        )

    def try_to_cancel(self, order_id: int) -> None:
        try:
            cancel_order(order_id=order_id)
            self.done["cancellations"] += 1
        except CannotCancel:
            self.done["cancellations refused"] += 1

    def publish(self) -> None:
        # At groups that all wait it looks less often than it runs, by the clock: here it always looks.
        self.environment.processes.relay._heads_at = 0.0
        self.environment.processes.relay.run_once()

    def waiting(self, pick: int) -> tuple[str, str] | None:
        """A queue in which a message waits, and its task; a copy of it may come late. Makes work if there is none."""
        for make_work in (lambda: None, self.publish, self.new_day):
            make_work()
            if holding := [queue for queue in sorted(TIERS) if self.environment.processes.peek(queue)]:
                queue = picked(holding, pick)
                raw = self.environment.processes.peek(queue) or {}
                self.copies.append((queue, raw))
                return queue, raw["headers"]["task"]
        return None

    def stale_copies(self) -> list[tuple[str, dict[str, Any]]]:
        """Those that were noted before their message ended badly and was armed again."""
        open_messages = OutboxMessage.objects.filter(status__in=OPEN).values_list("message_id", "generation")
        now = {str(message_id): generation for message_id, generation in open_messages}
        headers = [(copy, copy[1]["headers"]) for copy in self.copies]
        return [copy for copy, its in headers if its["outbox"]["generation"] < now.get(its["id"], 0)]

    def life_of(self, raw: dict[str, Any]) -> Any:
        row = OutboxMessage.objects.filter(message_id=raw["headers"]["id"])
        return row.values("generation", "status", "attempts", "deliveries", "started_at", "errors").get()

    def work_off(self, pick: int) -> None:
        if found := self.waiting(pick):
            while self.environment.processes.take(found[0]):
                self.done["runs"] += 1

    def new_day(self) -> None:
        in_process.an_hour_passes()
        self.environment.processes.restore()
        self.environment.processes.rescuer.run_once()
        self.publish()

    def break_tasks(self, tasks: list[str], *, late: bool) -> None:
        for task in tasks:
            self.bugs.enter_context(_broken(task, late=late))

    def lose_what_is_published(self) -> None:
        self.environment.processes.forget_everything()
        self.done["broker losses"] += 1
        in_process.an_hour_passes()

    def a_dead_letter(self, pick: int, *, lost_cause: bool) -> DeadLetter | None:
        """An open dead letter, of a lost cause if that is asked for; if there is none, the next messages may become one."""
        dead_letters = DeadLetter.objects.filter(state="open").order_by("pk")
        if lost_cause:
            dead_letters = dead_letters.filter(task__in=LOST_CAUSES)
        for _ in range(24 if lost_cause else 8):
            if dead_letters.all() or not (found := self.waiting(LAST if lost_cause else pick)):
                break
            queue, task = found
            with ExitStack() as until_it_ran:
                if task in LOST_CAUSES or not lost_cause:
                    until_it_ran.enter_context(_broken(task, late=pick % 2 > 0))
                self.environment.processes.take(queue)
        dead_letter: DeadLetter | None = picked(dead_letters.all(), pick)
        return dead_letter

    def die_and_replay(self, pick: int) -> None:
        """A message of which a copy was noted becomes a dead letter, and begins another life."""
        if found := self.waiting(pick):
            queue, task = found
            with _broken(task, late=False):
                self.environment.processes.take(queue)
            if dead_letter := DeadLetter.objects.filter(state="open").order_by("pk").last():
                self.resolve(dead_letter)

    def resolve(self, dead_letter: DeadLetter, *, give_up: bool = False) -> None:
        if give_up:
            replay.discard(dead_letter.pk, reason="of no use", actor="operator")
        else:
            replay.replay(dead_letter.pk, actor="operator")

    # At any time:

    @invariant()
    def what_was_accepted_is_there_once(self) -> None:
        assert sorted(Order.objects.values_list("id", flat=True)) == sorted(self.accepted)

    @invariant()
    def no_unit_is_lost(self) -> None:
        for product in Product.objects.all():
            assert product.stock + product.reserved + product.shipped == STOCK, product

    @invariant()
    def nothing_is_captured_twice(self) -> None:
        self.environment.sandbox.forget()
        captures = Counter(entry["order_id"] for entry in self.environment.sandbox.ledger("charges"))
        assert not captures or max(captures.values()) == 1, captures

    @invariant()
    def no_order_is_counted_twice(self) -> None:
        counted = sum(DailyTotals.objects.values_list("orders", flat=True))
        assert counted <= Order.objects.filter(counted_at__isnull=False).count()

    @invariant()
    def a_group_has_one_head(self) -> None:
        assert not in_process.groups_with_two_heads()

    @invariant()
    def each_failure_is_in_one_place(self) -> None:
        """A dead letter says what its message does: it is dead, open again, done, or given up for ever."""
        messages = OutboxMessage.objects.values_list("message_id", "status")
        status = {str(message_id): value for message_id, value in messages}
        dead_letters = dict(DeadLetter.objects.values_list("message_id", "state"))
        wrong = [
            f"{message_id}: dead letter {state}, message {status[message_id]}"
            for message_id, state in dead_letters.items()
            if status[message_id] not in _MEANS[state]
        ]
        unseen = {message_id for message_id, value in status.items() if value == "dead"} - set(dead_letters)
        assert not wrong
        assert not unseen

    @invariant()
    def an_open_order_has_an_open_message(self) -> None:
        """Nothing is stuck: a message exists that will go on with it."""
        waiting = Order.objects.filter(status__in=("pending", "processing")).values_list("id", flat=True)
        todo = OutboxMessage.objects.filter(task="orders.tasks.process_order", status__in=[*OPEN, "dead"])
        assert set(waiting) <= {
            kwargs.get("order_id", *args) for args, kwargs in todo.values_list("args", "kwargs")
        }

    # In the end:

    def teardown(self) -> None:
        """The bugs are fixed, what died is replayed, and all comes to rest: all accounts are square."""
        self.bugs.close()
        for dead_letter in DeadLetter.objects.filter(state="open"):
            self.resolve(dead_letter)
        self.environment.processes.until_quiet(copies=1)  # Copies come by themselves.
        assert violations(self.environment, accepted=self.accepted, waived=frozenset(self._waived())) == []
        self.nothing_is_captured_twice()
        self.no_order_is_counted_twice()
        self.done["runs of the machine"] += 1
        self.done["orders"] += len(self.accepted)
        for what in ("failed", "replayed", "discarded"):
            self.done[f"dead letters {what}"] += DeadLetterEvent.objects.filter(what=what).count()

    def _waived(self) -> Iterator[str]:
        for task in DeadLetter.objects.filter(state="discarded").values_list("task", flat=True):
            yield from LOST_CAUSES[task]
        if DeadLetter.objects.filter(task__in=PASSED_OVER).exists():
            yield "webhooks arrive as recorded"

    def _rehearse(self) -> None:
        """One undisturbed day, on which each act is measured that a kill is to strike later."""
        rehearse, take = self.strikes.rehearse, self.environment.processes.take
        wish = {"customer_id": 1, "payment_method": "pm_card_visa"}

        def work_all_day() -> None:
            while found := self.waiting(0):
                rehearse(found[1], lambda: take(found[0]))

        for _ in range(4):
            rehearse("placing", lambda: self.accepted.append(self.ask_for(wish)))
        rehearse("cancelling", lambda: self.try_to_cancel(self.accepted[0]))
        rehearse("relaying", self.publish)
        self.break_tasks(["orders.tasks.track_analytics"], late=False)
        work_all_day()
        self.bugs.close()
        rehearse("cancelling", lambda: self.try_to_cancel(self.accepted[1]))
        first, second, _ = DeadLetter.objects.order_by("pk")
        rehearse("replaying", lambda: self.resolve(first))
        rehearse("discarding", lambda: self.resolve(second, give_up=True))
        self.publish()
        self.environment.processes.forget_everything()
        in_process.an_hour_passes()
        rehearse("rescuing", self.environment.processes.rescuer.run_once)
        work_all_day()


def _broken(name: str, *, late: bool) -> AbstractContextManager[Any]:
    """In this block the task fails for good, at its beginning or `late`, when all is done but the settlement."""
    task = app.tasks[name]
    run = task.run

    def broken(*args: Any, **kwargs: Any) -> None:
        if late:
            run(*args, **kwargs)
        raise RuntimeError("a bug")

    return patch.object(task, "run", broken)


def picked(things: Any, pick: int) -> Any:
    """One of them, None if there is none; whatever the pick is, so that it can be drawn before they are known."""
    found = list(things)
    return found[pick % len(found)] if found else None
