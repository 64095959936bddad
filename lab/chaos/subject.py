"""The application that the faults strike: how it is started, watched, and judged when all is over."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from lab.chaos.damage import damage
from lab.chaos.system import System
from lab.invariants import Finding, Sample
from lab.prepare import configure, introduce_merchants
from lab.stack import Stack
from lab.stack.stack import ROOT

HERE = Path(__file__).parent
DEPTH_LIMIT, BATCH, RELAYS = 200, 50, 2
#: Messages that workers hold and that go back to a queue when their connection breaks.
IN_HAND = 12
#: One condition for each partial index: asked for in one, twice a second, every message that is done would be read.
_OPEN_MESSAGES = " + ".join(
    f"(SELECT count(*) FROM outbox_outboxmessage WHERE {condition})"
    for condition in (
        *("status = 'scheduled'", "status = 'blocked'", "status = 'pending'"),
        *("status = 'published' AND started_at IS NULL", "status = 'published' AND started_at IS NOT NULL"),
    )
)


class Subject(Protocol):
    """What a run needs to know of the application under test."""

    name: str
    procfile: Path
    settings: Mapping[str, str]
    queues: tuple[str, ...]
    #: SQL that answers one row: orders completed, orders open, messages open.
    figures: str
    #: SQL that answers (SKU, units), or '' for a shop that keeps no stock.
    units: str
    #: How many messages a queue may hold, by the application's own promise.
    depth_allowed: int

    def prepare(self, stack: Stack, log: Path) -> str:
        """Tables, demo data; returns the Bearer key."""

    def is_ready(self, system: System) -> bool:
        """Whether every daemon has said that it is there."""

    def begin(self, system: System) -> None:
        """Called once when all is ready, before the first order."""

    def work_left(self, system: System) -> int:
        """What must become zero before the run is over, on top of open orders and messages."""

    def waiting(self, system: System) -> bool:
        """Whether something is due only later, so that standing still is no hanging."""

    def replay(self, stack: Stack, system: System) -> str:
        """What an operator does about failures, once; '' when there is nothing to do."""

    def judge(self, system: System, samples: list[Sample]) -> tuple[list[Finding], dict[str, int]]:
        """The invariants, and the damage."""

    def completions(self, system: System) -> list[float]:
        """When each order was completed, in seconds since 1970."""


class Holdfast:
    """The application of this repository."""

    name = "holdfast"
    procfile = HERE / "Procfile"
    #: Limits small enough to be reached, waits short enough for ten minutes to see their ends.
    settings: Mapping[str, str] = {
        "DJANGO_SETTINGS_MODULE": "lab.chaos.settings",
        "OUTBOX_DEPTH_LIMIT": str(DEPTH_LIMIT),
        "OUTBOX_BATCH": str(BATCH),
        "OUTBOX_WORKER_TIMEOUT": "4",
        "OUTBOX_MARGIN": "4",
        "RETRY_SCALE": "0.03",
        "DATABASE_CONNECTIONS": "80",
        "WEB_THREADS": "16",
        "LOG_LEVEL": "WARNING",
    }
    queues = ("critical", "high", "default", "low")
    figures = (
        "SELECT count(*) FILTER (WHERE status = 'completed'),"
        " count(*) FILTER (WHERE status IN ('pending', 'processing')),"
        f" {_OPEN_MESSAGES} FROM orders_order"
    )
    units = "SELECT sku, stock + reserved + shipped FROM orders_product"
    depth_allowed = DEPTH_LIMIT + RELAYS * BATCH + IN_HAND

    def __init__(self) -> None:
        self._at_start: dict[str, int] = {}

    def prepare(self, stack: Stack, log: Path) -> str:
        configure(stack.environment)
        from django.core.management import call_command

        from lab.collect import shelves_at_start
        from orders.models import ApiKey
        from orders.seed import seed_demo as seed_orders
        from webhooks.seed import seed_demo as seed_webhooks

        with log.open("a") as output:
            call_command("migrate", interactive=False, stdout=output)
        seed_orders()
        seed_webhooks(f"{stack.environment['STRIPE_API_BASE']}/merchants/{{customer_id}}/webhooks")
        self._at_start = shelves_at_start()
        return ApiKey.issue("chaos")[1]

    def is_ready(self, system: System) -> bool:
        wanted = (len(system.programs("worker")), len(system.programs("relay")))
        counts = (
            "SELECT (SELECT count(*) FROM outbox_worker WHERE role = 'worker'"
            " AND beat_at > clock_timestamp() - interval '10 seconds'),"
            " (SELECT count(*) FROM outbox_relayprocess)"
        )
        return system.database.rows(counts) == [wanted]

    def begin(self, system: System) -> None:
        introduce_merchants(system.sandbox)
        let_go_of_the_database()

    def work_left(self, system: System) -> int:
        return system.sandbox.events_due()

    def waiting(self, system: System) -> bool:
        return bool(
            system.database.number(
                "SELECT count(*) FROM outbox_outboxmessage"
                " WHERE status = 'scheduled' AND deliver_at > clock_timestamp()"
            )
        )

    def replay(self, stack: Stack, system: System) -> str:
        if not system.database.number("SELECT count(*) FROM dlq_deadletter WHERE state = 'open'"):
            return ""
        done = subprocess.run(
            [sys.executable, "manage.py", "dlq", "replay", "--all"],
            cwd=ROOT,
            env=stack.process_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        return (done.stdout.strip() or done.stderr.strip()).splitlines()[-1]

    def judge(self, system: System, samples: list[Sample]) -> tuple[list[Finding], dict[str, int]]:
        from lab.chaos.invariants import outcomes, read_chaos_ledgers
        from lab.invariants import check_chaos

        ledgers = read_chaos_ledgers(
            system.sandbox,
            at_start=self._at_start,
            requests=system.clients.log,
            samples=samples,
            injected=frozenset(system.injected),
        )
        refunded = {refund.order_id for refund in ledgers.refunds}
        charged = [capture.order_id for capture in ledgers.captures]
        kept = [order_id for order_id in charged if order_id not in refunded]
        return check_chaos(ledgers), damage(ledgers.requests, outcomes(ledgers), charged, kept)

    def completions(self, system: System) -> list[float]:
        table = (
            "SELECT extract(epoch FROM completed_at)::float8 FROM orders_order WHERE completed_at IS NOT NULL"
        )
        return [at for (at,) in system.database.rows(table)]


def let_go_of_the_database() -> None:
    """Close Django's connections of this process: their server is about to be killed."""
    from django.conf import settings
    from django.db import connections

    if settings.configured:
        connections.close_all()


def subject(*, naive: bool) -> Any:
    """The application that was asked for."""
    if naive:
        from lab.naive.subject import Naive

        return Naive()
    return Holdfast()
