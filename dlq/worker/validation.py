"""Says what is wrong with a received message before Celery's own handler sees it.

Celery reads headers and body without looking, in the worker's event loop: one message of the wrong shape ends
the worker, goes back to the queue and ends the next. Catching the error afterwards leaks a slot of the pool,
so that what is checked here is everything which the handler, the pool's pickling and the parent's hooks rely
on. Protocol 2 is what Celery sends; protocol 1 and its hybrid keep their fields in the body and are checked
alike.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from celery.utils.time import maybe_iso8601, maybe_make_aware, timezone

from dlq.message import MAX_DEPTH, MAX_ID_LENGTH, is_id, nested_deeper

#: A time limit beyond it is a mistake, and an infinite one breaks the event loop's timer.
MAX_TIME_LIMIT_S = 30 * 24 * 3600

#: Content types of plain data.
_NEVER_A_TASK = ("application/data", "application/text")


class Malformed(Exception):
    """Not a task message; the text says what is wrong with it."""


def check(message: Any) -> None:
    """Return if Celery can take this message.

    Raises `Malformed` for headers or a body of the wrong shape, and whatever decoding raises (DecodeError,
    ContentDisallowed, LookupError, ...) for a body that cannot be read.
    """
    if not isinstance(message.headers, dict) or not isinstance(message.properties, dict):
        raise Malformed("headers and properties must be mappings")
    if not message.content_type or message.content_type in _NEVER_A_TASK:
        # kombu takes these whatever is accepted, and decodes by any codec of Python's: zlib inflates without bound.
        raise Malformed(f"the content type must be one that is accepted, not {_shown(message.content_type)}")
    payload = message.decode()
    if nested_deeper(payload, MAX_DEPTH) or nested_deeper(message.headers, MAX_DEPTH):
        raise Malformed(f"nested deeper than {MAX_DEPTH} levels")
    if "task" in message.headers and not isinstance(payload, dict):
        fields, (args, kwargs, embed) = message.headers, _parts(payload)
    elif isinstance(payload, dict):
        if "task" in message.headers and "args" not in payload:
            # Celery takes it for protocol 2, of which the body is a list.
            raise Malformed("the body is a mapping without args")
        fields = {**payload, **message.headers}
        args, kwargs, embed = payload.get("args", ()), payload.get("kwargs", {}), payload
    else:
        raise Malformed("neither the headers nor the body name a task")
    _check_call(args, kwargs, embed)
    for name, (right, expected) in _FIELDS.items():
        if not right(fields.get(name)):
            raise Malformed(f"{name!r} must be {expected}, not {_shown(fields.get(name))}")


def _parts(payload: Any) -> tuple[Any, Any, Any]:
    if not isinstance(payload, (list, tuple)) or len(payload) != 3:
        raise Malformed(f"the body must be [args, kwargs, embed], not {_shown(payload)}")
    args, kwargs, embed = payload
    return args, kwargs, embed


def _check_call(args: Any, kwargs: Any, embed: Any) -> None:
    if not isinstance(args, (list, tuple)):
        raise Malformed(f"args must be a list, not {_shown(args)}")
    if not isinstance(kwargs, dict):
        raise Malformed(f"kwargs must be a mapping, not {_shown(kwargs)}")
    if embed is None:
        return
    if not isinstance(embed, dict):
        raise Malformed(f"embed must be a mapping, not {_shown(embed)}")
    for name in ("callbacks", "errbacks", "chain"):
        if not _is_optional_list_of(embed.get(name), _is_signature):
            raise Malformed(f"embed.{name} must be a list of signatures, not {_shown(embed[name])}")
    if embed.get("chord") is not None and not _is_signature(embed["chord"]):
        raise Malformed(f"embed.chord must be a signature, not {_shown(embed['chord'])}")


def _is_optional_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _is_signature(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("task"), str)


def _is_optional_list_of(value: Any, right: Callable[[Any], bool]) -> bool:
    return value is None or (isinstance(value, (list, tuple)) and all(map(right, value)))


def _is_time_limit(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_duration, value))


def _is_duration(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= MAX_TIME_LIMIT_S


def _is_time(value: Any) -> bool:
    """What the handler does with it must work: parse, compare with now, turn into a timestamp."""
    if value is None:
        return True
    if not isinstance(value, (str, datetime)):
        return False
    try:
        parsed = maybe_iso8601(value)
        if parsed is None:
            return False
        aware = maybe_make_aware(parsed, timezone.utc)
        timezone.to_system(aware).timestamp()
    except (ValueError, OverflowError, TypeError, AttributeError):
        return False
    return True


def _shown(value: Any) -> str:
    """Short and never recursive: `value` may be the very thing that breaks repr()."""
    if isinstance(value, (dict, list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    return repr(value)[:100]


_OPTIONAL_TEXT = (_is_optional_text, "text")
_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "task": (is_id, "the name of a task"),
    "id": (is_id, f"a printable text of at most {MAX_ID_LENGTH} characters"),
    "root_id": _OPTIONAL_TEXT,
    "parent_id": _OPTIONAL_TEXT,
    "group": _OPTIONAL_TEXT,
    "shadow": _OPTIONAL_TEXT,
    "group_index": (lambda value: value is None or _is_count(value), "a count"),
    "retries": (lambda value: value is None or _is_count(value), "a count"),
    "timelimit": (_is_time_limit, f"a pair of seconds up to {MAX_TIME_LIMIT_S}"),
    "eta": (_is_time, "an ISO 8601 time"),
    "expires": (_is_time, "an ISO 8601 time"),
    "stamps": (lambda value: value is None or isinstance(value, dict), "a mapping"),
    "stamped_headers": (
        lambda value: _is_optional_list_of(value, lambda item: isinstance(item, str)),
        "a list of texts",
    ),
}
