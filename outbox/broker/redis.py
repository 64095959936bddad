"""Publishing on Redis: a batch in one push."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard

from celery import Celery
from redis.exceptions import NoPermissionError, RedisError

from outbox.broker.envelope import Outgoing
from outbox.broker.publisher import Publisher, QueueUnusable

#: A Redis that is nearly full refuses a command as a whole. Of smaller ones it takes what it has room for, which the
#: workers empty meanwhile.
MAX_PUSH_CHARS = 1_000_000


class RedisPublisher(Publisher):
    """One LPUSH a batch, or a megabyte of it, of the envelopes that kombu's channel would push one by one.

    Through the channel publishing takes 1.7 times as long: a command to pack, an answer to read, a random tag each.
    """

    def __init__(self, app: Celery) -> None:
        super().__init__(app)
        #: A copy is kept by its tag while a worker has it: two copies with one tag would acknowledge each other.
        self._tags = (f"{prefix}-{number}" for prefix in [uuid.uuid4()] for number in itertools.count())

    def _send(self, channel: Any, batch: Sequence[Outgoing]) -> dict[int, str]:
        refused: dict[int, str] = {}
        with channel.conn_or_acquire() as client, client.pipeline(transaction=False) as pipeline:
            pushes = list(self._pushes(batch, refused))
            for queue, _, envelopes in pushes:
                pipeline.lpush(queue, *envelopes)
            answers = pipeline.execute(raise_on_error=False)
        failed = [
            (queue, answer) for (queue, *_), answer in zip(pushes, answers, strict=True) if _failed(answer)
        ]
        for (_, ids, _), answer in zip(pushes, answers, strict=True):
            self._confirmed |= set() if _failed(answer) else ids
        for queue, error in failed:
            if not _is_of_the_queue(error):
                raise error
            raise QueueUnusable(queue, str(error), self._confirmed)
        return refused

    def _pushes(
        self, batch: Sequence[Outgoing], refused: dict[int, str]
    ) -> Iterator[tuple[str, set[int], list[str]]]:
        """The batch in its order, as queue, row ids and envelopes of one push each."""
        queue, ids, envelopes, chars = "", set[int](), list[str](), 0
        for message in batch:
            try:
                envelope = message.redis_envelope(next(self._tags))
            except (
                Exception
            ) as error:  # Only the row decides whether this works: one that does not is refused.
                refused[message.id] = f"not encodable: {type(error).__name__}: {error}"
                continue
            if envelopes and (message.queue != queue or chars > MAX_PUSH_CHARS):
                yield queue, ids, envelopes
                ids, envelopes, chars = set(), [], 0
            queue = message.queue
            ids.add(message.id)
            envelopes.append(envelope)
            chars += len(envelope)
        if envelopes:
            yield queue, ids, envelopes

    def _depths(self, channel: Any, queues: Sequence[str]) -> dict[str, int]:
        with channel.conn_or_acquire() as client:
            pipeline = client.pipeline(transaction=False)
            for queue in queues:
                pipeline.llen(queue)
            answers = dict(zip(queues, pipeline.execute(raise_on_error=False), strict=True))
        for queue, answer in answers.items():
            if _failed(answer):
                if not _is_of_the_queue(answer):
                    raise answer
                self.unusable[queue] = str(answer)
        return {queue: answer for queue, answer in answers.items() if not _failed(answer)}


def _failed(answer: Any) -> TypeGuard[RedisError]:
    return isinstance(answer, RedisError)


def _is_of_the_queue(error: RedisError) -> bool:
    """Whether this error is about this key alone: its type, or this user's permission for it.

    Every other error (full, read-only, loading, a failed disk) is about all keys.
    """
    return isinstance(error, NoPermissionError) or str(error).startswith("WRONGTYPE")
