"""What each button does. Each returns one line that says what happened; a process is signalled only if it is of this stack."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from celery import current_app
from django.conf import settings
from kombu.exceptions import OperationalError

from lab.collect import Sandbox
from lab.controls import stack
from lab.prepare import DEMO_KEY
from lab.shoppers import Shoppers
from lab.stack.processes import OWNER
from outbox.stats import processes
from outbox.status import Role

ORDERS = 100


def break_the_gateway() -> str:
    Sandbox(settings.STRIPE_API_BASE).set_faults({"gateway": {"error_rate": 1.0}})
    return "The gateway fails every call."


def heal() -> str:
    Sandbox(settings.STRIPE_API_BASE).set_faults({})
    return "All dials are at zero."


def kill_a_worker() -> str:
    for pid in _pids(Role.WORKER):
        os.kill(pid, signal.SIGKILL)
        return f"Killed the worker with pid {pid}; it is started again."
    return "No worker of this stack runs."


def freeze_the_relay() -> str:
    return _signal_relays(signal.SIGSTOP, "Frozen")


def thaw_the_relay() -> str:
    return _signal_relays(signal.SIGCONT, "Thawed")


def wipe_the_broker() -> str:
    """What a broker that lost its disk has forgotten; on RabbitMQ but for what workers hold. Raises OSError when it is down."""
    with current_app.connection_for_write() as connection:
        try:
            connection.ensure_connection(max_retries=1)
            if connection.transport.driver_type == "amqp":
                for queue in (*settings.OUTBOX_QUEUES, settings.DLQ_UNDELIVERABLE):
                    _purge(connection, queue)
                return "The broker's queues are empty; what a worker holds, it has still."
            channel: Any = connection.default_channel
            channel.client.flushdb()
        except (OperationalError, *connection.connection_errors) as error:  # type: ignore[misc]
            raise OSError(f"the broker does not answer: {error}") from error
    return "The broker is empty."


def _purge(connection: Any, queue: str) -> None:
    with connection.channel() as channel:  # one each: an error closes it
        try:
            channel.queue_purge(queue)
        except connection.channel_errors as error:
            # There is no such queue before the first relay or worker has declared it.
            if getattr(error, "code", None) != 404:
                raise


def place_100_orders() -> str:
    """By HTTP, as customers do; returns before they are answered."""
    shoppers = Shoppers(
        f"http://127.0.0.1:{os.environ['PORT']}", DEMO_KEY.read_text().strip(), ORDERS, threads=4
    )
    shoppers.start()
    return f"{ORDERS} orders are being placed."


ACTIONS: dict[str, Callable[[], str]] = {
    action.__name__.replace("_", "-"): action
    for action in (
        *(break_the_gateway, heal, kill_a_worker, freeze_the_relay, thaw_the_relay, wipe_the_broker),
        place_100_orders,
    )
}


def _signal_relays(signum: signal.Signals, done: str) -> str:
    pids = list(_pids(Role.RELAY))
    for pid in pids:
        os.kill(pid, signum)
    return f"{done}: {len(pids)} relay{'s' * (len(pids) != 1)}."


def _pids(role: Role) -> Iterator[int]:
    """Of the processes that gave a sign of life lately: those on this machine that carry the mark of this stack."""
    mark = f"{OWNER}={stack()}".encode()
    for process in processes():
        if process.role == role and process.hostname == socket.gethostname():
            with suppress(OSError):
                if mark in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                    yield process.pid
