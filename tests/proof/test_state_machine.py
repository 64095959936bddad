"""Order, outbox and dead letters in any order of events, with real kills at any I/O: a stateful test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from lab.faultpoints import in_process
from lab.faultpoints.boundaries import install
from tests.lab.sandbox_fixture import RunningSandbox
from tests.proof.shop import LOST_CAUSES, PASSED_OVER, Shop, Wish, picked
from tests.proof.strikes import Moment, moments

pytestmark = [pytest.mark.proof, pytest.mark.django_db(transaction=True)]

SETTINGS = settings(
    max_examples=32,
    stateful_step_count=28,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,  # Each costs minutes to make small.
    print_blob=True,
)
#: What a test must have been through to prove anything; it usually goes through a good deal more.
AT_LEAST = {
    "runs of the machine": 25,
    "orders": 300,
    "kills": 200,
    "kills while running": 60,
    "kills while relaying": 20,
    "kills while rescuing": 20,
    "kills while replaying": 5,
    "kills while discarding": 1,
    "kills while placing": 12,
    "kills while cancelling": 12,
    "dead letters replayed": 50,
    "dead letters discarded": 5,
    "copies": 40,
    "stale copies": 5,
    "broker losses": 20,
}
#: Longer than a run of the machine: whether a message is late is a matter of the hours that pass in it, not of the time
#: that this computer takes.
LATE_S = 1_800
#: All that an order sets off, but for `sync_to_crm`, which retries whatever happens.
BREAKABLE = (
    "orders.tasks.process_order",
    "orders.tasks.send_confirmation",
    "orders.tasks.send_receipt",
    "orders.tasks.update_inventory",
    "orders.tasks.notify_warehouse",
    "payments.tasks.refund_order",
    *PASSED_OVER,
    *LOST_CAUSES,
)

picks = st.integers(0, 999)
bugs = st.lists(st.sampled_from(BREAKABLE), max_size=5, unique=True)
cards = st.sampled_from(("pm_card_visa", "pm_card_visa", "pm_card_visa_chargeDeclined"))
wishes = st.fixed_dictionaries({"customer_id": st.sampled_from((1, 2)), "payment_method": cards})


_HAPPENINGS: dict[str, st.SearchStrategy[dict[str, Any]]] = {}


def may_happen(**arguments: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """What hypothesis' `rule` is, but that it comes in every run, about as often as any other.

    Of rules hypothesis leaves out many in each run, and has others come all the time. That is good for a thousand short
    runs; ours are few, and most of them would prove the same.
    """

    def noted(act: Callable[..., None]) -> Callable[..., None]:
        _HAPPENINGS[act.__name__] = st.fixed_dictionaries(arguments)
        return act

    return noted


class Anything(Shop):
    """Customers, workers, operators, bugs and bad luck, each whenever it likes.

    What is drawn depends on nothing but on what was drawn: two runs of the same choices must draw the same, while what
    the database holds may depend on the clock. So nothing has a precondition: what finds nothing to do makes itself work.
    """

    def __init__(self) -> None:
        super().__init__()
        self.came = dict.fromkeys(_HAPPENINGS, 0)

    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        least = min(self.came.values())
        name = data.draw(st.sampled_from([name for name, times in self.came.items() if times <= least + 1]))
        self.came[name] += 1
        getattr(self, name)(**data.draw(_HAPPENINGS[name]))

    @initialize(wishes=st.lists(wishes, min_size=10, max_size=10), tasks=bugs, late=st.booleans())
    def open_for_business(self, wishes: list[Wish], tasks: list[str], late: bool) -> None:
        for wish in wishes:
            self.place(wish, impatient=False)
        self.deploy(tasks, late)

    # Customers. Who gets no answer asks again.

    @may_happen(wish=wishes, impatient=st.booleans())
    def place(self, wish: Wish, impatient: bool) -> None:
        answers = {self.ask_for(wish) for _ in range(2 if impatient else 1)}
        assert len(answers) == 1, "one key, and two orders"
        self.accepted += answers

    @may_happen(pick=picks)
    def cancel(self, pick: int) -> None:
        self.try_to_cancel(picked(self.accepted, pick))

    @may_happen(wish=wishes, moment=moments)
    def die_while_placing(self, wish: Wish, moment: Moment) -> None:
        self.strikes.strike("placing", moment, lambda: self.ask_for(wish))
        self.place(wish, impatient=False)

    @may_happen(pick=picks, moment=moments)
    def die_while_cancelling(self, pick: int, moment: Moment) -> None:
        order_id = picked(self.accepted, pick)
        self.strikes.strike("cancelling", moment, lambda: self.try_to_cancel(order_id))
        self.try_to_cancel(order_id)

    # Relays, which rescue too, and workers.

    @may_happen(rescuing=st.booleans())
    def relay(self, rescuing: bool) -> None:
        if rescuing:
            self.environment.processes.rescuer.run_once()
        self.publish()

    @may_happen(first=moments, second=moments)
    def die_while_relaying(self, first: Moment, second: Moment) -> None:
        """One while it requeues what was lost, the next while it publishes that."""
        self.lose_what_is_published()
        self.strikes.strike("rescuing", first, lambda: self.environment.processes.rescuer.run_once())
        self.environment.processes.rescuer.run_once()
        self.strikes.strike("relaying", second, self.publish)

    @may_happen(pick=picks, copies=st.integers(1, 3))
    def work(self, pick: int, copies: int) -> None:
        if found := self.waiting(pick):
            self.done["runs"] += self.environment.processes.take(found[0], copies=copies)
            self.done["copies"] += copies - 1

    @may_happen(pick=picks)
    def work_a_queue_off(self, pick: int) -> None:
        self.publish()
        self.work_off(pick)

    @may_happen(pick=picks, moments=st.lists(moments, min_size=2, max_size=3))
    def die_while_running(self, pick: int, moments: list[Moment]) -> None:
        """What the dead worker had reserved comes back, and the next worker may die of it, too."""
        for moment in moments:
            if found := self.waiting(pick):
                queue, task = found
                self.strikes.strike(
                    task,
                    moment,
                    lambda: self.environment.processes.take(queue),  # noqa: B023
                    kind="running",
                )
                self.environment.processes.restore()

    @may_happen(pick=picks, of_a_dead_letter=st.booleans())
    def late_copy(self, pick: int, of_a_dead_letter: bool) -> None:
        """Preferably one of an earlier life of a message that is open again, which must not so much as touch it."""
        stale = self.stale_copies()
        if of_a_dead_letter and not stale:
            self.die_and_replay(pick)
            stale = self.stale_copies()
        if copy := picked(stale or self.copies, pick):
            queue, raw = copy
            before = self.life_of(raw)
            self.environment.processes.put(queue, raw)
            self.done["copies"] += self.environment.processes.take(queue)
            self.done["stale copies"] += bool(stale)
            assert not stale or self.life_of(raw) == before

    # The world around.

    @may_happen()
    def an_hour_passes(self) -> None:
        in_process.an_hour_passes()
        self.environment.processes.restore()

    @may_happen()
    def broker_forgets(self) -> None:
        self.environment.processes.forget_everything()
        self.done["broker losses"] += 1

    @may_happen(tasks=bugs, late=st.booleans())
    def deploy(self, tasks: list[str], late: bool) -> None:
        """Fixes of the bugs that there were, and new ones."""
        self.bugs.close()
        self.break_tasks(tasks, late=late)

    # Operators. Whose session dies looks again, and repeats what did not happen.

    @may_happen(pick=picks, give_up=st.booleans())
    def operate(self, pick: int, give_up: bool) -> None:
        if dead_letter := self.a_dead_letter(pick, lost_cause=give_up):
            self.resolve(dead_letter, give_up=give_up)

    @may_happen(pick=picks, give_up=st.booleans(), moment=moments)
    def die_while_operating(self, pick: int, give_up: bool, moment: Moment) -> None:
        if dead_letter := self.a_dead_letter(pick, lost_cause=give_up):
            act = "discarding" if give_up else "replaying"
            self.strikes.strike(act, moment, lambda: self.resolve(dead_letter, give_up=give_up))
            dead_letter.refresh_from_db()
            if dead_letter.state == "open":
                self.resolve(dead_letter, give_up=give_up)


def test_whatever_happens_in_whatever_order_all_ends_well(
    sandbox_settings: RunningSandbox, clean: None, settings: Any, figure: Callable[[str], None]
) -> None:
    settings.OUTBOX_MARGIN = settings.OUTBOX_WORKER_TIMEOUT = LATE_S
    install()
    Anything.found(sandbox_settings.url)
    run_state_machine_as_test(Anything, settings=SETTINGS)
    done = Anything.done + Anything.strikes.kills
    done["kills"] = Anything.strikes.kills.total()
    figure(", ".join(f"{count:,} {what}" for what, count in sorted(done.items())))
    too_few = {what: done[what] for what, least in AT_LEAST.items() if done[what] < least}
    assert not too_few, f"{too_few} of {done}"
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE crashpoints_witness")
