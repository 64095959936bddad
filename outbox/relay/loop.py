"""The relay: moves committed messages to the broker, in batches, up to each queue's depth limit.

Its claim is the publish mark: one short transaction marks a batch as published, then the batch is sent with no
transaction open. A relay that dies in between leaves rows marked and not sent; the rescuer requeues them.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Collection, Sequence

from celery import Celery
from django.db import DatabaseError, IntegrityError, InterfaceError, connection, transaction

from outbox import conf, groups, heartbeat
from outbox.broker import publisher_for
from outbox.broker.envelope import Outgoing
from outbox.broker.publisher import BrokerUnavailable, Publisher, QueueUnusable
from outbox.database import first_line, may_pass
from outbox.relay import queries
from outbox.relay.declaration import Declaration
from outbox.relay.queue_faults import Faults
from outbox.relay.rescuer import Rescuer
from outbox.status import Role

log = logging.getLogger(__name__)

#: Longest sleep of an idle relay: a message whose NOTIFY was missed waits this long at the most.
POLL_S = 1.0
RESCUE_EVERY_S = 1.0
#: How often a relay whose valve is closed looks for room in the broker.
ROOM_POLL_S = 0.1
#: The broker is asked this often at the least: RabbitMQ's answer also says whether the queue is still the one that was declared.
ASK_EVERY_S = 5.0
#: A full queue is filled up when a tenth of a batch fits in. One message for each that a worker takes would be a pass for
#: each: the relays, and their sessions in the database, would need more of the machine than the work.
ROOM_SHARE = 10
#: After a batch that is smaller than a tenth a relay waits this long, so that it does not make a pass for each message.
PAUSE_S = 0.005
#: A relay that is woken more often than that between two passes is busy, until nothing has come for `LINGER_S`: it says so,
#: and looks each `PAUSE_S`. NOTIFY makes commits take turns: at hundreds a second they would be a tenth slower for it. Where
#: messages come one by one, to be woken costs the database less than to look and to say which.
MANY_WAKES = 4
LINGER_S = 0.05
MAX_BACKOFF_S = 5.0
#: Tries of one message that cannot be sent, while others can, before it is dead-lettered. An outage counts none, nor does an
#: unusable queue.
MAX_REFUSALS = 5
#: If the broker answers for every queue and fails this often in a row to take one queue's batch, that queue is
#: unusable.
MAX_STRIKES = 2


class Relay:
    """Publishes what is due. Several may run; each message is marked by one of them."""

    def __init__(self, app: Celery, *, publisher: Publisher | None = None, batch: int | None = None) -> None:
        self._publisher = publisher or publisher_for(app)
        self._batch = batch or conf.batch()
        self._sign = heartbeat.SignOfLife(Role.RELAY)
        self._declaration = Declaration()
        self._faults = Faults()
        #: Queue -> failures of the broker in taking its batches since it last took one.
        self._strikes: Counter[str] = Counter()
        #: Queue -> messages that may be published to it before the broker is asked for its depth again, until `_ask_at`.
        self._rooms: dict[str, int] = {}
        self._ask_at = 0.0
        self._rescuer = Rescuer(self._publisher, self._faults)
        self._busy_until = 0.0
        #: The last pass has filled up the room of a queue, which may have more.
        self._filled = False
        #: The last pass has set messages aside or released them, of a task that was paused or resumed: there may be more.
        self._moved = False
        self._waits_for_room = False
        self._heads_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Publish until `stop` is set; waits out the loss of database or broker with capped, jittered backoff."""
        backoff_s, rescue_at, begun = 0.0, 0.0, False
        while not stop.is_set():
            try:
                self._sign.give()
                if not begun:
                    self._faults.begin(conf.queues())
                    begun = True
                if time.monotonic() >= rescue_at:
                    rescue_at = time.monotonic() + RESCUE_EVERY_S
                    self._rescuer.run_once()
                self._publisher.keep_alive()
                published = self.run_once()
                self._rest(published, stop, until=rescue_at)
                backoff_s = 0.0
            except (BrokerUnavailable, DatabaseError, InterfaceError) as error:
                if not isinstance(error, BrokerUnavailable) and not may_pass(error):
                    raise
                # Spends nothing: what was marked is reverted, or is the rescuer's.
                backoff_s = min(MAX_BACKOFF_S, backoff_s * 2 or 0.25)
                log.warning("Pausing %.1f s: %s", backoff_s, describe(error))
                connection.close()
                self._declaration.forget()
                self._rescuer.blinded()
                stop.wait(backoff_s * random.uniform(0.5, 1.0))
        self._leave()

    def _rest(self, published: int, stop: threading.Event, *, until: float) -> None:
        """Wait after a pass, as long as nothing is to be expected, and at the most until the rescuer's turn."""
        if self._moved:
            stop.wait(PAUSE_S)
            return
        if published:
            self._busy_until = time.monotonic() + LINGER_S
            if not self._declaration.idle or self._declaration.wakes > MANY_WAKES or self._waits_for_room:
                self._declaration.busy()
            if self._filled or published >= self._batch // ROOM_SHARE:
                return
            stop.wait(PAUSE_S)
            if not self._declaration.idle:
                return
            # What was committed since the pass has sent its NOTIFY: another pass would find nothing.
        elif self._waits_for_room:
            # A NOTIFY makes no room, and would cost every committer while the backlog grows.
            self._declaration.busy()
            stop.wait(ROOM_POLL_S)
            return
        elif not self._declaration.idle and time.monotonic() < self._busy_until:
            stop.wait(PAUSE_S)
            return
        if self._declaration.sleep(max(0.0, min(POLL_S, until - time.monotonic()))):
            self._heads_at = 0.0

    def run_once(self) -> int:
        """One pass over every queue; returns how many messages were published. Raises BrokerUnavailable."""
        # Queues that the rescuer found unusable.
        self._note_unusable()
        self._filled = self._moved = False
        taken = self._take()
        published = self._publish(taken)
        # Once for queues that had no known room, and once more for what was promoted into such a queue.
        for _ in range(2):
            more = self._more(taken)
            if more is None:
                break
            taken = more
            published += self._publish(taken)
        self._waits_for_room = bool(taken.waiting)
        return published

    def _take(self) -> queries.Taken:
        if time.monotonic() >= self._ask_at:
            self._rooms.clear()
            self._ask_at = time.monotonic() + ASK_EVERY_S
        usable = [queue for queue in conf.queues() if not self._faults.waits(queue)]
        taken = queries.take({queue: self._rooms.get(queue, 0) for queue in usable})
        self._moved |= taken.set_aside > 0
        return taken

    def _more(self, last: queries.Taken) -> queries.Taken | None:
        """Mark what has become pending since, or has room now; None if there is nothing."""
        found_room = self._find_room(last.waiting)
        if not (last.due or last.blocked or last.resumed):
            return self._take() if found_room or last.set_aside else None
        try:
            # One commit for all of it.
            with transaction.atomic():
                moved = queries.promote_due(self._batch) if last.due else 0
                moved += self._promote_heads() if last.blocked else 0
                released = queries.release(self._batch) if last.resumed else 0
                self._moved |= released > 0
                return self._take() if moved or released or found_room or last.set_aside else None
        except IntegrityError:
            return None

    def _find_room(self, waiting: Collection[str]) -> bool:
        """Ask the broker for the depths of queues with messages that wait; returns whether one has room.

        The valve: the broker holds at most its limit and a batch a relay; the backlog stays on disk. So a relay that has
        asked may publish a batch before it asks again.
        """
        queues = list(dict.fromkeys([*waiting, *self._faults.due()]))
        if not queues:
            return False
        try:
            depths = self._publisher.depths(queues)
        finally:
            self._note_unusable()
        limit = conf.depth_limit()
        rooms = {queue: min(self._batch, limit - depths[queue]) for queue in depths}
        found = {queue: room for queue, room in rooms.items() if room >= self._worth()}
        self._rooms |= found
        # For the others, publishing shows whether they accept messages again.
        self._faults.mended(queue for queue in depths if queue not in found or queue not in waiting)
        return any(queue in found for queue in waiting)

    def _worth(self) -> int:
        """The least room for which it publishes."""
        return max(1, min(self._batch, conf.depth_limit()) // ROOM_SHARE)

    def _note_unusable(self) -> None:
        found = self._publisher.unusable
        while found:
            queue, reason = found.popitem()
            self._rooms.pop(queue, None)
            self._faults.note(queue, reason)

    def _promote_heads(self) -> int:
        """Of groups that all wait for their heads a look costs time and moves nothing: at most a tenth of ours.

        A relay that listens is notified of new messages of groups, so that another look is only for what such a commit
        and the end of a head could not see of each other.
        """
        began = time.monotonic()
        if began < self._heads_at:
            return 0
        promoted = groups.promote_heads()
        now = time.monotonic()
        wait_s = POLL_S if self._declaration.idle else 0.0
        if wait_s or not promoted:
            self._heads_at = now + max(wait_s, 9 * (now - began))
        return promoted

    def _publish(self, taken: queries.Taken) -> int:
        left, published = list(taken.batches), 0
        try:
            while left:
                published += self._publish_batch(queue := left.pop(0), taken.batches[queue])
        finally:
            # What was not tried, because the broker is down.
            if left:
                queries.revert([message for queue in left for message in taken.batches[queue]])
        return published

    def _publish_batch(self, queue: str, batch: Sequence[Outgoing]) -> int:
        room = self._rooms.pop(queue) - len(batch)
        self._filled |= room == 0
        began = time.monotonic()
        try:
            refused = self._publisher.publish(batch)
        except (BrokerUnavailable, QueueUnusable) as error:
            queries.revert([message for message in batch if message.id not in error.confirmed])
            self._strikes[queue] += 1
            if isinstance(error, BrokerUnavailable) and self._strikes[queue] < MAX_STRIKES:
                raise
            reason = error.reason if isinstance(error, QueueUnusable) else str(error)
            took_s = time.monotonic() - began
            self._faults.note(queue, reason, took_s=took_s, progress=bool(error.confirmed))
            return len(error.confirmed)
        if room >= self._worth():
            self._rooms[queue] = room
        del self._strikes[queue]
        self._faults.mended([queue])
        for message in batch:
            if message.id in refused:
                log.error("%s %s not published: %s", message.task, message.message_id, refused[message.id])
                queries.refuse(message, refused[message.id], max_refusals=MAX_REFUSALS)
        return len(batch) - len(refused)

    def _leave(self) -> None:
        try:
            self._declaration.withdraw()
            self._sign.end()
        except (DatabaseError, InterfaceError) as error:
            log.warning("The relay's rows stay until a rescuer removes them: %s", describe(error))
        self._publisher.close()
        connection.close()


def describe(error: Exception) -> str:
    """One line for the log: which server is down, and what its client says."""
    server = "broker" if isinstance(error, BrokerUnavailable) else "database"
    return f"{server} unavailable ({first_line(error)})"
