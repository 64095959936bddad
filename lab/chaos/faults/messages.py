"""Faults of the transport: messages that come twice, in another order, or were never ours."""

from __future__ import annotations

import random

from lab.chaos.brokers import garbage, no_envelopes
from lab.chaos.faults.kinds import Hit, kind
from lab.chaos.system import System


@kind("messages delivered twice", "broker content")
def duplicate(system: System, dice: random.Random) -> Hit | None:
    copies = system.broker.copy(dice, most=10)
    if not copies:
        return None
    system.added_to_broker(copies)
    return Hit(copies)


@kind("messages reordered", "broker content")
def reorder(system: System, dice: random.Random) -> Hit | None:
    moved = system.broker.reorder(dice)
    if not moved:
        return None
    if not system.broker.reorders_in_place:
        system.added_to_broker(moved)
    return Hit(moved)


@kind("garbage in the queues", "broker content")
def inject_garbage(system: System, dice: random.Random) -> Hit | None:
    if not system.in_broker():
        return None
    broken = garbage(dice)
    for message_id, body, headers, content_type in broken:
        system.injected.add(message_id)
        system.broker.inject(body, headers, content_type, dice.choice(system.broker.queues))
    items = no_envelopes(dice)
    for item in items:
        system.broker.inject_raw(item, dice.choice(system.broker.queues))
    system.added_to_broker(len(broken) + len(items))
    return Hit(len(broken) + len(items))


@kind("one queue unusable", "broker content")
def spoil_queue(system: System, dice: random.Random) -> Hit | None:
    """On Redis a key of another type, on RabbitMQ a leftover classic queue; what was in it is lost."""
    depths = {queue: depth for queue, depth in system.broker.depths().items() if depth}
    if "queue" in system.held or not depths:
        return None
    queue = dice.choice(sorted(depths))
    system.broker.spoil(queue)
    return Hit(
        depths[queue],
        note=queue,
        lasts_s=dice.uniform(4.0, 8.0),
        places=("queue",),
        heal=lambda: system.broker.mend(queue),
    )
