"""Stripe's rules for the Idempotency-Key header.

The first answer of an execution is saved under its key, whatever it is (a 402 and a 500 too), and replayed to
every later request with the same parameters. What was refused before the execution began (a bad parameter,
401, 409, 429, an outage in front of the endpoint) is not saved, so a retry may succeed. Source:
https://docs.stripe.com/api/idempotent_requests
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lab.sandbox.ledger import Ledger
from lab.sandbox.stripe_errors import stripe_error
from lab.sandbox.wire import Answer, Refused, Request

MAX_KEY_LENGTH = 255  # Stripe's
DAY_S = 24 * 60 * 60


class IdempotencyKeys:
    """Executes each (key, parameters) once within `ttl_s` seconds (Stripe prunes keys after about a day)."""

    def __init__(self, ledger: Ledger, *, ttl_s: float) -> None:
        self._ledger = ledger
        self._ttl_s = ttl_s
        self._lock = threading.Lock()
        # In memory on purpose: what was in flight when the sandbox died has ended, and its key must be free
        # again.
        self._in_flight: set[str] = set()

    def once(
        self,
        request: Request,
        request_id: str,
        execute: Callable[[sqlite3.Connection], Answer],
    ) -> Answer:
        """The saved answer for the request's key, or else `execute`'s, committed together with its effects.

        `execute` raises `Refused` for what must not be saved. Raises `Refused` for a key that is too long, in
        flight (409) or was used with other parameters (400).
        """
        key = request.header("Idempotency-Key")
        if not key:
            request.work()
            with self._ledger.transaction() as db:
                return execute(db)
        if len(key) > MAX_KEY_LENGTH:
            raise Refused(
                stripe_error(
                    400,
                    "idempotency_error",
                    f"Idempotency-Key is too long: {len(key)} characters, at most {MAX_KEY_LENGTH}.",
                )
            )
        with self._flight(key):
            fingerprint = _fingerprint(request)
            saved = self._saved(key, fingerprint)
            if saved is not None:
                return saved
            request.work()
            with self._ledger.transaction() as db:
                if request.plan.cached_error:
                    answer = stripe_error(
                        500, "api_error", "An error occurred while the request was carried out."
                    )
                else:
                    answer = execute(db)
                db.execute(  # REPLACE: an expired key is new again
                    "REPLACE INTO idempotency_key VALUES (?, ?, ?, ?, ?, ?)",
                    (key, fingerprint, answer.status, answer.body, request_id, time.time()),
                )
            answer.headers["Idempotency-Key"] = key
            return answer

    @contextmanager
    def _flight(self, key: str) -> Iterator[None]:
        with self._lock:
            if key in self._in_flight:
                raise Refused(
                    stripe_error(
                        409,
                        "idempotency_error",
                        "There is currently another in-progress request using this Idempotency Key.",
                        code="idempotency_key_in_use",
                    )
                )
            self._in_flight.add(key)
        try:
            yield
        finally:
            with self._lock:
                self._in_flight.discard(key)

    def _saved(self, key: str, fingerprint: str) -> Answer | None:
        with self._ledger.transaction() as db:
            row = db.execute(
                "SELECT * FROM idempotency_key WHERE key = ? AND created > ?",
                (key, time.time() - self._ttl_s),
            ).fetchone()
        if row is None:
            return None
        if row["fingerprint"] != fingerprint:
            raise Refused(
                stripe_error(
                    400,
                    "idempotency_error",
                    "Keys for idempotent requests can only be used with the same parameters they were"
                    " first used with.",
                )
            )
        headers = {
            "Idempotency-Key": key,
            "Idempotent-Replayed": "true",
            "Original-Request": row["request_id"],
        }
        return Answer(row["status"], row["body"], headers)


def _fingerprint(request: Request) -> str:
    """Equal for equal endpoint and parameters, in whatever order a client encodes them."""
    meant = json.dumps([request.method, request.path, request.form()], sort_keys=True)
    return hashlib.sha256(meant.encode()).hexdigest()
