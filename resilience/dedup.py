"""Deduplication: do not enqueue a job that already waits, and recognise an id that was seen before.

    enqueue_unique(refresh_report.s(7))          # -> message id, or None: an equal job is already waiting

Equal means: the same task with the same arguments. A job stays unique until it completes, but for at most
`ttl` seconds, so that one that is stuck does not block its successors for ever.

The usual recipe (SET NX in Redis, then enqueue) breaks with transactions: when the caller rolls back, the
key stays and the job is refused for an hour although it does not exist. So Redis holds no claim here, only
the *name of the current window*, and the claim is a unique key in the caller's own transaction, written by
the enqueue function. It vanishes with a rollback and frees itself on completion; no hook has to clean up.

Needs `connection.py` beside it. Setting: `RESILIENCE_ENQUEUE` (default `outbox.enqueue_unique`), the dotted path of a
callable (signature, *, dedup_key, **options) -> id or None, which enqueues in the current transaction unless an open message
has that dedup_key. `is_duplicate` needs none. The recipe that is replaced: "unique jobs" of Sidekiq and Faktory.

Redis down: fails *open*; a duplicate is a nuisance, a job that is dropped is a loss. `enqueue_unique` falls
back to a window without end, so equal jobs that wait are still one, and `is_duplicate` answers "not seen".
Therefore neither is a guard for effects: that is a unique constraint on what the effect is about (order,
billing period, event).
"""

import hashlib
import json
import logging
import pkgutil
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from redis import Redis

from .connection import UNAVAILABLE, get_redis, milliseconds, refusals_named, run_script, setting

logger = logging.getLogger(__name__)

DEFAULT_ENQUEUE = "outbox.enqueue_unique"

# KEYS: job. ARGV: proposed name, ttl in ms. Answer: the name of the window that is open now.
_OPEN_WINDOW = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return ARGV[1] end
return redis.call('GET', KEYS[1])
"""


class Signature(Protocol):
    """What is read of a Celery signature such as `task.s(7)`."""

    task: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]


def enqueue_unique(
    signature: Signature, *, ttl: float = 3600, client: Redis | None = None, **options: Any
) -> Any | None:
    """Enqueue in the caller's transaction; returns the id, or None when an equal job is open.

    `ttl`: seconds for which the job is unique at the most (3600). It is allowed again when it has completed (or was
    dead-lettered), when the transaction was rolled back, after `ttl`, and after `release(job_key(signature))`. `options` go
    to the enqueue function (queue, delay, ...). Raises TypeError when the arguments are not JSON, ValueError for a ttl that
    is not positive, or longer than MAX_TTL_S.
    """
    key = job_key(signature)
    window = _window(client or get_redis(), key, ttl)
    enqueue = pkgutil.resolve_name(setting("RESILIENCE_ENQUEUE", DEFAULT_ENQUEUE))
    message_id = enqueue(signature, dedup_key=f"{key}:{window}", **options)
    if message_id is None:
        logger.info("duplicate job skipped: %s", key)
    return message_id


def job_key(signature: Signature) -> str:
    """What makes two jobs equal, as a Redis key: the task's name and a digest of its arguments.

    A digest, because arguments may be long, or personal data that has no place in key names and logs.
    """
    arguments = json.dumps(
        [list(signature.args), dict(signature.kwargs)], sort_keys=True, separators=(",", ":")
    )
    return f"job:{signature.task}:{hashlib.sha256(arguments.encode()).hexdigest()[:32]}"


def is_duplicate(task_id: str, ttl: float = 3600, *, client: Redis | None = None) -> bool:
    """True when this id was asked about in the last `ttl` seconds (3600); asking marks it as seen.

    The mark comes before the work. A worker that dies in between has marked what it never did, so only use
    it where that is acceptable (at most once), or call `release(seen_key(task_id))` when the work fails.
    """
    try:
        with refusals_named():
            return (client or get_redis()).set(seen_key(task_id), "1", nx=True, px=milliseconds(ttl)) is None
    except UNAVAILABLE as error:
        logger.warning("dedup %s: Redis is down, treated as not seen: %s", task_id, error)
        return False


def seen_key(task_id: str) -> str:
    """The Redis key in which `is_duplicate` keeps the mark."""
    return f"dedup:{task_id}"


def release(key: str, *, client: Redis | None = None) -> bool:
    """Forget a `job_key` or `seen_key` before its ttl; true when there was one. Redis down: false."""
    try:
        with refusals_named():
            return bool((client or get_redis()).delete(key))
    except UNAVAILABLE as error:
        logger.warning("dedup %s could not be released, it ends with its ttl: %s", key, error)
        return False


def _window(client: Redis, key: str, ttl: float) -> str:
    try:
        return str(run_script(client, _OPEN_WINDOW, [key], secrets.token_hex(8), milliseconds(ttl)))
    except UNAVAILABLE as error:
        logger.warning("dedup %s: Redis is down, unique until completion without a ttl: %s", key, error)
        return "open"
