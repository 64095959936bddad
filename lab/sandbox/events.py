"""The gateway's events: recorded with what they report, then posted, signed, until the app answers 2xx."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import logging
import random
import sqlite3
import threading
import time
from urllib.parse import urlsplit

from lab.sandbox import objects
from lab.sandbox.faults import Faults
from lab.sandbox.ledger import Closed, Ledger
from lab.sandbox.objects import Document

log = logging.getLogger(__name__)

PATH = "/webhooks/gateway"
TIMEOUT_S = 10.0
FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 30.0
# With the waits above about nine minutes: longer than any outage the lab makes, and still an end.
MAX_ATTEMPTS = 24
POSTERS = 2  # so that one slow answer of the app does not hold up every other event


def record(db: sqlite3.Connection, kind: str, about: Document) -> None:
    """Record an event in the transaction that caused it: there is none without the other."""
    event: Document = {
        "id": objects.new_id("evt"),
        "object": "event",
        "api_version": None,
        "created": objects.now(),
        "data": {"object": about},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": kind,
    }
    objects.put(db, event)
    db.execute(
        "INSERT INTO event_posting (event_id, next_attempt_at) VALUES (?, ?)", (event["id"], time.time())
    )


def signature(secret: str, body: bytes, at: int) -> str:
    """The Stripe-Signature header. Source: https://docs.stripe.com/webhooks#verify-manually"""
    mac = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={mac}"


class EventPosters:
    """Threads that post due events to `app_url`; without one, events are only listed by GET /v1/events.

    At least once and in no promised order, as Stripe: a lost 2xx and the duplicate dial both repeat an event.
    """

    def __init__(self, ledger: Ledger, faults: Faults, *, app_url: str, secret: str) -> None:
        self.app_url = app_url
        self._ledger = ledger
        self._faults = faults
        self._secret = secret
        self._stopped = threading.Event()
        self._new = threading.Condition()

    def start(self) -> None:
        for number in range(POSTERS):
            threading.Thread(target=self.run, name=f"event-poster-{number}", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()
        self.wake()

    def wake(self) -> None:
        """Say that an event was recorded (or the address changed)."""
        with self._new:
            self._new.notify_all()

    def run(self) -> None:
        """Post what is due until stopped."""
        while not self._stopped.is_set():
            try:
                if self.run_once():
                    continue
            except Closed:
                return
            with self._new:
                # The timeout bounds how late a due retry is, and an event whose wake-up was missed.
                self._new.wait(timeout=0.25)

    def run_once(self) -> int:
        """Post one due event. Returns how many were due: 0 or 1."""
        if not self.app_url:
            return 0
        claimed = self._claim()
        if claimed is None:
            return 0
        event_id, attempts, body = claimed
        delivered = self._post(event_id, body)
        if delivered and self._faults.duplicates_event():
            self._post(event_id, body)
        wait = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2**attempts) * random.uniform(0.5, 1)
        with self._ledger.transaction() as db:
            db.execute(
                "UPDATE event_posting SET next_attempt_at = ?, delivered_at = ? WHERE event_id = ?",
                (time.time() + wait, time.time() if delivered else None, event_id),
            )
        if not delivered and attempts + 1 >= MAX_ATTEMPTS:
            log.error("gave up posting event %s after %d attempts", event_id, attempts + 1)
        return 1

    def _claim(self) -> tuple[str, int, bytes] | None:
        with self._ledger.transaction() as db:
            row = db.execute(
                "SELECT event_id, attempts, document FROM event_posting"
                " JOIN gateway_object ON gateway_object.id = event_id"
                " WHERE delivered_at IS NULL AND next_attempt_at <= ? AND attempts < ?"
                " ORDER BY next_attempt_at LIMIT 1",
                (time.time(), MAX_ATTEMPTS),
            ).fetchone()
            if row is None:
                return None
            # Taken by no other thread while it is being posted, and due again if the sandbox dies meanwhile.
            db.execute(
                "UPDATE event_posting SET attempts = attempts + 1, next_attempt_at = ? WHERE event_id = ?",
                (time.time() + 3 * TIMEOUT_S, row["event_id"]),
            )
        return row["event_id"], row["attempts"], row["document"].encode()

    def _post(self, event_id: str, body: bytes) -> bool:
        target = urlsplit(self.app_url)
        kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
        # A connection for each event: a kept one is stale after the app restarts, as it often does here.
        connection = kind(target.hostname or "", target.port, timeout=TIMEOUT_S)
        try:
            connection.request(
                "POST",
                target.path.rstrip("/") + PATH,
                body,
                {
                    "Content-Type": "application/json",
                    "User-Agent": "Stripe/1.0 (sandbox)",
                    "Stripe-Signature": signature(self._secret, body, int(time.time())),
                },
            )
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            log.info("event %s not delivered: %s", event_id, error or type(error).__name__)
            return False
        finally:
            connection.close()
        if not 200 <= status < 300:
            log.info("event %s not delivered: the app answered %d", event_id, status)
        return 200 <= status < 300


def due(ledger: Ledger) -> int:
    """How many events are still to be posted."""
    rows = ledger.read(
        "SELECT count(*) AS open FROM event_posting WHERE delivered_at IS NULL AND attempts < ?", MAX_ATTEMPTS
    )
    return int(rows[0]["open"])
