"""The benchmarks that place orders: their subjects, what they count, and all of them once with two orders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.bench import __main__ as bench
from lab.bench import orders, report
from lab.bench.options import Size
from lab.bench.shop import roles
from lab.bench.shop.records import Asked, product_lock_waits
from lab.bench.shop.running import Batch
from lab.bench.shop.subjects import FIRST, OURS, STOCK_CELERY, subjects
from lab.stack.leftovers import leftovers
from lab.stack.stack import ROOT
from tests.support.checkout import INHERITED

in_a_clone = pytest.mark.skipif(
    subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, check=False).returncode != 0,
    reason="these files are no clone",
)


def test_without_the_other_commit_two_subjects_run_and_a_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AGAINST", "no-such-commit")

    with subjects() as found:
        assert [subject.name for subject in found] == [OURS, STOCK_CELERY]

    assert capsys.readouterr().err.splitlines() == [
        "bench: AGAINST=no-such-commit: no such commit in this clone, so that this checkout and stock Celery run alone"
    ]


@in_a_clone
def test_the_other_commit_is_checked_out_while_it_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGAINST", "HEAD")

    trees = []

    def stopped_run() -> None:
        with subjects() as found:
            trees.append(found[1].root)
            assert (trees[0] / "Procfile").exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped_run()
    (tree,) = trees
    assert not tree.parent.exists()
    known = subprocess.run(["git", "worktree", "list"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert str(tree) not in known.stdout


def test_stock_celery_runs_the_processes_of_the_procfile_without_the_relay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AGAINST", "no-such-commit")
    with subjects() as (ours, stock):
        names = [line.partition(":")[0] for line in ours.procfile().splitlines()]
        of_stock = stock.procfile().splitlines()

    assert [line.partition(":")[0] for line in of_stock] == [name for name in names if name != "relay"]
    assert not [line for line in of_stock if " config" in line]


def test_cpu_time_includes_that_of_children_that_have_ended() -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); print('ended', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ended\n"
        used = roles.cpu_s({"it": parent.pid})
        held = roles.pss_mb({"it": parent.pid})
        parent.communicate("\n")
    assert used["it"] >= 0.2
    assert held["it"] > 1


def test_statements_are_summed_by_what_asked(tmp_path: Path) -> None:
    path, asked = tmp_path / "asked", Asked(tmp_path / "asked")
    with path.open("a", buffering=1) as file:
        file.write("before\t1\t1\n")
        asked.forget()
        file.write("relay\t1\t1\norders.tasks.a\t1\t0\nrelay\t1\t0\norders.tasks.a\t0\t1\n")

        assert asked.read() == {"relay": (2, 1), "orders.tasks.a": (1, 1)}


def test_waits_for_a_product_are_read_from_the_log_of_the_server(tmp_path: Path) -> None:
    log = tmp_path / "postgres.log"
    log.write_text(
        "2026 [1] LOG:  process 1 acquired ExclusiveLock on tuple (0,1) of relation 7 of database 1 after 99.0 ms\n"
    )

    with product_lock_waits(log, 7) as waits, log.open("a") as file:
        file.write(
            "2026 [2] LOG:  process 2 still waiting for ShareLock on transaction 7 after 1.001 ms\n"
            '2026 [2] CONTEXT:  while updating tuple (0,7) in relation "orders_product"\n'
            "2026 [2] LOG:  process 2 acquired ShareLock on transaction 7 after 12.5 ms\n"
            '2026 [2] CONTEXT:  while updating tuple (0,7) in relation "orders_product"\n'
            "2026 [3] LOG:  process 3 acquired ExclusiveLock on tuple (0,1) of relation 7 of database 1 after 3.0 ms\n"
            "2026 [4] LOG:  process 4 acquired ExclusiveLock on tuple (0,1) of relation 8 of database 1 after 40.0 ms\n"
            "2026 [5] LOG:  process 5 acquired ShareLock on transaction 8 after 50.0 ms\n"
            '2026 [5] CONTEXT:  while updating tuple (0,7) in relation "orders_order"\n'
            '2026 [5] STATEMENT:  UPDATE "orders_order" ... FROM "orders_product"\n'
        )
    assert waits == [12.5, 3.0]


def test_a_report_takes_the_place_of_the_last_one(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n<!-- a: written by make bench -->\nold\n<!-- a: end -->\nrest\n")

    report.write("a", "new \\1", page)

    assert page.read_text() == "# Page\n<!-- a: written by make bench -->\n\nnew \\1\n<!-- a: end -->\nrest\n"
    with pytest.raises(RuntimeError, match=r"page\.md has no marks for b"):
        report.write("b", "text", page)


@pytest.mark.parametrize("section", ["orders", "price"])
def test_the_page_has_a_place_for_each_report(section: str, tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text(report.PAGE.read_text())
    report.write(section, "text", page)


def test_the_cost_of_an_order_is_compared_with_each_subject() -> None:
    def batch(seconds: float, cpu_ms: float) -> Batch:
        asked = {orders.POST: (12.0, 1.0), "orders.tasks.a": (50.0, 20.0), "relay": (5.0, 5.0)}
        return Batch(10, seconds, {"web": cpu_ms, orders.OUTSIDE: 1000.0}, asked)

    batches = {
        OURS: [batch(1.0, 90.0)] * 3,
        FIRST: [batch(2.0, 180.0)] * 3,
        STOCK_CELERY: [batch(1.0, 100.0)] * 3,
    }

    figures = {figure.name: figure for figure in orders.figures_of(batches)}
    text = orders.section(Size(3, 10), batches, list(figures.values()))

    assert (figures[f"CPU time / {FIRST}"].value, figures[f"CPU time / {FIRST}"].most) == (0.5, 0.75)
    assert (figures[f"orders a second / {FIRST}"].value, figures[f"orders a second / {FIRST}"].least) == (
        2.0,
        1.3,
    )
    assert figures[f"CPU time / {STOCK_CELERY}"].value == 0.9
    assert figures["statements of an order, in tasks"].value == 50
    assert figures["commits of an order, in all processes"].value == 26
    assert f"| {orders.TOTAL} | 90 (90-90) | 180 (180-180) | 100 (100-100) |" in text
    assert "| relay | 5.0 / 5.0 | 5.0 / 5.0 | 5.0 / 5.0 |" in text


def test_a_size_that_is_no_number_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUNDS", "many")
    with pytest.raises(RuntimeError, match=r"^ROUNDS must be a number from 1, not 'many'$"):
        Size.of_environment()


@in_a_clone
@pytest.mark.proof
def test_three_subjects_place_the_same_orders_and_have_the_same_effects() -> None:
    env = {name: value for name, value in os.environ.items() if name not in INHERITED}
    page = report.PAGE.read_text()

    ran = subprocess.run(
        [sys.executable, "-m", "lab.bench", "orders"],
        cwd=ROOT,
        env={**env, "ROUNDS": "1", "ORDERS": "3", "AGAINST": "HEAD"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode in (0, 3), ran.stderr
    cost = json.loads((bench.DIRECTORY / "order-cost.json").read_text())
    assert list(cost) == [OURS, list(cost)[1], STOCK_CELERY]
    assert all(of_role["web"] > 0 and of_role["postgres"] > 0 for of_role in cost.values())
    asked = ran.stdout.partition("task, request or role")[2]
    rows = {cells[0]: cells[1:] for line in asked.splitlines() if (cells := line.strip("| ").split(" | "))}
    assert rows["orders.tasks.send_receipt"][2] != "0.0 / 0.0"
    # Of stock Celery nothing runs but the tasks.
    assert rows["relay"][2] == "0.0 / 0.0"
    # A worker's parent has a row only where a heartbeat of ours fell into the batch.
    assert rows.get("critical", rows["relay"])[2] == "0.0 / 0.0"
    assert report.PAGE.read_text() == page
    assert leftovers(bench.DIRECTORY / "stack") == []
