"""The sandbox as one explorer process uses it: one connection, and ledgers that are read once for all invariants."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import urllib3

from lab.collect import Sandbox


class KeptSandbox(Sandbox):
    """The sandbox's control side on one connection, with the ledgers read once, all together, until `forget`."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._base = url
        self._pool = urllib3.PoolManager()
        self._pid = os.getpid()
        self._read: dict[str, list[dict[str, Any]]] = {}
        #: As this process set them last; None: unknown.
        self.faults: Mapping[str, Any] | None = None

    def forget(self) -> None:
        """What was read may be out of date."""
        self._read = {}

    def set_faults(self, faults: Mapping[str, Any]) -> None:
        if faults or self.faults != {}:
            self._call("PUT", "/faults", json=faults)
        self.faults = dict(faults)

    def introduce_merchant(self, customer_id: int, secret: str) -> None:
        self._call("PUT", f"/merchants/{customer_id}", json={"secret": secret})

    def dispute(self, payment_intent: str) -> str:
        """The customer disputes this payment at the bank; returns the dispute's id."""
        answer = self._call("POST", "/disputes", json={"payment_intent": payment_intent})
        return str(answer.json()["id"])

    def erase(self) -> None:
        """An empty ledger."""
        self._call("DELETE", "/ledger")

    def keep(self) -> None:
        """Have the sandbox remember its ledger as it is."""
        self._call("PUT", "/ledger/snapshot")

    def put_back(self) -> None:
        """The ledger as it was at `keep`."""
        self._call("PUT", "/ledger")

    def ledger(self, name: str) -> list[dict[str, Any]]:
        if not self._read:
            self._read = self._call("GET", "/ledger").json()
        return self._read[name]

    def _call(self, method: str, path: str, **kwargs: Any) -> urllib3.BaseHTTPResponse:
        if self._pid != os.getpid():  # A forked child must not talk on its parent's connection.
            self._pool, self._pid = urllib3.PoolManager(), os.getpid()
        # Not through requests: what it does around each call costs more than the sandbox's answer.
        answer = self._pool.request(method, f"{self._base}{path}", timeout=60, **kwargs)
        assert answer.status == 200, f"{method} {path}: {answer.status} {answer.data!r}"
        return answer
