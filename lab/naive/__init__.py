"""The same shop as the documents' "dangerous" example builds it: default Celery, no outbox, no keys, no state check.

It is the baseline of the chaos run: what the same faults do to code that works on a good day.
"""
