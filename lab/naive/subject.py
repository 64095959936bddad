"""The naive shop as the subject of a chaos run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from lab.chaos.damage import Outcome, damage
from lab.chaos.system import System
from lab.invariants import Finding, Sample
from lab.naive.shop import TABLE, TAX
from lab.stack import Stack

HERE = Path(__file__).parent


class Naive:
    """Judged by its damage alone: it promises nothing that an invariant could check."""

    name = "naive"
    procfile = HERE / "Procfile"
    settings = {"PYTHONWARNINGS": "ignore"}
    queues = ("celery",)
    figures = (
        "SELECT count(*) FILTER (WHERE status = 'completed'), count(*) FILTER (WHERE status <> 'completed'), 0"
        " FROM naive_order"
    )
    units = ""
    depth_allowed = 0

    def prepare(self, stack: Stack, log: Path) -> str:
        import psycopg2

        connection = psycopg2.connect(stack.environment["DATABASE_URL"])
        with connection, connection.cursor() as cursor:
            cursor.execute(TABLE)
        connection.close()
        return "none"

    def is_ready(self, system: System) -> bool:
        # A pool has its children once the worker consumes.
        return all(system.children(name) for name in system.programs("worker"))

    def begin(self, system: System) -> None:
        return

    def work_left(self, system: System) -> int:
        # Retries wait in the workers' memory; what is counted as unacknowledged includes them.
        return system.in_broker() + system.running_messages()

    def waiting(self, system: System) -> bool:
        return False  # its retries are counted as work that is left, and move

    def replay(self, stack: Stack, system: System) -> str:
        return ""  # there is nothing that an operator could replay: what failed is a line in a log

    def judge(self, system: System, samples: list[Sample]) -> tuple[list[Finding], dict[str, int]]:
        receipts = Counter(
            to for mail in system.sandbox.ledger("mail") for to in mail["to"] for _ in range(mail["copies"])
        )
        rows = system.database.rows("SELECT id, tag, status, total_cents, subtotal_cents FROM naive_order")
        outcomes = [
            Outcome(
                id=order_id,
                tag=tag,
                ended=status == "completed",
                completed=status == "completed",
                total_cents=total,
                due_cents=subtotal + round(subtotal * TAX),
                receipts=receipts[tag],
            )
            for order_id, tag, status, total, subtotal in rows
        ]
        charged = [int(charge["order_id"]) for charge in system.sandbox.ledger("charges")]
        return [], damage(system.clients.log, outcomes, charged, charged)

    def completions(self, system: System) -> list[float]:
        table = (
            "SELECT extract(epoch FROM completed_at)::float8 FROM naive_order WHERE completed_at IS NOT NULL"
        )
        return [at for (at,) in system.database.rows(table)]
