"""The environment of one explorer: its database, broker and sandbox, how to make them new, and how to run a part in a child."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from django.apps import apps
from django.db import connection
from django.test import Client

from lab.faultpoints import runs
from lab.faultpoints.boundaries import Crossing, Watch, watching
from lab.faultpoints.in_process import Processes
from lab.faultpoints.sandbox import KeptSandbox
from lab.faultpoints.snapshot import Snapshot
from lab.stack.processes import die_with_parent

State = dict[str, Any]

#: What is not an effect of any scenario, and so stays: schema, accounts, catalogue, subscriptions, templates.
_KEPT = ("django_", "auth_", "orders_customer", "orders_apikey", "orders_product", "orders_price")
_KEPT_TOO = ("webhooks_subscription", "notifications_emailtemplate")
#: Of those, the ones whose rows scenarios change.
_RESET = ("orders_product", "webhooks_subscription")
CUSTOMERS = (1, 2)
STOCK = 1_000
#: Longest that a child may take; a scenario takes a tenth of a second.
CHILD_TIMEOUT_S = 120.0


class Start(Protocol):
    """What makes the first state of a scenario; `name` tells it from others."""

    @property
    def name(self) -> str: ...

    @property
    def start(self) -> Callable[[Environment], State]: ...


@dataclass(frozen=True)
class ChildReport:
    """How a child ended: `killed` by its own SIGKILL, or with `error` (a traceback, '' for none) of the class `kind`.

    `said`: what it had to tell at its end, if it lived to do so.
    """

    killed: bool
    crossings: list[Crossing] = field(default_factory=list)
    error: str = ""
    kind: str = ""
    said: Any = None


class Environment:
    """Everything that a scenario touches. One per explorer process."""

    def __init__(self, sandbox_url: str) -> None:
        self.sandbox = KeptSandbox(sandbox_url)
        self._url = sandbox_url
        self._processes: Processes | None = None
        self._abandoned: list[Any] = []
        self._snapshot: Snapshot | None = None
        self.tables: list[str] = []
        self.wipe = ""
        self._rows: dict[str, list[Any]] = {}
        self._secrets: dict[int, str] = {}
        self.api_key = ""

    def found(self) -> None:
        """Seed what stays, once per database."""
        from django.contrib.auth.models import User

        from orders.models import ApiKey, Product
        from orders.seed import seed_demo as seed_orders
        from webhooks.seed import seed_demo as seed_webhooks

        runs.create_table()
        seed_orders()
        seed_webhooks(f"{self._url}/merchants/{{customer_id}}/webhooks", customer_ids=CUSTOMERS)
        Product.objects.update(stock=STOCK, reserved=0, shipped=0)
        User.objects.update_or_create(
            username="ada", defaults={"email": "ada@example.com", "password": "md5$a$b"}
        )
        _, self.api_key = ApiKey.issue("crashpoints")
        tables = [
            table
            for table in connection.introspection.table_names()
            if not table.startswith(_KEPT) and table not in _KEPT_TOO
        ]
        self.tables = [*tables, *_RESET]
        # Constraints between the tables wait until all are empty.
        self.wipe = (
            "SET session_replication_role = replica; "
            + "; ".join(f"DELETE FROM {table}" for table in tables)
            + f"; UPDATE orders_product SET stock = {STOCK}, reserved = 0, shipped = 0"
            + "; UPDATE webhooks_subscription SET is_active = true, disabled_reason = ''"
            + "; SET session_replication_role = origin"
        )

    def start(self, scenario: Start) -> State:
        """The scenario's first state, on all sides: staged, or as it was staged a moment ago."""
        if self._snapshot is not None and self._snapshot.fits(scenario.name):
            state = self._snapshot.put_back(self.sandbox, self.processes)
        else:
            self.renew()
            state = scenario.start(self)
            self._snapshot = Snapshot.take(self.sandbox, self.processes, self.tables, scenario.name, state)
        self._forget()
        return state

    def renew(self) -> None:
        """Everything as it was before the first order, on all sides."""
        from webhooks.models import Subscription

        with connection.cursor() as cursor:
            cursor.execute(self.wipe)
        self.sandbox.erase()
        self.sandbox.set_faults({})
        if not self._secrets:
            self._secrets = dict(Subscription.objects.values_list("customer_id", "secret"))
        for customer_id, secret in self._secrets.items():
            self.sandbox.introduce_merchant(customer_id, secret)
        self.processes.forget_everything()
        self.processes.forget_locks()
        self._forget()

    def _forget(self) -> None:
        """What this process remembers of what it did."""
        from orders.api.limits import _admission
        from resilience.breaker import reset_all

        self.processes.two_heads.clear()
        reset_all()
        _admission.cache_clear()  # It counts once a second only: a later run would do one statement less.

    @property
    def processes(self) -> Processes:
        if self._processes is None:
            self._processes = Processes()
        return self._processes

    def processes_of_this_process(self, use: Callable[[Processes], object]) -> Callable[[], None]:
        """`use` with the processes that belong to the calling process: a forked child has its own."""

        def call() -> None:
            use(self.processes)

        return call

    def client(self) -> Client:
        """An API client with the key that sees all."""
        return Client(raise_request_exception=False, headers={"Authorization": f"Bearer {self.api_key}"})

    def rows(self, label: str) -> list[Any]:
        """All rows of a model, oldest first; read once until `forget_books`."""
        if label not in self._rows:
            self._rows[label] = list(model(label).objects.order_by("pk"))
        return self._rows[label]

    def forget_books(self) -> None:
        """What was read of tables and ledgers may be out of date."""
        self._rows = {}
        self.sandbox.forget()

    def at_start(self) -> dict[str, int]:
        from orders.models import Product

        return dict.fromkeys(Product.objects.values_list("sku", flat=True), STOCK)

    def child(
        self,
        body: Callable[[], None],
        watch: Callable[[], Watch] = Watch,
        last_words: Callable[[], Any] = lambda: None,
    ) -> ChildReport:
        """Run `body` in a forked child, watched; returns how it ended, and what it then said."""
        pid, reader = self.start_child(body, watch, last_words)
        return self.end_child(pid, reader)

    def start_child(
        self,
        body: Callable[[], None],
        watch: Callable[[], Watch] = Watch,
        last_words: Callable[[], Any] = lambda: None,
    ) -> tuple[int, int]:
        from outbox.session import is_shared

        reader, writer = os.pipe()
        pid = os.fork()
        if pid:
            os.close(writer)
            return pid, reader
        try:
            os.close(reader)
            die_with_parent(signal.SIGKILL)()
            signal.alarm(
                int(CHILD_TIMEOUT_S)
            )  # Its default action ends the process: seen as not killed by us.
            gc.disable()  # It would touch, and so copy, every page that is shared with the parent.
            self._leave_parents_connections()
            is_shared()  # connects, and asks what a connection is asked once: else the first of its statements would be two
            self.processes.begin()  # connects now, unwatched
            watcher = watch()
            error = kind = ""
            try:
                with watching(watcher):
                    body()
            except Exception as raised:
                error, kind = traceback.format_exc(), type(raised).__name__
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(pickle.dumps((watcher.crossings, error, kind, last_words())))
        finally:
            os._exit(0)

    def end_child(self, pid: int, reader: int) -> ChildReport:
        with os.fdopen(reader, "rb") as pipe:
            content = pipe.read()
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            return ChildReport(killed=True)
        if not content:
            return ChildReport(killed=False, error=f"the child ended with status {status} and said nothing")
        crossings, error, kind, said = pickle.loads(content)
        return ChildReport(killed=False, crossings=crossings, error=error, kind=kind, said=said)

    def _leave_parents_connections(self) -> None:
        """Forget, but do not close: a farewell on the shared socket would end the parent's session."""
        from config.celery import app
        from orders.api.limits import _admission
        from outbox import context

        # Its lock may be held where the parent was struck, and no thread of this process would ever release it.
        _admission.cache_clear()
        # A duplicate is another worker, which is not inside the task that the struck one is running.
        context._current.set(None)
        for task in app.tasks.values():
            while task.request_stack is not None and task.request_stack.top is not None:
                task.pop_request()
        self._abandoned.append(connection.connection)
        connection.connection = None
        # What Django remembers of the connection it no longer has.
        connection.closed_in_transaction = False
        connection.in_atomic_block = False
        connection.savepoint_ids, connection.atomic_blocks = [], []
        connection.needs_rollback = False
        connection.run_on_commit = []


def model(label: str) -> Any:
    """The model `app.Name`: scenarios look at every app, as an operator's SQL would."""
    return apps.get_model(label)
