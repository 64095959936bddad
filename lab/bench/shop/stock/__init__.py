"""The same domain on stock Celery: its Task class with late acknowledgement, sent when the transaction has committed.

No outbox, no journal, no rescue: what is lost between commit and send, or with the broker, is lost. It is what the guarantees
are measured against.
"""
