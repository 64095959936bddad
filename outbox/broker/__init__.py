"""Redis and RabbitMQ: how a message travels, and how many wait in a queue."""

from __future__ import annotations

from celery import Celery

from outbox.broker.publisher import Publisher


def publisher_for(app: Celery) -> Publisher:
    """The publisher for the broker that Celery's `broker_url` names."""
    # Imported here, so that a process imports the client of its own broker only.
    if app.conf.broker_url.startswith(("amqp", "pyamqp")):
        from outbox.broker.rabbitmq import AmqpPublisher

        return AmqpPublisher(app)
    from outbox.broker.redis import RedisPublisher

    return RedisPublisher(app)
