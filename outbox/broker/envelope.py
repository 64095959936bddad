"""The Celery message (protocol 2) of a row, written directly.

Celery's own publisher spends most of its 0.4 ms on producer pools, routing and argument previews; the relay
knows the queue and has the arguments as JSON already.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any, TypedDict

from celery.app.task import Context

#: Header of a row that was replayed with a number of retries of its own.
RETRIES_HEADER = "outbox-retries"
#: Header of a row that comes from an HTTP request: the id of that request.
REQUEST_ID_HEADER = "request_id"
#: Header of a row that comes from a request with a W3C trace context: that context, as `traceparent` says it.
TRACEPARENT_HEADER = "traceparent"
CONTENT_TYPE, CONTENT_ENCODING = "application/json", "utf-8"
#: Callbacks, errbacks, chain and chord: the outbox refuses them, so the body says that there are none.
_EMBED = '{"callbacks": null, "errbacks": null, "chain": null, "chord": null}'
#: Names that a header of a row's own cannot have: those of a task's request in Celery, where each header becomes an
#: attribute, and those that kombu and our own Task look for.
_RESERVED = {name for name in vars(Context) if not name.startswith("_")} | {
    *("argsrepr", "compression", "kwargsrepr", "lang", "outbox_begun", "task"),
}


class Identity(TypedDict):
    """The header `outbox` of a copy: what a claim is checked against, and what the rescuer needs to know of it."""

    generation: int
    #: How many times this generation was published.
    publish: int
    #: Seconds since the epoch, by the database's clock.
    published_at: float


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message on its way to the broker. `args`, `kwargs` and `headers` are JSON text, as the row holds them."""

    id: int
    message_id: str
    generation: int
    publish_count: int
    published_at: float
    task: str
    args: str
    kwargs: str
    headers: str
    correlation_id: str
    queue: str

    def body(self) -> bytes:
        return f"[{self.args}, {self.kwargs}, {_EMBED}]".encode()

    def wire_headers(self) -> dict[str, Any]:
        """What Celery needs, and no more: each of its two dozen optional headers costs relay and worker time."""
        own = json.loads(self.headers) if self.headers != "{}" else {}
        for name in _RESERVED & own.keys():
            # `eta` or `timelimit` would steer the worker past the journal, `compression` make the body unreadable.
            del own[name]
        return {
            **own,
            "lang": "py",
            "task": self.task,
            "id": self.message_id,
            "root_id": self.message_id,
            "correlation": self.correlation_id,
            "outbox": self.identity(),
        }

    def identity(self) -> Identity:
        """The identity that the copy carries."""
        return {
            "generation": self.generation,
            "publish": self.publish_count,
            "published_at": self.published_at,
        }

    def amqp_properties(self) -> dict[str, Any]:
        return {
            "content_type": CONTENT_TYPE,
            "content_encoding": CONTENT_ENCODING,
            **self._properties(),
        }

    def redis_envelope(self, delivery_tag: str) -> str:
        """The message as kombu's virtual channels write it into a list of Redis, where a worker takes it."""
        properties = {
            **self._properties(),
            "priority": 0,
            "delivery_info": {"exchange": "", "routing_key": self.queue},
            "body_encoding": "base64",
            "delivery_tag": delivery_tag,
        }
        return json.dumps(
            {
                "body": base64.b64encode(self.body()).decode(),
                "content-encoding": CONTENT_ENCODING,
                "content-type": CONTENT_TYPE,
                "headers": self.wire_headers(),
                "properties": properties,
            }
        )

    def _properties(self) -> dict[str, Any]:
        return {"delivery_mode": 2, "correlation_id": self.message_id}
