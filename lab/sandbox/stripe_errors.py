"""Stripe's error object. Source: https://docs.stripe.com/api/errors"""

from __future__ import annotations

import secrets
from typing import Any

from lab.sandbox.wire import Answer, Refused


def stripe_error(
    status: int, kind: str, message: str, *, code: str | None = None, param: str | None = None, **more: Any
) -> Answer:
    """An answer in Stripe's error format; `kind` is the error's `type`, `more` its further attributes."""
    error = {"type": kind, "message": message, "code": code, "param": param, **more}
    content = {"error": {name: value for name, value in error.items() if value is not None}}
    return Answer.of(status, content, Request_Id=f"req_{secrets.token_hex(12)}")


def invalid(
    message: str, *, code: str | None = None, param: str | None = None, status: int = 400, **more: Any
) -> Refused:
    """The exception for an `invalid_request_error`, which is never saved under an idempotency key."""
    return Refused(stripe_error(status, "invalid_request_error", message, code=code, param=param, **more))


def outage(status: int, message: str) -> Answer:
    """What the gateway answers when a fault dial, and not the request, is the reason."""
    if status == 429:
        return stripe_error(429, "invalid_request_error", message, code="rate_limit")
    return stripe_error(status, "api_error", message)
