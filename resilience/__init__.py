"""Reliability patterns, one file each, without models and without knowledge of this project.

`breaker.py` and `retry.py` stand alone; `backpressure.py`, `ratelimit.py`, `locks.py` and `dedup.py` need
`connection.py` beside them. To lift a pattern, copy its file (and `connection.py` where it is imported).

None of them guards money. A lock, a limiter and a deduplicator in Redis make wrong things rare; only a
constraint or a guarded UPDATE in the database makes them impossible.
"""
