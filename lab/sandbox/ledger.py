"""The sandbox's durable ledger: one SQLite file, one writer, any number of readers.

An effect, the answer saved under its idempotency key and the events about it are one transaction, and an
answer is sent only after its commit. So a sandbox that is killed has never answered what it then forgets.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS gateway_object (  -- intents, charges, refunds and events as their Stripe documents
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    payment_intent TEXT,
    order_id TEXT,
    created INTEGER NOT NULL,
    document TEXT NOT NULL
);
-- Whatever the code above it does, an intent is captured once.
CREATE UNIQUE INDEX IF NOT EXISTS one_capture_per_intent ON gateway_object (payment_intent)
    WHERE kind = 'charge';
CREATE INDEX IF NOT EXISTS gateway_object_by_kind ON gateway_object (kind, seq);
CREATE INDEX IF NOT EXISTS gateway_object_by_intent ON gateway_object (payment_intent, kind);
CREATE INDEX IF NOT EXISTS gateway_object_by_order ON gateway_object (order_id, kind);

CREATE TABLE IF NOT EXISTS idempotency_key (
    key TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    status INTEGER NOT NULL,
    body BLOB NOT NULL,
    request_id TEXT NOT NULL,
    created REAL NOT NULL
);

CREATE TABLE IF NOT EXISTS event_posting (
    event_id TEXT PRIMARY KEY,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt_at REAL NOT NULL,
    delivered_at REAL
);
CREATE INDEX IF NOT EXISTS event_posting_due ON event_posting (next_attempt_at) WHERE delivered_at IS NULL;

CREATE TABLE IF NOT EXISTS shipment (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    idempotency_key TEXT UNIQUE,  -- NULL = the caller sent none, and every such call ships
    order_id TEXT NOT NULL,
    request TEXT NOT NULL,
    created INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS shipment_by_order ON shipment (order_id);

CREATE TABLE IF NOT EXISTS crm_order (
    order_id TEXT PRIMARY KEY,
    document TEXT NOT NULL,
    syncs INTEGER NOT NULL DEFAULT 1,
    updated INTEGER NOT NULL
);

CREATE TABLE IF NOT EXISTS merchant (id TEXT PRIMARY KEY, secret TEXT NOT NULL);

CREATE TABLE IF NOT EXISTS webhook_delivery (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,  -- the order of arrival over all merchants
    merchant TEXT NOT NULL,
    webhook_id TEXT NOT NULL,
    accepted INTEGER NOT NULL,
    verified INTEGER NOT NULL,
    body TEXT NOT NULL,
    received REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS webhook_delivery_by_id ON webhook_delivery (merchant, webhook_id);

CREATE TABLE IF NOT EXISTS mail (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id TEXT NOT NULL,
    recipients TEXT NOT NULL,
    subject TEXT NOT NULL,
    raw BLOB NOT NULL,
    received REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS mail_by_message_id ON mail (message_id);
"""
_TABLES = (
    "gateway_object",
    "idempotency_key",
    "event_posting",
    "shipment",
    "crm_order",
    "merchant",
    "webhook_delivery",
    "mail",
)


class Closed(Exception):
    """The ledger has been closed: the sandbox is stopping."""


class Ledger:
    """The ledger under `directory`; created when missing, continued when there."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "ledger.sqlite3"
        self._lock = threading.Lock()
        self._writer: sqlite3.Connection | None = self._connect()
        self._writer.executescript(_SCHEMA)
        #: A connection a thread: to open one takes longer than most reads. It ends with its thread.
        self._reader = threading.local()
        self._kept: sqlite3.Connection | None = None

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=10)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode = WAL")
        # NORMAL leaves a commit in the page cache, which outlives the process, however it dies. Only a crash
        # of the machine could take it back, and then the app's own PostgreSQL is the thing under test, not
        # the sandbox.
        db.execute("PRAGMA synchronous = NORMAL")
        return db

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One write at a time; committed on return, rolled back on an exception. Raises `Closed`."""
        with self._lock:
            if self._writer is None:
                raise Closed
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
            except BaseException:
                self._writer.execute("ROLLBACK")
                raise
            self._writer.execute("COMMIT")

    def read(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """Committed rows, read beside the writer: listing 100,000 charges does not stop the services."""
        if not hasattr(self._reader, "db"):
            self._reader.db = self._connect()
        return list(self._reader.db.execute(sql, values).fetchall())

    def erase(self) -> None:
        """Forget everything, for the next test."""
        with self.transaction() as db:
            for table in _TABLES:
                db.execute(f"DELETE FROM {table}")

    def keep(self) -> None:
        """Remember all that is written, in memory, in place of what was remembered before. Raises `Closed`."""
        with self._lock:
            if self._writer is None:
                raise Closed
            self._kept = sqlite3.connect(":memory:", check_same_thread=False)
            self._writer.backup(self._kept)

    def put_back(self) -> bool:
        """Everything as it was at `keep`; False when there was none. Raises `Closed`."""
        with self._lock:
            if self._writer is None:
                raise Closed
            if self._kept is None:
                return False
            self._kept.backup(self._writer)
            return True

    def close(self) -> None:
        """Finish the transaction under way and take no more."""
        with self._lock:
            if self._writer is not None:
                self._writer.close()
            self._writer = None
