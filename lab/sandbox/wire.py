"""What travels between the HTTP server and the services: requests, answers, refusals and form decoding."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from typing import Any
from urllib.parse import parse_qsl

from lab.sandbox.faults import NO_FAULTS, Plan


@dataclass(slots=True)
class Answer:
    """A reply: status, body, and headers beyond the ones that the server always sends."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"

    @classmethod
    def of(cls, status: int, content: Any, **headers: str) -> Answer:
        """An answer whose body is `content` as JSON; underscores in header names become hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return cls(status, json.dumps(content).encode(), named)


class Refused(Exception):
    """The request is not carried out; `answer` says why."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.status}: {answer.body[:200]!r}")
        self.answer = answer


def problem(status: int, message: str, field_name: str | None = None) -> Answer:
    """The error format of the services that are not the gateway: `{"error": ..., "field": ...}`."""
    content = {"error": message} if field_name is None else {"error": message, "field": field_name}
    return Answer.of(status, content)


@dataclass(slots=True)
class Request:
    """One HTTP request after routing. `place` holds what the route's `{name}` parts matched."""

    method: str
    path: str
    query: str
    headers: Message
    body: bytes
    place: dict[str, str]
    plan: Plan = NO_FAULTS

    def header(self, name: str) -> str:
        """The header's value, or '' when it was not sent."""
        return (self.headers.get(name) or "").strip()

    def work(self) -> None:
        """Take as long as the service's latency dial says.

        Called where the service does its work, so that an idempotency key is in flight for that long.
        """
        if self.plan.latency_s:
            time.sleep(self.plan.latency_s)

    def asked(self) -> dict[str, Any]:
        """The query string, decoded like a form: `created[gte]=1` is `{"created": {"gte": "1"}}`."""
        return decode_form(self.query)

    def form(self) -> dict[str, Any]:
        """The form-encoded body."""
        return decode_form(self.body.decode("utf-8", "replace"))

    def json_object(self) -> dict[str, Any]:
        """The body as a JSON object. Raises `Refused` (400) when it is anything else."""
        try:
            content = json.loads(self.body)
        except ValueError as error:
            raise Refused(problem(400, f"the body is not JSON: {error}")) from None
        if not isinstance(content, dict):
            raise Refused(problem(400, f"the body must be a JSON object, not {type(content).__name__}"))
        return content


@dataclass(frozen=True, slots=True)
class Service:
    """How a service fails: the name its dials have, and how it words the refusals that the dials cause."""

    name: str
    error_status: int
    refusal: Callable[[int, str], Answer]


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint. Without a `service` no dial applies to it (the sandbox's own controls)."""

    method: str
    pattern: str
    handler: Callable[[Request], Answer]
    service: Service | None = None


def decode_form(text: str) -> dict[str, Any]:
    """Decode form encoding with nested keys, as Stripe's clients send it.

    `metadata[order_id]=7` becomes `{"metadata": {"order_id": "7"}}`; `types[0]=card` and `types[]=card`
    become `{"types": {"0": "card"}}`, since the distinction between list and object is the reader's.
    """
    decoded: dict[str, Any] = {}
    for key, value in parse_qsl(text, keep_blank_values=True):
        *outer, last = re.findall(r"[^\[\]]+", key) or [key]
        if key.endswith("[]"):
            outer.append(last)
            last = str(len(decoded.get(last, {})))
        level = decoded
        for part in outer:
            inner = level.get(part)
            if not isinstance(inner, dict):  # first use, or `a=1&a[b]=2`: the more specific one wins
                inner = level[part] = {}
            level = inner
        level[last] = value
    return decoded
