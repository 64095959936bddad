"""What the publishers of every broker share: one connection kept alive, and the errors by which the relay decides.

A publisher either returns what it could not send, message by message, or raises `BrokerUnavailable` or `QueueUnusable`;
whatever is in none of these is with the broker.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from celery import Celery
from kombu import Connection
from kombu.exceptions import OperationalError

from outbox.broker.envelope import Outgoing

log = logging.getLogger(__name__)

#: An idle connection is looked at this often. A heartbeat is due every 30 s (half of RabbitMQ's 60).
TEND_EVERY_S = 1.0


class BrokerUnavailable(Exception):
    """The broker cannot be reached, or takes nothing.

    Of the batch it has the messages whose row ids are in `confirmed`; what became of the others is unknown.
    """

    def __init__(self, reason: str, confirmed: Collection[int] = ()) -> None:
        super().__init__(reason)
        self.confirmed = frozenset(confirmed)


class QueueUnusable(Exception):
    """The broker works, and takes nothing for this one queue: wrong type, no permission, full, without a majority.

    Of the batch the broker has the messages whose row ids are in `confirmed`; of the others nothing is known.
    """

    def __init__(self, queue: str, reason: str, confirmed: Collection[int] = ()) -> None:
        super().__init__(f"queue {queue}: {reason}")
        self.queue = queue
        self.reason = reason
        self.confirmed = frozenset(confirmed)


class Publisher:
    """A connection to the broker for one relay. Not for use by several threads.

    `unusable` collects queue -> reason for every queue that the broker answered for with an error while this
    publisher connected or looked at depths; its reader takes the entries out.
    """

    _connection: Connection | None = None
    _channel: Any = None
    _tended_at = 0.0

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._confirmed: set[int] = set()
        self.unusable: dict[str, str] = {}

    def publish(self, batch: Sequence[Outgoing]) -> dict[int, str]:
        """Publish the batch; returns row id -> reason for what cannot be sent. Raises BrokerUnavailable, QueueUnusable."""
        self._confirmed = set()
        with self._open() as channel:
            return self._send(channel, batch)

    def depths(self, queues: Sequence[str]) -> dict[str, int]:
        """Messages ready in each queue, those already handed to a worker not counted. Raises BrokerUnavailable.

        A queue that is unusable has no depth: it is missing here, and in `unusable`.
        """
        self._confirmed = set()
        with self._open() as channel:
            return self._depths(channel, queues)

    def keep_alive(self) -> None:
        """To be called every few seconds while there is nothing to publish; costs nothing more often.

        Keeps up the heartbeat. A connection that broke meanwhile is dropped here, where nothing is at stake,
        and the next use opens another.
        """
        if self._channel is None or time.monotonic() - self._tended_at < TEND_EVERY_S:
            return
        self._tended_at = time.monotonic()
        try:
            self._tend(self._channel)
        except Exception as error:  # Whatever it is, a new connection is the answer to it.
            log.info("The idle connection to the broker is dropped: %s", error)
            self.close()

    def close(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            try:
                connection.collect(socket_timeout=1)
            except (
                Exception
            ) as error:  # Closing a broken connection may fail in any way, and does not matter.
                del error

    @contextmanager
    def _open(self) -> Iterator[Any]:
        """The channel; every way in which a connection breaks becomes BrokerUnavailable, and the next use reconnects."""
        self.keep_alive()
        try:
            if self._channel is None:
                # Without a heartbeat a firewall may drop an idle connection, and neither side is told.
                self._connection = self._app.connection_for_write(heartbeat=self._app.conf.broker_heartbeat)
                # One try a host. `connect` would wait two seconds and try again, and the relay has its own backoff.
                self._connection.ensure_connection(max_retries=max(0, len(self._connection.alt) - 1))
                self._channel = self._connection.channel()
                self._prepare(self._channel)
            yield self._channel
        except (BrokerUnavailable, QueueUnusable):
            # The connection is sound, and the broker will report on it that it accepts messages again.
            raise
        except (OperationalError, OSError) as error:
            self.close()
            raise BrokerUnavailable(str(error.__cause__ or error), self._confirmed) from error
        except Exception as error:
            known = self._connection is not None and isinstance(
                error, (*self._connection.connection_errors, *self._connection.channel_errors)
            )
            self.close()
            # kombu counts KeyError as a connection error; here it would be our own bug.
            if known and not isinstance(error, KeyError):
                raise BrokerUnavailable(f"{type(error).__name__}: {error}", self._confirmed) from error
            raise

    def _prepare(self, channel: Any) -> None: ...

    def _tend(self, channel: Any) -> None: ...

    def _send(self, channel: Any, batch: Sequence[Outgoing]) -> dict[int, str]:
        raise NotImplementedError

    def _depths(self, channel: Any, queues: Sequence[str]) -> dict[str, int]:
        raise NotImplementedError
