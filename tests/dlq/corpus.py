"""Messages that end a plain Celery worker, or vanish in it without a trace."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from dlq.models import Cause
from tests.support.rawpublish import task_headers

TASK = "tests.support.tasks.note"
GOOD_BODY = json.dumps([["never"], {}, None])
MALFORMED, UNDECODABLE, UNKNOWN = Cause.MALFORMED, Cause.UNDECODABLE, Cause.UNKNOWN_TASK


@dataclass(frozen=True)
class Broken:
    """One message and how it must be recorded. `only_redis`: AMQP's own types rule it out."""

    name: str
    cause: Cause
    body: bytes | str
    headers: dict[str, Any]
    content_type: Any = "application/json"
    content_encoding: Any = "utf-8"
    only_redis: bool = False

    @property
    def as_sent(self) -> tuple[bytes | str, dict[str, Any], Any, Any]:
        return self.body, self.headers, self.content_type, self.content_encoding

    @property
    def body_bytes(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else self.body.encode("utf-8", "surrogatepass")


def corpus() -> list[Broken]:
    """All of them, with ids of their own."""
    return [*_bodies(), *_encodings(), *_headers(), *_protocol_1(), *_unknown()]


def _bodies() -> list[Broken]:
    bodies = {
        "a number": "5",
        "null": "null",
        "true": "true",
        "a text": '"text"',
        "an empty text": '""',
        "an empty list": "[]",
        "an empty mapping": "{}",
        "two parts": "[[], {}]",
        "four parts": "[[], {}, {}, {}]",
        "args a number": "[5, {}, {}]",
        "args a text": '["args", {}, {}]',
        "args a mapping": "[{}, {}, {}]",
        "args null": "[null, {}, {}]",
        "kwargs a list": "[[], [], {}]",
        "kwargs null": "[[], null, {}]",
        "kwargs a number": "[[], 5, {}]",
        "embed a number": "[[], {}, 5]",
        "embed a list": "[[], {}, []]",
        "callbacks a number": '[[], {}, {"callbacks": 5}]',
        "errbacks of numbers": '[[], {}, {"errbacks": [5]}]',
        "chain of texts": '[[], {}, {"chain": ["x"]}]',
        "chord a text": '[[], {}, {"chord": "x"}]',
        "hybrid with args a number": '{"args": 5, "kwargs": {}}',
        "hybrid with kwargs a number": '{"args": [], "kwargs": 5}',
        "a valid call nested too deeply": json.dumps([[json.loads("[" * 200 + "]" * 200)], {}, None]),
        "nothing": "",
    }
    return [Broken(f"body: {name}", MALFORMED, body, task_headers(TASK)) for name, body in bodies.items()]


def _encodings() -> list[Broken]:
    headers = task_headers
    return [
        Broken("body: cut JSON", UNDECODABLE, '{"a":', headers(TASK)),
        Broken("body: not UTF-8", UNDECODABLE, b"\xff\xfe\xfa", headers(TASK)),
        Broken("body: NUL bytes", UNDECODABLE, b"\x00\x00\x00", headers(TASK)),
        Broken("body: nested past recursion", UNDECODABLE, "[" * 100_000, headers(TASK)),
        Broken("body: number too long", UNDECODABLE, f"[[{'9' * 5000}], {{}}, {{}}]", headers(TASK)),
        Broken(
            "body: broken typed value",
            UNDECODABLE,
            '[[{"__type__": "datetime", "__value__": "soon"}], {}, {}]',
            headers(TASK),
        ),
        Broken(
            "type: pickle",
            UNDECODABLE,
            b"\x80\x04N.",
            headers(TASK),
            "application/x-python-serialize",
            "binary",
        ),
        Broken("type: YAML", UNDECODABLE, "[[], {}, {}]", headers(TASK), "application/x-yaml"),
        Broken("type: unknown", UNDECODABLE, GOOD_BODY, headers(TASK), "text/html"),
        Broken("type: none", MALFORMED, GOOD_BODY, headers(TASK), None),
        Broken("type: a number", UNDECODABLE, GOOD_BODY, headers(TASK), 5, only_redis=True),
        Broken("type: a mapping", UNDECODABLE, GOOD_BODY, headers(TASK), {"a": 1}, only_redis=True),
        Broken("encoding: unknown", UNDECODABLE, GOOD_BODY, headers(TASK), "text/plain", "no-such-charset"),
        Broken(
            "encoding: a number", UNDECODABLE, GOOD_BODY, headers(TASK), content_encoding=5, only_redis=True
        ),
        Broken(
            "compression: broken", UNDECODABLE, b"no gzip", headers(TASK, compression="application/x-gzip")
        ),
        Broken("compression: unknown", UNDECODABLE, GOOD_BODY, headers(TASK, compression="no-such")),
    ]


def _headers() -> list[Broken]:
    changes: dict[str, dict[str, Any]] = {
        "no headers at all": dict.fromkeys(task_headers(TASK), ...),
        "task null": {"task": None},
        "task a number": {"task": 5},
        "task a list": {"task": []},
        "task a mapping": {"task": {}},
        "task empty": {"task": ""},
        "no id": {"id": ...},
        "id null": {"id": None},
        "id a number": {"id": 5},
        "id a list": {"id": []},
        "id empty": {"id": ""},
        "id too long": {"id": "x" * 300},
        "id with a NUL": {"id": "a\x00b"},
        "time limit a number": {"timelimit": 5},
        "time limit a text": {"timelimit": "ab"},
        "time limit of one": {"timelimit": [1]},
        "time limit of texts": {"timelimit": ["soon", None]},
        "time limit negative": {"timelimit": [-1, None]},
        "time limit for ever": {"timelimit": [1e300, None]},
        "eta no time": {"eta": "soon"},
        "eta a number": {"eta": 5},
        "eta empty": {"eta": ""},
        "eta a list": {"eta": []},
        "eta before time began": {"eta": "0001-01-01T00:00:00+23:59"},
        "expires no time": {"expires": "later"},
        "expires a number": {"expires": 5},
        "expires a mapping": {"expires": {}},
        "stamps a number": {"stamps": 5, "stamped_headers": ["a"]},
        "stamped headers a number": {"stamped_headers": 5},
        "stamped headers of lists": {"stamped_headers": [[]]},
        "retries a text": {"retries": "many"},
        "group a mapping": {"group": {}},
        "root id a list": {"root_id": []},
        "shadow a list": {"shadow": []},
        "nested too deeply": {"x": json.loads("[" * 200 + "]" * 200)},
    }
    return [
        Broken(f"header: {name}", MALFORMED, GOOD_BODY, task_headers(TASK, **change))
        for name, change in changes.items()
    ]


def _protocol_1() -> list[Broken]:
    bodies: dict[str, dict[str, Any]] = {
        "no id": {"task": TASK, "args": [], "kwargs": {}},
        "task a list": {"task": [], "id": "p1-task", "args": [], "kwargs": {}},
        "kwargs a list": {"task": TASK, "id": "p1-kwargs", "args": [], "kwargs": []},
        "args a number": {"task": TASK, "id": "p1-args", "args": 5},
        "no task": {"id": "p1-no-task", "args": [], "kwargs": {}},
    }
    return [Broken(f"protocol 1: {name}", MALFORMED, json.dumps(body), {}) for name, body in bodies.items()]


def _unknown() -> list[Broken]:
    strange = '[["a\\u0000b", "\\ud800", NaN, 1e999], {"k\\u0000": 1}, null]'
    return [
        Broken("task: unknown", UNKNOWN, GOOD_BODY, task_headers("no.such.task")),
        Broken("task: unknown, of protocol 1", UNKNOWN, '{"task": "gone", "id": "p1-gone", "args": []}', {}),
        Broken(
            "task: unknown, with what jsonb cannot hold", UNKNOWN, strange, task_headers("no.such.task.2")
        ),
        Broken("task: no name of a task", UNKNOWN, GOOD_BODY, task_headers("drop table; 🙂")),
    ]
