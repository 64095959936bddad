"""The desk answers at once however much is dead: with 100,000 dead letters in 500 groups, and as many that are closed."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from tests.dlq.test_admin import client

pytestmark = pytest.mark.django_db(transaction=True)
GROUPS, LIST = reverse("admin:dlq_deadletter_groups"), reverse("admin:dlq_deadletter_changelist")
OPEN = f"{LIST}?state__exact=open"
PAGES = (
    GROUPS,
    f"{GROUPS}?sort=last",
    OPEN,
    f"{OPEN}&fingerprint=p1",
    f"{OPEN}&task=orders.tasks.send_receipt",
    f"{OPEN}&p=2",
)
#: Of a page, whatever the number of rows.
QUERIES, FIRST_BYTE_S = 20, 0.3

_FILL = """
    INSERT INTO dlq_deadletter (message_id, state, cause, task, queue, args, kwargs, headers, correlation_id, generation,
        exception, error, traceback, place, fingerprint, attempts, failures, worker, raw_digest, failed_first_at, failed_at,
        closed_at, discard_reason)
    SELECT state || gen_random_uuid(), state, 'failed',
        (ARRAY['orders.tasks.process_order', 'orders.tasks.send_receipt', 'webhooks.tasks.deliver'])[1 + n %% 3],
        (ARRAY['critical', 'high', 'default'])[1 + n %% 3], '[]', jsonb_build_object('order_id', n), '{}', '', 1,
        'requests.exceptions.ConnectionError', 'HTTPConnectionPool(host=''127.0.0.1''): order ' || n || repeat(' refused', 20),
        repeat('  File "/srv/app/orders/tasks.py", line 12, in run' || chr(10), 30), 'tasks.run_' || n %% %(groups)s,
        'p' || n %% %(groups)s, 3, 1, 'w@host', '', at, at, CASE WHEN state <> 'open' THEN at END, ''
    FROM (SELECT n, state, now() - n * interval '10 seconds' AS at
          FROM generate_series(1, %(rows)s) n, (VALUES ('open'), ('resolved')) states (state)) made
"""


def fill(rows: int, groups: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_FILL, {"rows": rows, "groups": groups})
        # As autovacuum does soon after so many rows came.
        cursor.execute("VACUUM ANALYZE dlq_deadletter")


@pytest.fixture
def operator() -> Client:
    return client("view_deadletter", "replay_deadletter", "discard_deadletter")


def asked(operator: Client, page: str) -> tuple[float, list[str]]:
    """Seconds to the page, and its statements."""
    with CaptureQueriesContext(connection) as queries:
        began = time.perf_counter()
        answer = operator.get(page)
        seconds = time.perf_counter() - began
    assert answer.status_code == 200, page
    return seconds, [query["sql"] for query in queries]


@pytest.mark.proof
def test_groups_and_list_answer_in_300_ms_with_100_000_dead_letters(
    operator: Client, figure: Callable[[str], None]
) -> None:
    fill(100_000, 500)
    for page in PAGES:
        fastest = fastest_of(operator, page)
        figure(f"{fastest * 1000:,.0f} ms: {page}")
        assert fastest <= FIRST_BYTE_S, page


def fastest_of(operator: Client, page: str, tries: int = 20) -> float:
    """Seconds that the page takes where nothing else has the processors; the fastest of some tries."""
    fastest = float("inf")
    for _ in range(tries):
        fastest = min(fastest, asked(operator, page)[0])
        if fastest <= FIRST_BYTE_S:
            break
    return fastest


def test_no_page_costs_more_for_more_rows(operator: Client) -> None:
    """No page reads all rows to count, group or filter them."""
    fill(60, 3)
    few = [len(asked(operator, page)[1]) for page in PAGES]
    fill(240, 60)
    for page, before in zip(PAGES, few, strict=True):
        _, statements = asked(operator, page)
        assert len(statements) == before <= QUERIES, page
        over_all = [
            sql for sql in statements if "dlq_deadletter" in sql and ("COUNT(" in sql or "DISTINCT" in sql)
        ]
        assert len(over_all) == 2, page
        for sql in over_all:
            assert "Index Only Scan using dlq_group" in plan(sql), sql


def plan(sql: str) -> str:
    """How PostgreSQL would answer where reading the table costs more than anything, as in a large one.

    Without plain index scans: beside a small table that no vacuum has seen, they are estimated to cost the same.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        for way in ("seqscan", "bitmapscan", "indexscan"):
            cursor.execute(f"SET LOCAL enable_{way} = off")
        cursor.execute(f"EXPLAIN {sql}")
        return "\n".join(line for (line,) in cursor.fetchall())
