"""/healthz: is this process alive. /readyz: can it do its work.

Liveness depends on nothing. If it asked the database, an outage of the database would make the orchestrator
kill every healthy process, which heals nothing and adds a thundering herd to the outage.

Readiness runs `MONITORING_READY_CHECKS` (name -> dotted path of a callable that returns when all
is well and raises otherwise; by default database, migrations and broker), all within one deadline, and
answers 503 with what is missing. A check that hangs stays behind in its thread, and probes that come
meanwhile join it instead of starting another, so that a probe every few seconds against a frozen server
does not pile up threads.

Take `broker` out of the checks where the broker's outage should not take the web tier out of the load
balancer: with an outbox orders can be accepted without it.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait

from celery import current_app
from django.db import connection, connections, transaction
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, JsonResponse
from django.utils.module_loading import import_string

from monitoring import conf

logger = logging.getLogger(__name__)

#: Below the usual probe timeout of an orchestrator, so that the answer names the culprit instead of timing
#: out.
DEADLINE_S = 2.0
#: Inside the deadline, so that a server that is frozen is reported as such and its thread ends by itself.
BROKER_TIMEOUT_S = 1.5
#: Probes come every few seconds, to every process, and a write is a flush of the log.
WRITE_EVERY_S = 10.0

_wrote_at = float("-inf")


class NotReady(Exception):
    """A check's verdict in one line."""


def healthz(request: HttpRequest) -> JsonResponse:
    """GET /healthz: 200 as long as this process can answer at all."""
    return JsonResponse({"status": "ok"})


def readyz(request: HttpRequest) -> JsonResponse:
    """GET /readyz: 200, or 503 with {"missing": {check: reason}}; answers within the deadline."""
    checks = conf.ready_checks()
    missing = run_checks({name: import_string(path) for name, path in checks.items()})
    if missing:
        logger.warning("not ready: %s", missing)
        return JsonResponse({"status": "not ready", "missing": missing}, status=503)
    return JsonResponse({"status": "ready", "checks": sorted(checks)})


def check_database() -> None:
    """The database can write: it is a primary, takes transactions, has space on its disk, and commits.

    What costs more than a read is done once in WRITE_EVERY_S by a process, however often it is asked; after a
    failure each time. A COMMIT that waits for a standby which is gone makes this check hang, which is its answer.
    """
    global _wrote_at
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::bool")
        in_recovery, read_only = cursor.fetchone()
        if in_recovery or read_only:
            raise NotReady(f"the server is {'a standby' if in_recovery else 'read only'}: it cannot write")
        if time.monotonic() - _wrote_at < WRITE_EVERY_S:
            return
        _wrote_at = float("-inf")
        with transaction.atomic():
            # A sort that does not fit into its memory goes to a file beside the tables. To write a row would say less:
            # it may find room in a page that is there, and the next order will not.
            cursor.execute("SET LOCAL work_mem = '64kB'")
            cursor.execute(
                "SELECT max(n) FROM (SELECT n FROM generate_series(1, 10000) n ORDER BY -n OFFSET 0) s"
            )
            # The write ahead log alone: a COMMIT like any other, and no row or table of ours.
            cursor.execute("SELECT pg_logical_emit_message(true, 'readyz', '')")
    _wrote_at = time.monotonic()


def check_migrations() -> None:
    """Every migration of this code is applied: code ahead of its schema must not serve."""
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if plan:
        first = plan[0][0]
        raise NotReady(f"{len(plan)} migrations are not applied, the first is {first.app_label}.{first.name}")


def check_broker() -> None:
    """The broker takes a connection and answers on it; one attempt, so that a refusal is reported as one."""
    names = ("socket_timeout", "socket_connect_timeout", "read_timeout")
    options = dict.fromkeys(names, BROKER_TIMEOUT_S)
    with current_app.connection_for_write(
        connect_timeout=BROKER_TIMEOUT_S, transport_options=options, heartbeat=0
    ) as broker:
        # Not `connect()`, which waits two seconds and tries again. The channel is what asks a Redis broker.
        once = broker.transport.establish_connection()
        try:
            broker.transport.create_channel(once)
        finally:
            broker.transport.close_connection(once)


_running: dict[str, Future[None]] = {}
_running_lock = threading.Lock()


def run_checks(checks: Mapping[str, Callable[[], None]], deadline_s: float = DEADLINE_S) -> dict[str, str]:
    """Run all at the same time; returns what failed, with the reason, within `deadline_s` seconds."""
    outcomes = {name: _begin(name, check) for name, check in checks.items()}
    wait(outcomes.values(), timeout=deadline_s)
    missing = {}
    for name, outcome in outcomes.items():
        if not outcome.done():
            missing[name] = f"no answer within {deadline_s:g} s"
        elif error := outcome.exception():
            missing[name] = _reason(error)
    return missing


def _begin(name: str, check: Callable[[], None]) -> Future[None]:
    """Start the check, or join the one of this name that is still on its way."""
    with _running_lock:
        outcome = _running.get(name)
        if outcome is None:
            outcome = _running[name] = Future()
            # A daemon: a check that hangs must not keep the process from ending.
            threading.Thread(
                target=_run, args=(name, check, outcome), name=f"readyz-{name}", daemon=True
            ).start()
        return outcome


def _run(name: str, check: Callable[[], None], outcome: Future[None]) -> None:
    error: Exception | None = None
    try:
        check()
    except Exception as raised:
        error = raised
    finally:
        connections.close_all()  # this thread's, which nothing else would close
    with _running_lock:
        del _running[name]
    if error:
        outcome.set_exception(error)
    else:
        outcome.set_result(None)


def _reason(error: BaseException) -> str:
    """One line, since the body of a probe ends up in one line of somebody's log."""
    lines = str(error).strip().splitlines()
    if isinstance(error, NotReady) and lines:
        return lines[0]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
