"""What dlq/ adds to a Celery worker: every message that ends badly is recorded before it is acknowledged."""
