"""The worker's consumer, as `worker_consumer` names it: the dead-letter desk's, less a step of Celery's."""

from typing import ClassVar

from celery.worker import consumer as celery_consumer

from dlq import consumer


class Consumer(consumer.Consumer):
    """Without Celery's native delayed delivery.

    On quorum queues it would declare 28 queues and exchanges for messages with an ETA. Here none reaches the
    broker: delays are rows of the outbox.
    """

    class Blueprint(celery_consumer.Consumer.Blueprint):  # type: ignore[misc, valid-type]
        default_steps: ClassVar[list[str]] = [
            step
            for step in celery_consumer.Consumer.Blueprint.default_steps
            if not step.endswith(":DelayedDelivery")
        ]
