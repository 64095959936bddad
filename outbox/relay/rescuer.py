"""The rescuer: requeues what the broker lost and what a dead worker began.

One rule for all of it (FLUSHALL, a purged queue, a lost disk, a killed relay or worker, a message lost between
BRPOP and the unacked hash): the row is open, and there is evidence that no copy of it is coming. The same
generation is published again, so that a wrong guess costs one skipped copy.
"""

from __future__ import annotations

import logging
import time

from outbox import conf, totals
from outbox.broker.publisher import BrokerUnavailable, Publisher
from outbox.relay import queries
from outbox.relay.queue_faults import Faults

log = logging.getLogger(__name__)

#: How often the rows of processes that are gone are removed, and what has ended is counted. Neither is waited for: a reader
#: of the totals adds what has ended since the last count.
TIDY_EVERY_S = 10.0


class Rescuer:
    """Runs inside every relay; several at once do no harm, since every requeue is one guarded statement."""

    def __init__(self, publisher: Publisher, faults: Faults) -> None:
        self._publisher = publisher
        self._faults = faults
        self._seeing_since = self._passed_at = time.monotonic()
        self._tidy_at = 0.0

    def blinded(self) -> None:
        """The database was down: heartbeats could not be written, so their absence proves nothing for a while."""
        self._seeing_since = time.monotonic()

    def run_once(self) -> int:
        """One pass; returns how many messages were requeued. A broker that is down is no evidence of loss."""
        timeout_s, margin_s = conf.worker_timeout_s(), conf.margin_s()
        if time.monotonic() - self._passed_at > timeout_s / 2:
            # This process stood still, or the database did, which may have kept the workers from writing, too.
            self.blinded()
        at_risk = queries.at_risk(margin_s)
        requeued = 0
        if at_risk.running:
            requeued = queries.requeue_abandoned(
                worker_timeout_s=timeout_s, judge_workers=time.monotonic() - self._seeing_since > timeout_s
            )
        queues, known = [], conf.queues()
        for queue in at_risk.queues:
            if queue in known:
                # What an unusable queue holds cannot be known: no evidence of loss, until it answers again.
                if not self._faults.waits(queue):
                    queues.append(queue)
            else:
                log.error("Published messages wait in %r, which is not in OUTBOX_QUEUES, or no longer", queue)
        if queues:
            try:
                depths = self._publisher.depths(queues)
            except BrokerUnavailable:
                depths = {}
            for queue, depth in depths.items():
                requeued += queries.requeue_unstarted(queue, seen_empty=depth == 0, margin_s=margin_s)
        self._faults.adopt()
        if time.monotonic() >= self._tidy_at:
            queries.forget_processes(worker_timeout_s=timeout_s)
            totals.count_once()
            self._tidy_at = time.monotonic() + TIDY_EVERY_S
        self._passed_at = time.monotonic()
        if requeued:
            log.warning("Requeued %d messages: the broker lost them, or their worker died", requeued)
        return requeued
