"""Redis only: whether an item of a queue is a message's envelope, and a valid envelope for one that is not.

kombu pops an item from its list and reads it afterwards. What it cannot read is nowhere then, and most of its errors
end the worker. So an item that is no envelope is put into one, as bytes: kombu then keeps it among the unacknowledged
messages like any other, and it is redelivered until it is recorded as a dead letter.
"""

from __future__ import annotations

import base64
import uuid
from typing import Any

from kombu.utils import json

from dlq.message import CUT_HEADER, NO_ENVELOPE_HEADER, PREFIX_BYTES, cut, nested_deeper

#: An envelope nested deeper than this may be read and then not be written to the unacknowledged messages.
MAX_DEPTH = 256


def checked(item: bytes, queue: str, max_bytes: int) -> bytes:
    """`item` if kombu can take it; else an envelope with its bytes in it, or its beginning if it is too large.

    `max_bytes`: of a body. Its envelope may have twice as many, for base64 and the headers.
    """
    if len(item) > 2 * max_bytes:
        return _wrapped(item[:PREFIX_BYTES], queue, {CUT_HEADER: cut(item)})
    try:
        _refuse_unusable(json.loads(item), item)
    except Exception as exc:
        if len(item) > max_bytes:
            return _wrapped(item[:PREFIX_BYTES], queue, {CUT_HEADER: cut(item)})
        return _wrapped(item, queue, {NO_ENVELOPE_HEADER: _reason(exc)})
    return item


def unacked(kept: bytes, queue: str) -> tuple[dict[str, Any], str, str]:
    """(envelope, exchange, routing key) of an entry of kombu's hash of unacknowledged messages, garbage or not."""
    try:
        message, exchange, key = json.loads(kept)
        _refuse_unusable(message, kept)
        if not key:
            raise ValueError("it names no queue")
        for part in (exchange, key):
            _of(str, part, "exchange and routing key").encode()
    except Exception as exc:
        return json.loads(_wrapped(kept, queue, {NO_ENVELOPE_HEADER: _reason(exc)})), "", queue
    return message, exchange, key


def _reason(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc}"[:300]


def _refuse_unusable(envelope: Any, item: bytes) -> None:
    """Raise for what kombu would fail on, in delivering it or in giving it back."""
    properties = _of(dict, _of(dict, envelope, "envelope").get("properties"), "properties")
    info = _of(dict, properties.get("delivery_info"), "delivery_info")
    # These become names of keys, which a lone surrogate cannot.
    for name, value in (
        ("delivery_tag", properties.get("delivery_tag")),
        ("exchange", info.get("exchange")),
        ("routing_key", info.get("routing_key")),
    ):
        _of(str, value, name).encode()
    _of(dict, envelope.get("headers", {}), "headers")
    body, encoding = _of(str, envelope.get("body"), "body"), properties.get("body_encoding")
    if encoding == "base64":
        base64.b64decode(body)
    elif encoding not in (None, "", "utf-8"):
        raise ValueError("body_encoding must be base64 or utf-8")
    # Counted first, because it costs next to nothing: hardly any message has as many containers.
    if item.count(b"[") + item.count(b"{") > MAX_DEPTH and nested_deeper(envelope, MAX_DEPTH):
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")


def _of(kind: type, value: Any, name: str) -> Any:
    if not isinstance(value, kind):
        raise TypeError(
            f"{name} must be {'text' if kind is str else 'a mapping'}, not {type(value).__name__}"
        )
    return value


def _wrapped(body: bytes, queue: str, headers: dict[str, Any]) -> bytes:
    envelope = {
        "body": base64.b64encode(body).decode("ascii"),
        "content-type": "application/octet-stream",
        "content-encoding": "binary",
        "headers": headers,
        "properties": {
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": 0,
        },
    }
    return json.dumps(envelope).encode()
