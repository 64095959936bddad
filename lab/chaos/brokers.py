"""What an experiment does inside the broker: look, copy, reorder, put in garbage, wipe."""

from __future__ import annotations

import base64
import functools
import json
import random
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import redis


class Broker(Protocol):
    """The broker of the run, reached past the proxy. Methods raise `OSError` or the client's error while it is down."""

    queues: tuple[str, ...]
    #: Whether all but one of the messages that are reordered are in their queue all the time. Else the relays see room
    #: where they were, and fill it before they come back.
    reorders_in_place: bool

    def depths(self) -> dict[str, int]:
        """Messages that are ready, per queue."""

    def in_hand(self) -> int:
        """Messages that a worker holds unacknowledged."""

    def copy(self, dice: random.Random, most: int) -> int:
        """Publish a second copy of messages that are in the broker or were lately; returns how many."""

    def reorder(self, dice: random.Random) -> int:
        """Put the messages of each queue into another order; returns how many moved."""

    def inject(self, body: bytes, headers: dict[str, Any], content_type: str, queue: str) -> None:
        """Publish one message as a foreign producer would."""

    def inject_raw(self, item: bytes, queue: str) -> None:
        """Put bytes into the queue that no client library has made."""

    def spoil(self, queue: str) -> None:
        """Replace the queue by something of the same name that cannot be used as one."""

    def mend(self, queue: str) -> None:
        """Remove what `spoil` put there."""


class RedisBroker:
    """The lists and hashes of kombu's Redis transport, directly."""

    reorders_in_place = True

    def __init__(self, url: str, queues: tuple[str, ...]):
        self.queues = queues
        self._redis: Any = redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)
        self._directory: Path | None = None

    def depths(self) -> dict[str, int]:
        pipeline = self._redis.pipeline(transaction=False)
        for queue in self.queues:
            pipeline.llen(queue)
        found = zip(self.queues, pipeline.execute(raise_on_error=False), strict=True)
        return {queue: depth if isinstance(depth, int) else 0 for queue, depth in found}

    def in_hand(self) -> int:
        return int(self._redis.hlen("unacked"))

    def copy(self, dice: random.Random, most: int) -> int:
        found: list[tuple[str, bytes]] = []
        for queue in self._usable():
            found += [(queue, raw) for raw in self._redis.lrange(queue, 0, 50)]
        # What a worker holds: the copy is then delivered while the first one runs.
        for held in self._redis.hvals("unacked"):
            message, _, queue = json.loads(held)
            found.append((queue, json.dumps(message).encode()))
        chosen = dice.sample(found, min(most, len(found)))
        for queue, raw in chosen:
            again = json.loads(raw)
            again["properties"]["delivery_tag"] = str(uuid.uuid4())
            self._redis.lpush(queue, json.dumps(again))
        return len(chosen)

    def reorder(self, dice: random.Random) -> int:
        moved = 0
        for queue in self._usable():
            items = self._redis.lrange(queue, 0, 200)
            if len(items) < 2:
                continue
            for raw in dice.sample(items, len(items)):
                # Taken out only if it is still there; pushed to the other end than it came from.
                if self._redis.lrem(queue, 1, raw):
                    self._redis.rpush(queue, raw) if dice.random() < 0.5 else self._redis.lpush(queue, raw)
                    moved += 1
        return moved

    def inject(self, body: bytes, headers: dict[str, Any], content_type: str, queue: str) -> None:
        envelope = {
            "body": base64.b64encode(body).decode(),
            "content-type": content_type,
            "content-encoding": "utf-8",
            "headers": headers,
            "properties": {
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": queue},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
                "correlation_id": headers.get("id"),
            },
        }
        self._redis.lpush(queue, json.dumps(envelope))

    def inject_raw(self, item: bytes, queue: str) -> None:
        self._redis.lpush(queue, item)

    def spoil(self, queue: str) -> None:
        self._redis.set(queue, "not a list")

    def mend(self, queue: str) -> None:
        # Another fault (FLUSHALL) may have removed it already, and the relays filled the queue again.
        if self._redis.type(queue) == b"string":
            self._redis.delete(queue)

    def _usable(self) -> list[str]:
        return [queue for queue in self.queues if self._redis.type(queue) == b"list"]

    def wipe(self) -> int:
        """FLUSHALL: queues, what workers hold, locks and cache, as if the server had been replaced."""
        keys = sum(self.depths().values()) + self.in_hand()
        self._redis.flushall()
        return keys

    def pid(self) -> int:
        return int(self._redis.info("server")["process_id"])

    def journal(self) -> Path | None:
        """The append-only file that is being written."""
        if self._directory is None:
            self._directory = Path(self._redis.config_get("dir")["dir"])
        # Before Redis 7 it is one file, since then one of several in a directory.
        files = sorted(self._directory.glob("*/*.incr.aof")) or sorted(self._directory.glob("*.aof"))
        return files[-1] if files else None


@functools.cache
def _inflating() -> bytes:
    return zlib.compress(b"[" + b" " * 100_000_000 + b"]")


def garbage(dice: random.Random) -> Sequence[tuple[str, bytes, dict[str, Any], str]]:
    """One broken message of each kind: (id, body, headers, content type)."""

    def headers(task: str, **changes: Any) -> dict[str, Any]:
        message_id = str(uuid.UUID(int=dice.getrandbits(128), version=4))
        return {
            "lang": "py",
            "task": task,
            "id": message_id,
            "root_id": message_id,
            "retries": 0,
            "timelimit": [None, None],
            "argsrepr": "",
            "kwargsrepr": "",
            "origin": "chaos",
        } | changes

    call, text = b"[[0], {}, {}]", "application/json"
    known = "orders.tasks.process_order"
    made = [
        (b"\xff\xfe not JSON", headers(known), text),
        (b"[[0], {}", headers(known), text),
        (b"{}", headers(known), text),
        (call, headers("no.such.task"), text),
        (call, headers(known), "application/x-python-serialize"),
        (call, headers(known), text),  # readable, about an order that does not exist
        (call, {"id": headers(known)["id"]}, text),
        # A tenth of a megabyte that inflates to a hundred.
        (
            zlib.compress(b"[" + b" " * 100_000_000 + b"]"),
            headers(known, compression="application/x-gzip"),
            text,
        ),
        # Claims to be a message of the outbox that has no row.
        (call, headers(known, outbox={"generation": 1, "publish": 1, "published_at": 0.0}), text),
    ]
    return [(str(fields["id"]), body, fields, content_type) for body, fields, content_type in made]


def no_envelopes(dice: random.Random) -> Sequence[bytes]:
    """Items of a Redis list that are no message of kombu."""
    number = dice.randrange(10**9)
    return [
        f"not JSON {number}".encode(),
        b"\xff\xfe\0" + str(number).encode(),
        f"[1, {number}]".encode(),
        f'{{"no": "body {number}"}}'.encode(),
        str(number).encode(),
    ]
