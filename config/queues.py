"""The queue tiers. Each has its own worker pool, so that a flood in one cannot starve another.

Priority is a tier, not a number inside a queue: Redis emulates priorities with strict order, where one
level runs only when the level above is empty.
"""

from typing import Any

from kombu import Exchange, Queue

from common.priority import Priority

#: Tier -> worker processes it gets by default: payments first, batch work last.
TIERS = {
    Priority.CRITICAL.queue: 4,
    Priority.HIGH.queue: 2,
    Priority.NORMAL.queue: 2,
    Priority.LOW.queue: 1,
}
DEFAULT_QUEUE = Priority.NORMAL.queue

#: Where RabbitMQ puts what it gives up: dlq.undeliverable makes dead letters of it.
UNDELIVERABLE = "undeliverable"
#: RabbitMQ gives up a message that came back this often, each time because a whole worker died with it (the default of
#: 4.0). Far above every task's `max_deliveries`, which is what should end a poison message: this is the safety net for
#: one that kills the worker before our code can count.
DELIVERY_LIMIT = 20

#: A declared queue keeps its arguments: to change them, drain and delete it first, or use a policy.
QUORUM = {
    "x-queue-type": "quorum",
    "x-delivery-limit": DELIVERY_LIMIT,
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": UNDELIVERABLE,
    # The default strategy may lose the message on its way; at-least-once needs an overflow that refuses.
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}


def is_rabbitmq(broker_url: str) -> bool:
    return broker_url.startswith(("amqp", "pyamqp"))


def declare(broker_url: str) -> list[Queue]:
    """The queues as this broker needs them: on RabbitMQ replicated quorum queues, on Redis plain lists.

    Each is bound by its name alone, on the default exchange. Celery's own default would bind all of them to one
    exchange with one key, and every message of an outside producer would arrive in each tier.
    """
    arguments = QUORUM if is_rabbitmq(broker_url) else None
    return [Queue(name, Exchange(""), routing_key=name, queue_arguments=arguments) for name in TIERS]


def transport_options(
    broker_url: str,
    *,
    visibility_timeout_s: float,
    master_name: str = "",
    sentinel_kwargs: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The options of kombu's transport for this broker; above all, an end to every wait."""
    if is_rabbitmq(broker_url):
        return {"confirm_publish": True, "read_timeout": 30, "write_timeout": 10}
    options: dict[str, Any] = {
        "visibility_timeout": visibility_timeout_s,
        # kombu looks for overdue messages on every tenth pass only, which makes a short timeout long.
        "unacked_restore_throttle": 1,
        "unacked_restore_limit": 100,
        # Without these a broker that accepts and never answers hangs publisher and worker for ever.
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 25,
    }
    if broker_url.startswith("sentinel"):
        options |= {"master_name": master_name, "sentinel_kwargs": sentinel_kwargs}
    return options
