"""The parts of Celery's worker that the outbox replaces."""
