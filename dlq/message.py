"""A message as the broker delivered it, kept whole so that it can be looked at, told apart and sent again."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import sys
from dataclasses import dataclass, field
from typing import Any

#: Deeper nesting than any sane message has. Past it PostgreSQL's jsonb and Python's pickle run into their own
#: recursion limits, the latter in the worker's event loop.
MAX_DEPTH = 64
#: Header of a message that was sent again from a dead letter, with the id of that one. It is no part of the message.
REPLAY_HEADER = "dlq-replay"
#: Header of an edited copy that no journal has, with the id of the dead letter that it was made from.
EDIT_HEADER = "dlq-edit-of"
#: Headers that `dlq.worker.transport` puts to a message it could not take: why it is none; size and digest of one that is too
#: large, of whose body only the beginning is kept.
NO_ENVELOPE_HEADER = "dlq-no-envelope"
CUT_HEADER = "dlq-cut"
#: Bytes that are kept of a message which is too large: enough to see whose it is.
PREFIX_BYTES = 4096
#: What brokers write among the headers of a message that they redeliver; it is no part of the message either.
BROKER_HEADERS = frozenset({"redelivered", "x-delivery-count", "x-acquired-count"})
#: From here on an integer has more digits than Python reads or writes as text. By Python's default, whatever this
#: process is set to: another process reads the dead letter.
_TOO_LONG = 10**sys.int_info.default_max_str_digits
#: Longest id that is taken as a message's own; a Celery id is a UUID of 36 characters.
MAX_ID_LENGTH = 200


@dataclass(frozen=True)
class RawMessage:
    """Everything that is needed to publish the same message again."""

    body: bytes
    content_type: Any = None
    content_encoding: Any = None
    headers: dict[str, Any] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)
    delivery_info: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, message: Any) -> RawMessage:
        """Take a received `kombu.Message`; works for every message that kombu could construct."""
        body = message.body
        if isinstance(body, str):
            # Redis envelopes carry the body as text; lone surrogates in it must survive, not raise.
            body = body.encode("utf-8", "surrogatepass")
        elif not isinstance(body, bytes):
            body = bytes(body) if isinstance(body, (bytearray, memoryview)) else json.dumps(body).encode()
        return cls(
            body=body,
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            headers={key: value for key, value in message.headers.items() if key != REPLAY_HEADER},
            properties=dict(message.properties),
            delivery_info=dict(message.delivery_info),
        )

    @property
    def queue(self) -> str:
        """Where it came from: queues here are bound under their own name."""
        return text(self.delivery_info.get("routing_key") or "")[:255]

    @property
    def digest(self) -> str:
        """Identity of a message that has no usable id: a redelivery of it has the same."""
        # The broker makes delivery_tag and redelivered anew for each delivery.
        properties = {k: v for k, v in self.properties.items() if k not in ("delivery_tag", "delivery_info")}
        headers = {k: v for k, v in self.headers.items() if k not in BROKER_HEADERS}
        parts = [self.content_type, self.content_encoding, headers, properties, self._body64]
        return hashlib.sha256(_dumps(parts)).hexdigest()

    @property
    def _body64(self) -> str:
        return base64.b64encode(self.body).decode("ascii")

    @property
    def missing(self) -> str:
        """What is not kept of a message that was too large; '' for one that is kept whole."""
        return text(self.headers[CUT_HEADER]) if CUT_HEADER in self.headers else ""

    def dump(self) -> bytes:
        """As bytes that no database encoding can refuse: ASCII JSON, with the body in base64."""
        return _dumps(
            {
                "body": self._body64,
                "content_type": self.content_type,
                "content_encoding": self.content_encoding,
                "headers": self.headers,
                "properties": self.properties,
                "delivery_info": self.delivery_info,
            }
        )

    @classmethod
    def load(cls, dumped: bytes) -> RawMessage:
        values = json.loads(dumped)
        return cls(**{**values, "body": base64.b64decode(values["body"])})


def message_key(headers: dict[str, Any], digest: str) -> tuple[str, bool]:
    """The key that a message is recorded under, and whether it is the message's own id."""
    for own in (headers.get(REPLAY_HEADER), headers.get("id")):
        if is_id(own):
            return str(own), True
    return f"sha256:{digest}", False


def cut(body: bytes) -> str:
    """What is recorded of a body that is not kept, in one line."""
    return f"{len(body)} bytes, sha256 {hashlib.sha256(body).hexdigest()}; the first {PREFIX_BYTES} bytes are kept"


def is_id(value: Any) -> bool:
    """Whether `value` can serve as an id: short, printable text."""
    return isinstance(value, str) and 0 < len(value) <= MAX_ID_LENGTH and value.isprintable()


def text(value: Any) -> str:
    """`value` as text that PostgreSQL stores: no NUL and no lone surrogate. Never raises, whatever `value` does."""
    try:
        shown = str(value)
    except Exception:
        # Of an integer too long for str() the hexadecimal digits, of which Python shows any number.
        shown = hex(value) if isinstance(value, int) else f"({type(value).__name__} that cannot be shown)"
    return shown.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


def storable(value: Any, depth: int = 0) -> Any:
    """`value` as jsonb stores it, and Python reads it again: what it cannot hold (NUL, NaN, bytes, depth, an integer
    too long to be read) becomes readable text.
    """
    if value is None:
        return value
    if isinstance(value, int):
        return value if -_TOO_LONG < value < _TOO_LONG else text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return text(value)
    if depth >= MAX_DEPTH:
        return "… (nested too deeply)"
    if isinstance(value, dict):
        return {text(key): storable(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [storable(item, depth + 1) for item in value]
    return text(value)


def nested_deeper(value: Any, limit: int) -> bool:
    """Whether it has more levels of lists and mappings. Counted level by level, since recursion would end at such a value."""
    level = [value]
    for _ in range(limit + 1):
        containers = [item for item in level if isinstance(item, (dict, list, tuple))]
        if not containers:
            return False
        level = [
            item for outer in containers for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return True


def _dumps(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode("ascii")
