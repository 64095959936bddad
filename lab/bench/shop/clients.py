"""Clients of the API: as fast as it answers, or at a rate that does not wait for it."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from lab.shoppers import random_order

TIMEOUT_S = 30.0


class Clients:
    """Threads that place orders, each on a connection that it keeps. Not to be used by two threads."""

    def __init__(self, url: str, api_key: str, *, seed: int) -> None:
        self._url = f"{url}/api/orders"
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._dice = random.Random(seed)
        self._local = threading.local()

    def place(
        self, orders: int, skus: Sequence[str], *, threads: int, per_second: float | None = None
    ) -> list[float]:
        """Place that many orders; returns the seconds that each took.

        With `per_second` an order's time begins when it was due, so that a slow answer counts for those that wait behind it.
        Raises RuntimeError for any answer but 202.
        """
        bodies = [random_order(self._dice, skus) for _ in range(orders)]
        pool = ThreadPoolExecutor(threads, thread_name_prefix="client")
        begun = time.perf_counter()
        try:
            placed: list[Future[float]] = []
            for number, body in enumerate(bodies):
                due = None if per_second is None else begun + number / per_second
                if due is not None:
                    time.sleep(max(0.0, due - time.perf_counter()))
                placed.append(pool.submit(self._post, body, due))
            return [future.result() for future in placed]
        except requests.RequestException as error:
            raise RuntimeError(f"POST /api/orders: {error}") from error
        finally:
            pool.shutdown(cancel_futures=True)

    def _post(self, body: dict[str, Any], due: float | None) -> float:
        session = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            # gunicorn closes a connection that says nothing for two seconds, and may do so as we send.
            again = Retry(total=2, status=0, allowed_methods=None)
            session.mount("http://", HTTPAdapter(max_retries=again))
        begun = time.perf_counter() if due is None else due
        headers = {**self._headers, "Idempotency-Key": str(uuid.uuid4())}
        answer = session.post(self._url, json=body, headers=headers, timeout=TIMEOUT_S)
        taken = time.perf_counter() - begun
        if answer.status_code != 202:
            raise RuntimeError(f"POST /api/orders answered {answer.status_code} {answer.text[:200]}")
        return taken
