"""What an order costs: this checkout, another commit and stock Celery in turns, with the same orders and the same effects."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from functools import partial

from lab.bench import report
from lab.bench.figures import Figure, ratio, take_turns
from lab.bench.options import Size
from lab.bench.shop.running import CLIENTS, Batch, Seeded, running, seeded
from lab.bench.shop.subjects import FIRST, OURS, STOCK_CELERY, subjects
from lab.bench.world import World
from lab.stack.stack import ROOT

PLOT = ROOT / "docs" / "order-cost.svg"
#: Not part of the shop: the outside world is measured beside it.
OUTSIDE = "sandbox"
ROLES = ("web", "critical", "high", "default", "low", "relay", "beat", "postgres", "redis")
TOTAL = "the shop in all"
POST = "POST /api/orders"

Batches = Mapping[str, Sequence[Batch]]
#: Of the ratio to another subject: the most CPU time an order, the least orders a second.
_GOALS = {STOCK_CELERY: (1.10, 0.95), FIRST: (0.75, 1.3)}


def run(world: World) -> list[Figure]:
    size = Size.of_environment()
    if size.is_full:
        world.peer(["-c", "import matplotlib"])
    number = itertools.count()
    with subjects() as compared, seeded(world, compared) as shops:

        def turn(subject: Seeded) -> Batch:
            with running(world, subject, seed=next(number) // len(shops)) as shop:
                batch = shop.batch(size.orders)
            print(f"  {subject.subject.name}: {told(batch)}", flush=True)
            return batch

        batches = take_turns(size.rounds, {shop.subject.name: partial(turn, shop) for shop in shops})
    figures = figures_of(batches)
    cost = {
        name: {
            role: statistics.median(batch.cpu_ms.get(role, 0.0) for batch in taken)
            for role in (*ROLES, OUTSIDE)
        }
        for name, taken in batches.items()
    }
    data = world.directory / "order-cost.json"
    data.write_text(json.dumps(cost, indent=1) + "\n")
    text = section(size, batches, figures)
    print(f"\n{text}", flush=True)
    if size.is_full:
        world.peer(["-m", "lab.bench.plot", str(data), str(PLOT)])
        picture = f"![CPU time of an order by role]({PLOT.name})"
        report.write("orders", f"{text}\n{picture}\n")
    return figures


def cpu_ms(batch: Batch) -> float:
    """Of an order, in all processes of the shop and its servers."""
    return sum(batch.cpu_ms.get(role, 0.0) for role in ROLES)


def rate(batch: Batch) -> float:
    return batch.orders / batch.seconds


def told(batch: Batch) -> str:
    """A batch in a line, for who waits for the rest."""
    return f"{rate(batch):.1f} orders/s, {cpu_ms(batch):.0f} ms CPU an order"


def figures_of(batches: Batches) -> list[Figure]:
    cpu = {name: [cpu_ms(batch) for batch in taken] for name, taken in batches.items()}
    rates = {name: [rate(batch) for batch in taken] for name, taken in batches.items()}
    figures = []
    for name in batches:
        figures.append(Figure(f"orders a second, {name}", statistics.median(rates[name]), "1/s", turns=rates))
        figures.append(Figure(f"CPU time of an order, {name}", statistics.median(cpu[name]), "ms", turns=cpu))
    for name in batches:
        if name != OURS:
            most, least = _GOALS.get(name, (None, None))
            figures.append(Figure(f"CPU time / {name}", ratio(cpu, OURS, name), "x", most=most))
            figures.append(Figure(f"orders a second / {name}", ratio(rates, OURS, name), "x", least=least))
    ours = batches[OURS]
    in_tasks = [sum(batch.asked[name][0] for name in batch.asked if is_task(name)) for batch in ours]
    commits = [sum(commits for _, commits in batch.asked.values()) for batch in ours]
    posts = [batch.asked.get(POST, (0.0, 0.0))[0] for batch in ours]
    return [
        *figures,
        Figure("commits of an order, in all processes", statistics.median(commits), "", most=45),
        Figure("statements of an order, in tasks", statistics.median(in_tasks), "", most=60),
        Figure(f"statements of {POST}", statistics.median(posts), "", most=14),
    ]


def is_task(name: str) -> bool:
    """Of what asks for statements: tasks have dotted names, requests a space, and roles neither."""
    return "." in name and " " not in name


def section(size: Size, batches: Batches, figures: Sequence[Figure]) -> str:
    """The figures, and the tables behind them."""

    def spent(taken: Sequence[Batch], role: str) -> str:
        return report.spread(
            [cpu_ms(batch) if role == TOTAL else batch.cpu_ms.get(role, 0.0) for batch in taken]
        )

    def asked(taken: Sequence[Batch], name: str) -> str:
        statements, commits = zip(*(batch.asked.get(name, (0.0, 0.0)) for batch in taken), strict=True)
        return f"{statistics.median(statements):.1f} / {statistics.median(commits):.1f}"

    names = {name for taken in batches.values() for batch in taken for name in batch.asked}
    return (
        f"{size.rounds} rounds of {size.orders} orders from {CLIENTS} clients, subjects in turns; medians, with the least and"
        f" the most.\n\n{report.with_goals(figures)}\nMilliseconds of CPU an order:\n\n"
        + report.by_row("role", batches, [*ROLES, TOTAL, OUTSIDE], spent)
        + "\nStatements / commits an order, by what asks for them:\n\n"
        + report.by_row("task, request or role", batches, sorted(names), asked)
    )
