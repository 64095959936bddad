"""The worker's consumer is the dead-letter app's where there is one, and Celery's where there is none."""

from __future__ import annotations

import importlib

from celery.worker import consumer as celerys
from pytest_django import Settings

from dlq.worker import consumer as dead_letters
from outbox.worker import consumer
from outbox.worker.unusable import UsableQueues


def test_the_consumer_extends_dlqs_or_celerys_own(
    settings: Settings,
) -> None:
    """Celery's own where there is no dlq/."""
    assert issubclass(consumer.Consumer, dead_letters.Consumer)
    settings.OUTBOX_DEAD_LETTERS = settings.DLQ_JOURNAL = None
    try:
        alone = importlib.reload(consumer).Consumer
        assert issubclass(alone, UsableQueues)
        assert issubclass(alone, celerys.Consumer)
        assert not issubclass(alone, dead_letters.Consumer)
    finally:
        del settings.OUTBOX_DEAD_LETTERS
        del settings.DLQ_JOURNAL
        importlib.reload(consumer)
