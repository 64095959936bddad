"""What can go wrong at the gateway, in the three kinds that a caller treats differently.

| kind | the money | what a caller does |
|---|---|---|
| `CardDeclined`, `ChargeRefused` | certainly not taken | a business outcome: fail the order |
| `GatewayUnavailable` | perhaps taken | ask again with the same identity, later |
| `InvalidRequest` | certainly not taken | a person must look: asking again cannot help |
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import stripe

from resilience.retry_after import parse_retry_after

#: Seconds after which the same request that is in flight has probably ended.
IN_FLIGHT_SECONDS = 1.0
#: An answer's body can be a whole HTML page of a proxy; the log and the dead letter need its beginning.
MESSAGE_MAX_CHARACTERS = 300

# Stripe's key prefixes: secret, restricted and publishable keys, webhook secrets, and intents' client
# secrets.
_SECRET = re.compile(r"\b(?:sk|rk|pk|whsec)_\S+|_secret_\w+")


class GatewayError(Exception):
    """Base of every error that `payments.gateway` raises. Its text never contains a key or a secret."""


class CardDeclined(GatewayError):
    """The bank, or the state of the payment, said no. Final: nothing was captured and nothing will be.

    `decline_code` is the gateway's code, for example `insufficient_funds`, `authentication_required`,
    `canceled`; ours is `invalid_payment_method`, for one that the gateway does not know or cannot charge.
    """

    def __init__(self, message: str, decline_code: str = "") -> None:
        super().__init__(message)
        self.decline_code = decline_code


class ChargeRefused(CardDeclined):
    """The gateway will not take this charge as it is, for example an amount below its minimum. Final: nothing was
    captured. `decline_code` is the gateway's error code, or the parameter that it refuses. Its text is for developers.
    """


class GatewayUnavailable(GatewayError):
    """No usable answer: the call may or may not have had its effect. Ask again with the same identity.

    `retry_after` is the wait in seconds that is asked for, or None. `replayed` says that the gateway
    played back a stored server error, so that the same idempotency key will bring the same answer for a day.
    """

    def __init__(self, message: str, retry_after: float | None = None, *, replayed: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.replayed = replayed


class GatewayBusy(GatewayUnavailable):
    """The gateway is well but will not do this now: rate limit, or the same request is in flight.

    Not a failure to the circuit breaker: opening it would stop everybody because one caller was too fast.
    """


class InvalidRequest(GatewayError):
    """The gateway understood and refuses for good: wrong parameters, unknown id, a key used for something
    else.
    """


class RequestRefused(InvalidRequest):
    """The request itself is wrong (HTTP 400), and nothing was done. `code` is the gateway's error code, or the parameter
    that it names.
    """

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class GatewayMisconfigured(InvalidRequest):
    """The gateway refuses *us*: `STRIPE_API_KEY` is wrong, revoked, or may not do this."""


class UnexpectedState(InvalidRequest):
    """The object has moved on since it was read (`*_unexpected_state`): read it again and decide anew."""


def redact(text: str) -> str:
    """`text` without anything that looks like a gateway secret, cut to a length that fits a log line."""
    return _SECRET.sub("***", text)[:MESSAGE_MAX_CHARACTERS]


@contextmanager
def translated() -> Iterator[None]:
    """Turns what the `stripe` client raises into the kinds above.

    `from None` on purpose: the original exceptions carry whole bodies, which would reach logs and dead letters.
    """
    try:
        yield
    except stripe.StripeError as error:
        raise _translate(error) from None
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        # The client raises these when a 200 carries JSON of another shape. The call may have had its effect.
        raise GatewayUnavailable(redact(f"unreadable answer ({type(error).__name__}: {error})")) from None


def _translate(error: stripe.StripeError) -> GatewayError:
    reference = f" [{error.request_id}]" if error.request_id else ""
    message = redact(f"{type(error).__name__}: {error.user_message}") + reference
    headers = error.headers or {}
    retry_after = parse_retry_after(headers.get("retry-after"), date=headers.get("date"))
    if isinstance(error, stripe.CardError):
        # Both are in the body's error object; the more precise one is the bank's.
        code = getattr(error.error, "decline_code", None) or error.code or "card_declined"
        return CardDeclined(message, str(code))
    if isinstance(error, stripe.RateLimitError):
        return GatewayBusy(message, retry_after)
    if error.http_status == 409:
        return GatewayBusy(message, IN_FLIGHT_SECONDS if retry_after is None else retry_after)
    if isinstance(error, (stripe.AuthenticationError, stripe.PermissionError)):
        return GatewayMisconfigured(message)
    if isinstance(error, stripe.InvalidRequestError):
        if _moved_on(error.code):
            return UnexpectedState(message)
        if error.param == "payment_method":
            # The customer named it, and not we: an order that cannot be paid ends, as with a declined card. As a
            # dead letter it would hold its stock until a person looked, who could do nothing about it.
            return CardDeclined(message, "invalid_payment_method")
        if error.http_status == 400:
            return RequestRefused(message, str(error.code or error.param or ""))
        return InvalidRequest(message)
    if isinstance(error, stripe.IdempotencyError):
        return InvalidRequest(message)
    # Connection errors, 5xx, bodies that are no JSON, undocumented statuses: all of them are ambiguous.
    replayed = headers.get("idempotent-replayed", "").lower() == "true"
    return GatewayUnavailable(message, retry_after, replayed=replayed)


def _moved_on(code: str | None) -> bool:
    return bool(code) and (str(code).endswith("_unexpected_state") or code == "charge_already_refunded")
