"""Reliability patterns, one file each, without models and without knowledge of this project.

| file | needs beside it | in use here |
|---|---|---|
| `breaker.py`: circuit breaker | nothing | `payments/gateway/calls.py`, `orders/warehouse.py` |
| `circuits.py`: which circuits are open in any process | `breaker.py`, `connection.py` | `config/settings.py` |
| `retry_after.py`: the Retry-After header | nothing | `orders/outbound.py`, `webhooks/delivery.py` |
| `ratelimit.py`: token bucket | `connection.py` | `orders/api/limits.py`, `orders/warehouse.py` |
| `locks.py`: a lease on a name, with a fencing token | `connection.py` | `payments/billing.py` |
| `dedup.py`: one job instead of many, recognised repetitions | `connection.py` | `orders/api/limits.py` |
| `backpressure.py`: admission, bounded queue | `connection.py` | `orders/api/limits.py` |
| `sentinel.py`: the Redis master behind sentinels | nothing | `config/settings.py` |

To lift a pattern, copy its file and what it needs. None has a required setting; `connection.py` lists them all. Only
`enqueue_unique` of `dedup.py` needs Django.

None of them guards money. A lock, a limiter and a deduplicator in Redis make wrong things rare; only a
constraint or a guarded UPDATE in the database makes them impossible.
"""
