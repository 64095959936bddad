"""What a message may carry: JSON that PostgreSQL stores and every worker reads, of a bounded size and depth."""

from __future__ import annotations

import json
import re
import uuid
from itertools import accumulate
from typing import Any

from kombu.utils.json import JSONEncoder, object_hook

from outbox.errors import EnqueueError, is_delay
from outbox.prepared import storable

_CELERYS_JSON = JSONEncoder()
#: The keys by which it marks, in a mapping, what JSON cannot express.
_MARK = {"__type__", "__value__"}
#: A message carries ids, not objects; what is larger belongs in a table.
MAX_PAYLOAD_BYTES = 64 * 1024
#: RabbitMQ takes all headers in one frame of 128 KB, in an encoding that can be 2.5 times as long as JSON. More
#: would cut the relay's connection, again and again.
MAX_HEADERS_BYTES = 32 * 1024
MAX_KEY_CHARS = 255
#: Levels of lists and mappings in the headers, and in the body, which is a list of args and kwargs. A consumer refuses
#: more as malformed: PostgreSQL's jsonb and Python's pickle recurse, the latter in the worker's event loop.
MAX_DEPTH = 64
#: A bracket in JSON, or a text, in which a bracket is none.
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{}]')
#: An escaped NUL, but not the text of such an escape.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def key(task: str, field: str, value: Any) -> str:
    """The value of a key, as the database has it. Raises EnqueueError for what is no text of at most 255 characters."""
    if not isinstance(value, str) or len(value) > MAX_KEY_CHARS or storable(value) != value:
        raise EnqueueError(
            f"{task}: {field} must be text of at most {MAX_KEY_CHARS} characters, without NUL and lone "
            f"surrogates, not {ascii(value)[:100]}"
        )
    return value


def message_id(task: str, value: Any) -> uuid.UUID:
    """The id that the caller gives the message, see `as_uuid`. Raises EnqueueError for what is no short text."""
    return value if isinstance(value, uuid.UUID) else as_uuid(key(task, "task_id", value))


def as_uuid(task_id: str) -> uuid.UUID:
    """The message id of this task id: the same if it is a UUID, else one that is derived from the text."""
    try:
        return uuid.UUID(task_id)
    except ValueError:
        return uuid.uuid5(uuid.NAMESPACE_OID, task_id)


def seconds(task: str, value: Any) -> float:
    """A delay in seconds. Raises EnqueueError for what is no number from 0 to ten years."""
    if not is_delay(value):
        raise EnqueueError(f"{task}: delay must be a number of seconds from 0 to ten years, not {value!r}")
    return float(value)


def is_json(value: Any) -> bool:
    """Whether the value can be encoded at all."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def encoded(
    task: str,
    field: str,
    value: Any,
    limit: int = MAX_PAYLOAD_BYTES,
    depth: int = MAX_DEPTH - 1,
    *,
    objects: bool = False,
) -> str:
    """The value as JSON. Raises EnqueueError if it is none, or larger than `limit` bytes, or nested deeper than `depth`.

    `objects`: what Celery's own JSON can express, too (UUID, Decimal, datetime, lazy text, bytes), as `decoded` reads it.
    """
    marked = 0

    def reduced(found: Any) -> Any:
        nonlocal marked
        said = _CELERYS_JSON.default(found)
        marked += isinstance(said, dict) and said.keys() == _MARK
        return said

    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, default=reduced if objects else None)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise EnqueueError(
            f"{task}: {field} must be JSON ({error}); pass ids, and read fresh data in the task"
        ) from None
    if _NUL.search(text):
        raise EnqueueError(f"{task}: {field} holds a NUL character, which PostgreSQL cannot store")
    if size > limit:
        raise EnqueueError(f"{task}: {field} has {size} bytes; the limit is {limit}. Pass ids")
    if min(text.count('"__type__"'), text.count('"__value__"')) > marked:
        # A worker would take the mapping for the dump of an object, and receive something else or nothing.
        raise EnqueueError(f"{task}: {field} holds the keys __type__ and __value__, which kombu reserves")
    # Most texts have fewer brackets than that, and need not be read.
    if text.count("[") + text.count("{") > depth and _depth(text) > depth:
        raise EnqueueError(f"{task}: {field} is nested deeper than {depth} levels. Pass ids")
    return text


def decoded(text: str) -> Any:
    """What `encoded` was given with `objects`, as Celery would hand it to the task."""
    return json.loads(text, object_hook=object_hook if '"__type__"' in text else None)


def _depth(text: str) -> int:
    steps = ((found in "[{") - (found in "]}") for found in _BRACKETS.findall(text))
    return max(accumulate(steps))
