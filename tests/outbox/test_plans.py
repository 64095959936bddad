"""What relay, rescuer and web ask of the outbox reads what it is about, whatever else the table holds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from pytest_mock import MockerFixture

import outbox
from outbox import claims, groups, retention, stats, totals, transitions
from outbox.models import PausedTask
from outbox.relay import queries
from outbox.status import PAUSED_UNTIL
from tests.support import tasks

pytestmark = pytest.mark.django_db

QUEUES = ["critical", "default", "high", "low"]
GROUPS = 3

# The done ones come first, as they do in life; a quarter of all is open, which is when a planner thinks that some will
# be found soon wherever it looks.
FILL = """
INSERT INTO outbox_outboxmessage (message_id, task, queue, ordering_key, status, deliver_at, published_at, started_at,
    lease_token, lease_until, done_at)
SELECT gen_random_uuid(), 'note', (%(queues)s::text[])[n %% 4 + 1], CASE WHEN status = 'blocked' THEN 'group-' || n %% %(groups)s
       ELSE '' END, status, clock_timestamp() + CASE WHEN status = 'scheduled' THEN '1 hour' ELSE '0' END::interval,
       CASE WHEN status IN ('published', 'done') THEN clock_timestamp() - '1 hour'::interval END,
       CASE WHEN running THEN clock_timestamp() END, CASE WHEN running THEN gen_random_uuid() END,
       CASE WHEN running THEN clock_timestamp() + '1 hour'::interval END,
       CASE WHEN status = 'done' THEN clock_timestamp() END
FROM (VALUES ('done', 30000, false), ('pending', 8000, false), ('blocked', 2000, false), ('scheduled', 1000, false),
             ('published', 200, false), ('published', 8, true)) AS kinds(status, count, running),
     generate_series(1, count) n
"""
SET_ASIDE = """
INSERT INTO outbox_outboxmessage (message_id, task, queue, status, deliver_at)
SELECT gen_random_uuid(), 'set aside ' || task, 'low', 'scheduled',
       %(until)s + task * interval '30 days' + n * interval '1 microsecond'
FROM generate_series(0, 1) task, generate_series(1, 2000) n
"""


_NAME = re.compile(r"PREPARE (\w+)")


@pytest.fixture
def table() -> None:
    with connection.cursor() as cursor:
        cursor.execute(FILL, {"queues": QUEUES, "groups": GROUPS})
        totals.count_once()
        cursor.execute("ANALYZE outbox_outboxmessage")
        # After the statistics, which know no such time.
        cursor.execute(SET_ASIDE, {"until": PAUSED_UNTIL})


def rows_read(step: Callable[[], Any]) -> int:
    """How many rows of the outbox the statements of `step` read, those they threw away included.

    Of a prepared statement with the worse of its two plans: for these parameters, and for any.
    """
    read = 0

    def explain(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal read
        prepare, is_prepared, executed = sql.rpartition("EXECUTE ")
        if is_prepared:
            # The plan of an earlier test may be given up here. The statement itself does that, once.
            prepare = prepare[prepare.find("PREPARE") :] if prepare else ""
            read += max(
                _rows(prepare, f"EXECUTE {executed}", params, mode=mode) for mode in ("custom", "generic")
            )
        elif "outbox_outboxmessage" in sql:
            read += _rows("", sql, params)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(explain):
        step()
    return read


def _rows(prepare: str, sql: str, params: Any, *, mode: str = "custom") -> int:
    with transaction.atomic(), connection.connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL plan_cache_mode = force_{mode}_plan")
        if prepare:
            cursor.execute(prepare)
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", params)
        answer = cursor.fetchone()[0]
        plan = (json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"]
        transaction.set_rollback(True)
    if prepare:
        # A name of its own outlives the transaction that made it.
        with connection.connection.cursor() as cursor:
            cursor.execute(f"DEALLOCATE {_NAME.findall(prepare)[0]}")
    return sum(map(_read, _nodes(plan)))


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)


def _read(node: dict[str, Any]) -> int:
    if node.get("Relation Name") != "outbox_outboxmessage" or node["Node Type"] == "ModifyTable":
        return 0
    thrown_away = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return int((node["Actual Rows"] + thrown_away) * node["Actual Loops"])


def paused(step: Callable[[], Any]) -> None:
    """Beside a task whose messages are set aside already."""
    PausedTask.objects.create(task="set aside 0", paused_by="alice", until=PAUSED_UNTIL)
    PausedTask.objects.create(task="note", paused_by="alice", until=PAUSED_UNTIL + timedelta(days=60))
    step()


def resumed(step: Callable[[], Any]) -> None:
    """Of two tasks whose messages are set aside one is resumed."""
    PausedTask.objects.create(task="set aside 0", paused_by="alice", until=PAUSED_UNTIL)
    PausedTask.objects.create(task="set aside 1", until=PAUSED_UNTIL + timedelta(days=30))
    step()


@pytest.mark.parametrize(
    ("step", "most"),
    [
        pytest.param(lambda: queries.take(dict.fromkeys(QUEUES, 0)), 10, id="is there work"),
        # Each row is found in its index, and then updated by its id; and the first of those that may be promoted are seen.
        pytest.param(lambda: queries.take({"low": 100}), 200 + 4, id="mark a batch"),
        pytest.param(lambda: queries.take({"low": 50, "high": 50}), 200 + 4, id="mark a batch of two queues"),
        pytest.param(lambda: queries.promote_due(100), 200, id="promote what is due"),
        # The first of those that are set aside is seen, too.
        pytest.param(
            lambda: paused(lambda: queries.take({"low": 100})), 200 + 5, id="set a paused task aside"
        ),
        pytest.param(
            lambda: resumed(lambda: queries.take({"low": 0})), 10, id="is there work of a resumed task"
        ),
        pytest.param(lambda: resumed(lambda: queries.release(100)), 200, id="release a resumed task"),
        # For each group: the key of the next one, its head, and the head's update.
        pytest.param(groups.promote_heads, 4 * GROUPS, id="promote heads"),
        pytest.param(lambda: groups.promote_next("group-1"), 4, id="promote the next"),
        pytest.param(lambda: queries.at_risk(15), 250, id="what may be lost"),
        pytest.param(
            lambda: queries.requeue_unstarted("low", seen_empty=True, margin_s=15),
            150,
            id="requeue the unstarted",
        ),
        pytest.param(
            lambda: queries.requeue_abandoned(worker_timeout_s=15, judge_workers=True),
            250,
            id="requeue the abandoned",
        ),
        pytest.param(lambda: stats.backlog(1000), 5 * 1000, id="is the backlog too long"),
        pytest.param(retention.prune, 250, id="prune"),
    ],
)
def test_a_statement_reads_no_more_than_the_rows_it_is_about(
    table: None, step: Callable[[], Any], most: int
) -> None:
    assert rows_read(step) <= most


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(lambda: queries.take(dict.fromkeys(QUEUES, 0)), id="is there work"),
        pytest.param(lambda: queries.at_risk(15), id="what may be lost"),
        pytest.param(lambda: groups.promote_next("group-1"), id="promote the next"),
        pytest.param(lambda: run("claim"), id="claim and settle"),
        pytest.param(lambda: run("lock"), id="lock and settle"),
    ],
)
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("clean")
def test_a_plan_for_an_empty_table_is_dropped_as_it_fills(
    step: Callable[[], Any], mocker: MockerFixture
) -> None:
    """Nothing analyzes the table meanwhile, and the time of the plan does not run out."""
    mocker.patch("outbox.prepared.time.monotonic", return_value=1000.0)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE outbox_outboxmessage SET (autovacuum_enabled = off)")
        try:
            cursor.execute("VACUUM outbox_outboxmessage")
            for _ in range(8):  # The sixth execution makes the plan that is kept.
                step()
            cursor.execute(FILL, {"queues": QUEUES, "groups": GROUPS})
            step()
            with transaction.atomic():
                before = scans()
                step()
                assert scans() == before
        finally:
            cursor.execute("ALTER TABLE outbox_outboxmessage RESET (autovacuum_enabled)")


def scans() -> int:
    """How often this transaction, and what came shortly before it, have read the whole table."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relname = 'outbox_outboxmessage'")
        return int(cursor.fetchone()[0])


def run(how: str) -> None:
    """A worker's statements about one message."""
    message_id = outbox.enqueue(tasks.note.s("a"), queue="low")
    with transaction.atomic():
        if how == "claim":
            claimed = claims.claim(message_id, 1, lease_s=60, worker="w", max_deliveries=5)
        else:
            claimed = claims.lock(message_id, 1, frozen_s=60, max_deliveries=5)
        assert isinstance(claimed, claims.Claimed)
        assert transitions.settle(claimed)
