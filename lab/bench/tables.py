"""The cost of a message beside a million others: a relay's pass, a worker's claim and settlement; and of a sample."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit, urlunsplit

import django
from django.db import connection

from lab.bench import cpu
from lab.bench.figures import Figure, ratio, take_turns
from lab.bench.world import World, stage
from lab.stack.stack import ROOT

MANY = 1_000_000
FEW = 1_000
#: Of the relay so many that the one look for heads of groups which it begins with has the share that it has at work.
MESSAGES = {"pass": 10_000, "settle": 2_000, "sample": 0}
REPETITIONS = 5
#: So many ordered groups have the blocked rows; each waits behind a head whose time has not come.
GROUPS = 1_000
LATER_S = 36_000.0
STATES = ("done", "pending", "scheduled", "blocked")
#: Database -> how many rows of each state it has.
TABLES = {
    "few": dict.fromkeys(STATES, FEW),
    **{f"many_{state}": {**dict.fromkeys(STATES, FEW), state: MANY} for state in STATES},
}


def run(world: World) -> list[Figure]:
    with ExitStack() as ending:
        probes = {name: ending.enter_context(probe(name, rows)) for name, rows in TABLES.items()}
        figures = []
        for what, title in (("pass", "a relay's pass"), ("settle", "claim and settlement")):
            # A rate's reciprocal is the cost, so that few / many is how many times more it costs beside many.
            turns = take_turns(REPETITIONS, {name: _asking(ask, what) for name, ask in probes.items()})
            for name in list(TABLES)[1:]:
                cost = ratio(turns, name, "few")
                label = f"{title}, with {MANY:,} {name.removeprefix('many_')} rows / with {FEW:,}"
                figures.append(Figure(label, cost, "x", most=1.2, turns=turns))
        turns = take_turns(REPETITIONS, {name: _asking(ask, "sample") for name, ask in probes.items()})
        for name in list(TABLES)[1:]:
            label = f"a sample for the control room, with {MANY:,} {name.removeprefix('many_')} rows"
            figures.append(Figure(label, statistics.median(turns[name]), "ms", most=20, turns=turns))
    return figures


def _asking(ask: Callable[[str], float], what: str) -> Callable[[], float]:
    return lambda: ask(what)


@contextmanager
def probe(name: str, rows: dict[str, int]) -> Iterator[Callable[[str], float]]:
    """A process on a database of its own with that many rows; asked, it tells the CPU µs of one message."""
    url = urlsplit(os.environ["DATABASE_URL"])
    database = f"bench_{name}"
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
        cursor.execute(f"CREATE DATABASE {database}")
    env = {**os.environ, "DATABASE_URL": urlunsplit(url._replace(path=f"/{database}"))}
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, json.dumps(rows)],
        cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    to, answers = process.stdin, process.stdout

    def ask(what: str) -> float:
        to.write(f"{what}\n")
        to.flush()
        return float(json.loads(answers.readline() or "null"))

    try:
        answers.readline()
        yield ask
    finally:
        process.communicate()


def serve(rows: dict[str, int]) -> None:
    """Make the rows, then answer questions from standard input until it ends."""
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    stage(rows["done"], status="done")
    stage(rows["pending"])
    stage(rows["scheduled"], status="scheduled", delay_s=LATER_S)
    stage(GROUPS, status="scheduled", delay_s=LATER_S, groups=GROUPS)
    stage(rows["blocked"], status="blocked", groups=GROUPS)
    with connection.cursor() as cursor:
        # Autovacuum would come at a time of its own choosing, and to the large tables only.
        cursor.execute("ALTER TABLE outbox_outboxmessage SET (autovacuum_enabled = off)")
        cursor.execute("VACUUM (ANALYZE) outbox_outboxmessage")
        cursor.execute("CHECKPOINT")
    answers = {"pass": relay_pass, "settle": claim_and_settle, "sample": sample}
    print("ready", flush=True)
    for line in sys.stdin:
        what = line.strip()
        stage(MESSAGES[what])
        print(json.dumps(answers[what](MESSAGES[what])), flush=True)
        with connection.cursor() as cursor:
            # Every turn finds the same table, without the dead rows of the one before.
            cursor.execute("DELETE FROM outbox_outboxmessage WHERE status = 'published'")
            cursor.execute("VACUUM outbox_outboxmessage")


def relay_pass(messages: int) -> float:
    """CPU microseconds of one message in passes of a relay that publishes to nowhere."""
    from lab.bench.relay import BATCH, Nowhere, app
    from outbox.relay.loop import Relay

    relay = Relay(app, publisher=Nowhere(app), batch=BATCH)
    began, published = cpu.with_session_us(), 0
    while published < messages:
        published += relay.run_once()
    return (cpu.with_session_us() - began) / published


def claim_and_settle(messages: int) -> float:
    """CPU microseconds of one message that a worker claims with a lease and settles."""
    from outbox import claims, transitions
    from outbox.relay import queries

    batch = queries.mark("default", messages)
    began = cpu.with_session_us()
    for message in batch:
        claimed = claims.claim(
            uuid.UUID(message.message_id), message.generation, lease_s=60, worker="", max_deliveries=5
        )
        assert isinstance(claimed, claims.Claimed)
        assert transitions.settle(claimed)
    return (cpu.with_session_us() - began) / len(batch)


def sample(messages: int) -> float:
    """CPU milliseconds of one sample of every series, stored, after the rescuer has counted what has ended."""
    from monitoring import samples
    from outbox import totals

    totals.count_once()
    began = cpu.with_session_us()
    samples.take()
    return (cpu.with_session_us() - began) / 1000


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
