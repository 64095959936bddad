"""How far it goes: 1, 2 and 4 worker processes a tier, a hot product and a hundred; and what waiting and idling cost."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from lab.bench import report
from lab.bench.figures import Figure, percentile, take_turns
from lab.bench.options import Size
from lab.bench.orders import ROLES, cpu_ms, rate, told
from lab.bench.shop import roles
from lab.bench.shop.records import product_lock_waits
from lab.bench.shop.running import CLIENTS, MANY_SKUS, Batch, Seeded, Shop, running, seeded
from lab.bench.shop.subjects import OURS, subjects
from lab.bench.world import World
from lab.shoppers import SKUS

T = TypeVar("T")
PROCESSES = (1, 2, 4)
HOT, HUNDRED = "one hot SKU", f"{MANY_SKUS} SKUs"
MIXES = {HOT: SKUS[:1], HUNDRED: tuple(f"SKU-{number}" for number in range(MANY_SKUS))}
#: The idle stack is measured for so long, some seconds after its last order.
SETTLE_S, IDLE_S = 5.0, 20.0
#: Orders placed one by one, each when nothing else is left to do.
ONE_BY_ONE = 20
#: How often the last effect of one is looked for: it is seen at most so much late.
LOOK_EVERY_S = 0.01
#: At half load no order waits for a thread of ours.
THREADS = 16


@dataclass(frozen=True)
class Scaled:
    """Batches with so many processes a tier: of each mix what it took, and the waits for a product's row an order."""

    batches: Mapping[str, Batch]
    lock_wait_ms: Mapping[str, float]


@dataclass(frozen=True)
class Waiting:
    """The shop as its Procfile has it, half loaded, with one order at a time, and idle."""

    orders_per_s: float
    half_load_s: Sequence[float]
    one_by_one_s: Sequence[float]
    pss_mb: Mapping[str, float]
    #: Percent of a core, by role.
    idle_cpu: Mapping[str, float]
    idle_statements_per_s: float


def run(world: World) -> list[Figure]:
    size = Size.of_environment()
    with subjects() as compared, seeded(world, compared) as shops:
        scaled = {
            processes: _turns(size, shops, partial(_scaled, world, size, processes=processes))
            for processes in PROCESSES
        }
        waiting = _turns(size, shops, partial(_waiting, world, size))
    figures = figures_of(scaled, waiting)
    text = section(size, scaled, waiting, figures)
    print(f"\n{text}", flush=True)
    if size.is_full:
        report.write("price", text)
    return figures


def _turns(size: Size, shops: Sequence[Seeded], measure: Callable[[Seeded, int], T]) -> dict[str, list[T]]:
    number = itertools.count()

    def turn(shop: Seeded) -> T:
        return measure(shop, next(number) // len(shops))

    return take_turns(size.rounds, {shop.subject.name: partial(turn, shop) for shop in shops})


def _scaled(world: World, size: Size, seeded_shop: Seeded, seed: int, *, processes: int) -> Scaled:
    env = {f"{tier}_CONCURRENCY": str(processes) for tier in ("CRITICAL", "HIGH", "DEFAULT", "LOW")}
    batches, waits = {}, {}
    with running(world, seeded_shop, seed=seed, env=env, log_lock_waits=True) as shop:
        for mix, skus in MIXES.items():
            with product_lock_waits(shop.server_log, shop.effects.products_table()) as waited:
                batches[mix] = shop.batch(size.orders, skus)
            waits[mix] = sum(waited) / size.orders
            told_of = f"{seeded_shop.subject.name}, {mix}, {processes} a tier"
            print(f"  {told_of}: {told(batches[mix])}", flush=True)
    return Scaled(batches, waits)


def _waiting(world: World, size: Size, seeded_shop: Seeded, seed: int) -> Waiting:
    with running(world, seeded_shop, seed=seed) as shop:
        batch = shop.batch(size.orders)
        print(f"  {seeded_shop.subject.name}, as its Procfile has it: {told(batch)}", flush=True)
        full = rate(batch)
        half = shop.place(size.orders, threads=THREADS, per_second=full / 2)
        shop.wait()
        one_by_one = [_one(shop) for _ in range(min(ONE_BY_ONE, size.orders))]
        pss = roles.pss_mb(shop.pids)
        idle_cpu, idle_statements = _idle(shop)
    return Waiting(full, half, one_by_one, pss, idle_cpu, idle_statements)


def _one(shop: Shop) -> float:
    """Seconds from the POST of an order to its last effect, nothing else being left to do."""
    begun = time.monotonic()
    shop.place(1, threads=1)
    shop.wait(every_s=LOOK_EVERY_S)
    return time.monotonic() - begun


def _idle(shop: Shop) -> tuple[dict[str, float], float]:
    time.sleep(SETTLE_S)
    shop.asked.forget()
    before, begun = roles.cpu_s(shop.pids), time.monotonic()
    time.sleep(IDLE_S)
    after, seconds = roles.cpu_s(shop.pids), time.monotonic() - begun
    statements = sum(statements for statements, _ in shop.asked.read().values())
    return {name: (after[name] - before[name]) / seconds * 100 for name in after}, statements / seconds


def _of_shop(values: Mapping[str, float]) -> float:
    return sum(values.get(role, 0.0) for role in ROLES)


def figures_of(
    scaled: Mapping[int, Mapping[str, Sequence[Scaled]]], waiting: Mapping[str, Sequence[Waiting]]
) -> list[Figure]:
    ours = waiting[OURS]
    half = [seconds * 1000 for turn in ours for seconds in turn.half_load_s]
    single = [seconds * 1000 for turn in ours for seconds in turn.one_by_one_s]
    figures = [
        Figure(
            f"wait for a hot product's row, {processes} processes a tier",
            statistics.median(turn.lock_wait_ms[HOT] for turn in turns[OURS]),
            "ms",
            most=10,
        )
        for processes, turns in scaled.items()
    ]
    idle_cpu = statistics.median(_of_shop(turn.idle_cpu) for turn in ours)
    idle_statements = statistics.median(turn.idle_statements_per_s for turn in ours)
    return [
        *figures,
        Figure("POST /api/orders at half load, p50", percentile(half, 50), "ms"),
        Figure("POST /api/orders at half load, p99", percentile(half, 99), "ms", most=50),
        Figure("from POST to the last effect at idle, p50", percentile(single, 50), "ms", most=400),
        Figure("idle stack, of one core", idle_cpu, "%", most=3),
        Figure("statements of the idle stack", idle_statements, "1/s", most=8),
        Figure("PSS of all processes", statistics.median(_of_shop(turn.pss_mb) for turn in ours), "MB"),
    ]


def section(
    size: Size,
    scaled: Mapping[int, Mapping[str, Sequence[Scaled]]],
    waiting: Mapping[str, Sequence[Waiting]],
    figures: Sequence[Figure],
) -> str:
    """The figures, and the tables behind them, with the other subjects beside."""
    cells: dict[str, dict[str, str]] = {name: {} for name in waiting}
    for processes, turns in scaled.items():
        for name, taken in turns.items():
            for mix in MIXES:
                rates = [rate(turn.batches[mix]) for turn in taken]
                costs = [cpu_ms(turn.batches[mix]) for turn in taken]
                waits = [turn.lock_wait_ms[mix] for turn in taken]
                row = f"{mix}, {processes} a tier:"
                cells[name][f"{row} orders/s"] = report.spread(rates, 1)
                cells[name][f"{row} ms CPU an order"] = report.spread(costs)
                cells[name][f"{row} ms lock wait an order"] = report.spread(waits, 1)
    for name, taken_waiting in waiting.items():
        cells[name] |= _waiting_cells(taken_waiting)
    rows = list(cells[OURS])
    return (
        f"{size.rounds} rounds of {size.orders} orders from {CLIENTS} clients, subjects in turns; medians, with the least and"
        f" the most.\n\n{report.with_goals(figures)}\n"
        + report.by_row("", cells, rows, lambda column, row: column[row])
    )


def _waiting_cells(taken: Sequence[Waiting]) -> dict[str, str]:
    def of_all(values: Callable[[Waiting], Sequence[float]], percent: float) -> str:
        return report.spread([percentile(values(turn), percent) * 1000 for turn in taken])

    cells = {
        "orders/s of which half is the half load": report.spread([turn.orders_per_s for turn in taken], 1),
        "POST at half load, p50 ms": of_all(lambda turn: turn.half_load_s, 50),
        "POST at half load, p99 ms": of_all(lambda turn: turn.half_load_s, 99),
        "from POST to last effect at idle, p50 ms": of_all(lambda turn: turn.one_by_one_s, 50),
        "idle, % of a core": report.spread([_of_shop(turn.idle_cpu) for turn in taken], 1),
        "idle, statements a second": report.spread([turn.idle_statements_per_s for turn in taken], 1),
        "PSS MB, all": report.spread([_of_shop(turn.pss_mb) for turn in taken]),
    }
    for role in ROLES:
        cells[f"PSS MB, {role}"] = report.spread([turn.pss_mb.get(role, 0.0) for turn in taken])
    return cells
