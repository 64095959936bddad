"""`make demo`: ORDERS orders over HTTP while 30 % of calls to the outside world fail, and a check of the outcome."""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import dataclass

import requests
from django.db import DatabaseError

from lab.collect import Progress, Sandbox, dead_letter_kinds, progress, read_ledgers, shelves_at_start
from lab.fleet import Fleet, files
from lab.invariants import Finding, Ledgers, check
from lab.prepare import introduce_merchants, prepare
from lab.shoppers import Shoppers
from lab.signals import Stopped, raise_on_stop
from lab.stack import Stack, StackError
from lab.stack.processes import free_port
from lab.stack.stack import VAR
from lab.stillness import Stillness
from lab.up import wait_until_ready

FAILURE_RATE = 0.3

# Together 30 %: 0.2 fail before they act, and 0.125 of the rest act and then lose the answer, which is the harder case.
# Mail only fails before: a lost answer of a mail server is the one window that cannot be closed (see docs).
FAULTS = {
    "*": {"error_rate": 0.2, "drop_reply_rate": 0.125},
    "mail": {"error_rate": FAILURE_RATE, "drop_reply_rate": 0.0},
    "gateway": {"duplicate_event_rate": 0.1},
}
# The demo does in seconds what takes production minutes, and loses no order to bad luck: with 30 % of calls failing, a
# message fails 16 times in a row once in 230 million; an order makes about ten calls.
# Half of its messages are in `low`, for which one process is enough in production only.
DEMO_SETTINGS = {
    "DJANGO_SETTINGS_MODULE": "lab.settings",
    "RETRY_SCALE": "0.05",
    "RETRY_MINIMUM": "15",
    "LOW_CONCURRENCY": "2",
}

# No figure has changed for this long and no retry is due later: the run hangs, and the report says where. Longer than
# the longest claim, which is that of a webhook with its hard limit of 70 s.
STILL_SECONDS = 90.0
# The same when no message is left that could move anything.
IDLE_SECONDS = 5.0
LINE_SECONDS = 2.0


@dataclass
class Run:
    """What the report is about."""

    shoppers: Shoppers
    seconds: float
    settled: bool
    at_end: Progress
    faults: int
    ledgers: Ledgers
    dead_letters: list[tuple[int, str]]


def main() -> int:
    """Run the demo. Returns 0 only if every invariant holds."""
    raise_on_stop()
    try:
        run = _run(_orders())
    except Stopped as stopped:
        print("\nstopped", file=sys.stderr)
        return stopped.exit_code
    except StackError as problem:
        print(f"demo: {problem}", file=sys.stderr)
        return 1
    except (DatabaseError, requests.RequestException) as problem:
        print(f"\ndemo: {' '.join(str(problem).split())}; the logs are in {VAR / 'log'}", file=sys.stderr)
        return 1
    findings = check(run.ledgers)
    _report(run, findings)
    return 0 if run.settled and not run.shoppers.refused and all(finding.holds for finding in findings) else 1


def _run(orders: int) -> Run:
    print(
        f"Holdfast demo: {orders:,} orders, {FAILURE_RATE:.0%} of all calls to the outside world fail",
        flush=True,
    )
    logs = VAR / "log"
    stack = Stack(VAR / "demo", title="make demo", owner=VAR, fresh=True, logs=logs)
    fleet: Fleet | None = None
    shoppers: Shoppers | None = None
    begun = time.monotonic()
    try:
        stack.start()
        port = free_port()
        stack.update_environment(
            PORT=str(port), SANDBOX_DATA=str(stack.directory / "sandbox"), **DEMO_SETTINGS
        )
        prepared = prepare(stack.environment, log=logs / "prepare.log")
        fleet = Fleet(stack.process_environment(), files(logs))
        fleet.start()
        wait_until_ready(port, watch=fleet.watch)
        sandbox = Sandbox(stack.environment["STRIPE_API_BASE"])
        introduce_merchants(sandbox)
        sandbox.set_faults(FAULTS)
        at_start = shelves_at_start()
        print(f"ready after {time.monotonic() - begun:.1f} s, logs in {logs}", flush=True)

        begun = time.monotonic()
        shoppers = Shoppers(base_url=f"http://127.0.0.1:{port}", api_key=prepared.api_key, orders=orders)
        shoppers.start()
        at_end, settled = _follow(shoppers, sandbox, fleet, begun)
        seconds = time.monotonic() - begun
        faults = sandbox.faults_bitten()
        sandbox.set_faults({})
        ledgers = read_ledgers(sandbox, accepted=shoppers.accepted, at_start=at_start)
        return Run(shoppers, seconds, settled, at_end, faults, ledgers, dead_letter_kinds())
    finally:
        if shoppers is not None:
            shoppers.stop()
        if fleet is not None:
            fleet.stop()
        stack.stop()
        stack.erase()  # the logs are elsewhere; the data of servers that are gone has no use


def _follow(shoppers: Shoppers, sandbox: Sandbox, fleet: Fleet, begun: float) -> tuple[Progress, bool]:
    """Show how it goes until all is settled, or until it hangs."""
    display = _Display()
    stillness = Stillness(STILL_SECONDS)
    while True:
        fleet.watch()
        now = progress()
        figures = (now, len(shoppers.accepted), shoppers.retries)
        hangs = stillness.hangs(figures, waiting=now.waiting)
        idle = shoppers.finished and sandbox.events_due() == 0 and now.open_messages == 0
        settled = idle and now.open_orders == 0
        still = hangs or (idle and stillness.unchanged_s > IDLE_SECONDS)
        display.show(_line(shoppers, now, time.monotonic() - begun), last=settled or still)
        if settled or still:
            return now, settled
        time.sleep(0.25)


def _line(shoppers: Shoppers, now: Progress, seconds: float) -> str:
    return (
        f"{seconds:5.1f} s  accepted {len(shoppers.accepted):,}/{shoppers.orders:,}"
        f"  completed {now.orders.get('completed', 0):,}  failed {now.orders.get('failed', 0):,}"
        f"  open messages {now.open_messages:,}  retries {now.retries:,}  dead letters {now.dead_letters:,}"
    )


class _Display:
    """One line that changes on a terminal; elsewhere a line every other second."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._next_at = 0.0

    def show(self, line: str, *, last: bool) -> None:
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{line[:width]:<{width}}", end="\n" if last else "", flush=True)
        elif last or time.monotonic() >= self._next_at:
            self._next_at = time.monotonic() + LINE_SECONDS
            print(line, flush=True)


def _report(run: Run, findings: list[Finding]) -> None:
    orders, messages = run.at_end.orders, run.at_end.messages
    print(
        f"\n{len(run.shoppers.accepted):,} orders accepted, settled in {run.seconds:.1f} s\n"
        f"  orders    completed {orders.get('completed', 0):,}  failed {orders.get('failed', 0):,}"
        f"  cancelled {orders.get('cancelled', 0):,}  open {run.at_end.open_orders:,}\n"
        f"  messages  done {messages.get('done', 0):,}  open {run.at_end.open_messages:,}"
        f"  dead letters {run.at_end.dead_letters:,}\n"
        f"  faults    {run.faults:,} calls failed  retries {run.at_end.retries:,}"
        f"  duplicates skipped {run.at_end.duplicates:,}\n"
    )
    widths = [max(len(text) for text in column) for column in zip(*_table(findings), strict=True)]
    for row in _table(findings):
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    for finding in findings:
        if finding.difference:
            print(f"\n{finding.promise}: {finding.difference}")
    if run.shoppers.refused:
        print(
            f"\n{len(run.shoppers.refused)} orders were not accepted, for example: {run.shoppers.refused[0]}"
        )
    if not run.settled:
        print(f"\nnothing moves any more; the logs are in {VAR / 'log'}")
    for count, what in run.dead_letters:
        print(f"\ndead letters: {count:,} x {what}")
    broken = sum(not finding.holds for finding in findings)
    print(
        f"\n{f'{broken} of {len(findings)} invariants BROKEN' if broken else f'all {len(findings)} invariants hold'}"
    )


def _table(findings: list[Finding]) -> list[tuple[str, str, str, str]]:
    return [
        ("invariant", "database", "outside world", ""),
        *(
            (each.promise, each.database, each.outside, "holds" if each.holds else "BROKEN")
            for each in findings
        ),
    ]


def _orders() -> int:
    text = os.environ.get("ORDERS") or "100"
    if not text.isdecimal() or int(text) < 1:
        raise StackError(f"ORDERS must be a whole number from 1, not {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
