"""The chaos run's own parts: a seed is a schedule, a fault that hits nothing is seen, the proxy does what it says."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections import Counter
from types import SimpleNamespace
from typing import Any

import psycopg2
import pytest

from lab.chaos.damage import Outcome, damage
from lab.chaos.director import PATIENCE_S, Director, Struck
from lab.chaos.faults import KINDS, Hit, Kind
from lab.chaos.faults.network import _in_flight
from lab.chaos.faults.processes import runs_of
from lab.chaos.plot import timeline
from lab.chaos.proxy import Link, Route
from lab.chaos.report import verdict
from lab.chaos.schedule import Planned, draw
from lab.chaos.system import is_busy
from lab.invariants import ClientRequest
from tests.support.processes import await_

REDIS = [kind for kind in KINDS.values() if "redis" in kind.brokers]


# The schedule.


def test_one_seed_is_one_schedule() -> None:
    assert draw(REDIS, seconds=600, seed=7) == draw(REDIS, seconds=600, seed=7)
    assert draw(REDIS, seconds=600, seed=7) != draw(REDIS, seconds=600, seed=8)


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_ten_minutes_bring_every_kind_six_times_and_a_hundred_kills(broker: str) -> None:
    kinds = [kind for kind in KINDS.values() if broker in kind.brokers]
    plan = draw(kinds, seconds=600, seed=1)
    times = Counter(planned.kind.name for planned in plan)
    assert min(times[kind.name] for kind in kinds) >= 6
    assert sum(planned.kind.kills for planned in plan) >= 100
    assert len(plan) >= 200
    assert len(times) >= 20
    assert len({kind.role for kind in kinds}) >= 7


# The director.


class _Fault:
    """A kind whose strikes the test decides."""

    def __init__(self, *answers: Any, lasts_s: float = 0.0):
        self.answers = list(answers)
        self.healed = 0
        self.lasts_s = lasts_s
        self.met: Any = None

    def strike(self, system: Any, dice: random.Random) -> Hit | None:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            return None
        return Hit(answer, lasts_s=self.lasts_s, places=("here",), heal=self.heal, met=self.met)

    def heal(self) -> int:
        self.healed += 1
        return 5


def directed(fault: _Fault) -> tuple[Director, Any]:
    system = SimpleNamespace(held=set(), keep_dials=lambda: None)
    return Director(system, [Planned(1.0, Kind("a", "b", fault.strike), "seed")]), system  # type: ignore[arg-type]


def test_a_fault_waits_for_work_in_flight_and_counts_it() -> None:
    director, system = directed(fault := _Fault(None, OSError("down"), 3, lasts_s=2.0))
    for now_s in (0.5, 1.0, 1.1):
        director.tick(now_s)
        assert director.struck == []
    director.tick(1.2)
    assert (director.struck[0].in_flight, system.held) == (3, {"here"})
    director.tick(3.1)
    assert fault.healed == 0
    director.tick(3.3)
    assert (director.struck[0].in_flight, system.held) == (8, set())


def test_a_fault_that_finds_nothing_to_hit_is_not_counted_as_struck() -> None:
    director, _ = directed(_Fault(None))
    director.tick(1.0)
    director.tick(1.1 + PATIENCE_S)
    assert director.struck == []
    assert [planned.kind.name for planned in director.missed] == ["a"]


@pytest.mark.parametrize(("meets_at_s", "ends_at_s"), [(2.0, 3.0), (10.0, 10.0), (99.0, 3.0 + PATIENCE_S)])
def test_a_fault_that_met_nothing_lasts_until_its_limit(meets_at_s: float, ends_at_s: float) -> None:
    """Or until it has met something."""
    now_s = 0.0
    director, _ = directed(fault := _Fault(0, lasts_s=2.0))
    fault.met = lambda: now_s >= meets_at_s
    while not fault.healed:
        now_s += 0.5
        director.tick(now_s)
    assert now_s == ends_at_s


def test_healing_ends_what_lasts_and_strikes_no_more() -> None:
    director, _ = directed(fault := _Fault(1, lasts_s=99.0))
    director.tick(1.0)
    assert director.heal_all()
    assert fault.healed == 1


@pytest.mark.parametrize(("in_place", "added"), [(True, []), (False, [100])])
def test_messages_taken_out_for_reordering_leave_room_for_the_relays(
    in_place: bool, added: list[int]
) -> None:
    noted: list[int] = []
    broker = SimpleNamespace(reorder=lambda dice: 100, reorders_in_place=in_place)
    system: Any = SimpleNamespace(broker=broker, added_to_broker=noted.append)
    assert KINDS["messages reordered"].strike(system, random.Random(0)) == Hit(100)
    assert noted == added


# The verdict.


def ran(*, minutes: float, planned: int, hits: int, completed: int = 1, naive: bool = False) -> Any:
    kind = Kind("a", "b", _Fault(None).strike)
    return SimpleNamespace(
        options=SimpleNamespace(minutes=minutes, naive=naive),
        director=SimpleNamespace(
            plan=[Planned(1.0, kind, "seed")] * planned,
            struck=[Struck(1.0, kind, Hit(number < hits), 1.0, healed=True) for number in range(planned)],
        ),
        watch=SimpleNamespace(completed=completed),
        clients=SimpleNamespace(surprises=[]),
        findings=[],
        damage={},
        quiet=True,
    )


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"minutes": 10, "planned": 7, "hits": 5, "completed": 0}, "no order was completed"),
        ({"minutes": 10, "planned": 7, "hits": 4}, "a hit work in flight 4 times of 7"),
        ({"minutes": 5, "planned": 3, "hits": 0}, "a hit work in flight 0 times of 3"),
        ({"minutes": 1, "planned": 2, "hits": 0}, "no fault hit work in flight"),
    ],
)
def test_a_run_that_proves_too_little_fails(figures: dict[str, Any], words: str) -> None:
    assert any(words in reason for reason in verdict(ran(**figures)))


@pytest.mark.parametrize(
    "figures", [{"minutes": 10, "planned": 7, "hits": 5}, {"minutes": 5, "planned": 3, "hits": 1}]
)
def test_a_run_in_which_every_kind_hit_often_enough_passes(figures: dict[str, Any]) -> None:
    assert verdict(ran(**figures)) == []


def test_an_idle_workers_wait_for_a_message_is_no_work_in_flight() -> None:
    worker, web = Route("worker-a", "broker", ("", 0)), Route("web", "broker", ("", 0))
    for route in (worker, web):
        link = Link(route)
        link.awaiting = True
        route.links.add(link)
    for messages in (0, 3):
        system: Any = SimpleNamespace(in_broker=lambda n=messages: n)
        assert _in_flight(system, [worker]) == messages
        assert _in_flight(system, [web]) == 1


def test_without_a_table_of_messages_busy_children_count_as_runs() -> None:
    """The naive shop has no table to ask: a fault that failed at its end there would last for ever, and so the run."""
    asked: list[str] = []

    def number(sql: str, *values: object) -> int:
        asked.append(sql)
        return 0

    system: Any = SimpleNamespace(
        database=SimpleNamespace(number=number), busy_children=lambda name: [1, 2], pid=lambda name: 3
    )
    assert runs_of(system, "worker-a") == 2
    assert [sql for sql in asked if "outbox_outboxmessage" in sql] == []


def test_the_connection_hog_goes_on_after_a_refusal() -> None:
    answers = iter([psycopg2.OperationalError(), *[SimpleNamespace(close=lambda: None)] * 3])
    taken = threading.Event()

    def connect() -> Any:
        answer = next(answers, None)
        if answer is None:
            taken.set()
        if answer is None or isinstance(answer, Exception):
            raise psycopg2.OperationalError
        return answer

    system: Any = SimpleNamespace(
        held=set(),
        transactions=lambda: [1],
        database=SimpleNamespace(connect=connect),
        proxy=SimpleNamespace(to=lambda server: []),
    )
    hit = KINDS["no database connection left"].strike(system, random.Random(1))
    assert hit is not None
    assert hit.heal is not None
    assert taken.wait(5), "it gave up at the first refusal"
    hit.heal()


# What a process is at.


def test_a_pool_process_without_a_task_is_known_by_its_pipe() -> None:
    waiting = "import sys; print('up', flush=True); sys.stdin.readline(); print('on', flush=True); import time; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", waiting], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            process.stdout.readline()
            await_(lambda: not is_busy(process.pid), "blocked in its pipe")
            process.stdin.write("\n")
            process.stdin.flush()
            process.stdout.readline()
            await_(lambda: is_busy(process.pid), "asleep in its task")
        finally:
            process.kill()


def test_a_process_that_is_gone_is_not_busy() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert not is_busy(process.pid)


# The count of damage.

GOOD = Outcome(1, "a", ended=True, completed=True, total_cents=5, due_cents=5, receipts=1)
ASKED = [ClientRequest("a", "ok", 1)]


def test_a_good_day_has_no_damage() -> None:
    assert set(damage(ASKED, [GOOD], [1], [1]).values()) == {0}


@pytest.mark.parametrize(
    ("requests", "outcomes", "charged", "what"),
    [
        ([*ASKED, ClientRequest("b", "ok", 2)], [GOOD], [1], "accepted orders that never ended"),
        (
            ASKED,
            [GOOD, Outcome(2, "a", True, False, 5, 5, 0)],
            [1],
            "customers with two orders for one request",
        ),
        (ASKED, [GOOD], [1, 1], "orders charged more than once"),
        (ASKED, [GOOD], [1, 1, 1], "captures too many"),
        (ASKED, [GOOD, Outcome(2, "b", False, False, 5, 5, 0)], [1, 2], "orders charged and not completed"),
        (ASKED, [GOOD], [], "completed orders that were not charged"),
        (ASKED, [Outcome(1, "a", True, True, 6, 5, 1)], [1], "orders with a wrong total"),
        (ASKED, [Outcome(1, "a", True, True, 5, 5, 0)], [1], "completed orders without a receipt"),
        (ASKED, [Outcome(1, "a", True, True, 5, 5, 2)], [1], "customers with two receipts"),
    ],
)
def test_each_damage_is_counted_by_name(
    requests: list[ClientRequest], outcomes: list[Outcome], charged: list[int], what: str
) -> None:
    assert damage(requests, outcomes, charged, charged)[what] > 0


def test_the_timeline_is_a_picture_with_a_mark_for_each_fault() -> None:
    marks = [(1.0, 0.0, "worker", "kill -9 <child>", True), (2.0, 3.0, "relay", "freeze", False)]
    picture = timeline([0.5, 1.5, 1.7], [(0.0, 0), (1.0, 9)], marks, seconds=5.0, title="run")
    assert picture.count("<title>") == 2
    assert "kill -9 &lt;child&gt;" in picture
