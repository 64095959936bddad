"""What can go wrong with a delivery. One base class, so that a caller needs one `except`.

Every argument but the message has a default: a worker's child process pickles its exceptions for the parent,
and an exception that cannot be rebuilt from its message takes the reason for the failure with it.
"""


class WebhookDeliveryError(Exception):
    """The endpoint did not take the event.

    `status` is the HTTP status (None when there was no answer); `retry_after` is how many seconds the other
    side, or the lease of another sender, asks us to wait (None where neither says).
    """

    def __init__(
        self, message: str = "", *, status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class EndpointUnreachable(WebhookDeliveryError):
    """No answer in time: refused, reset, timed out, not resolvable. The event may or may not have arrived."""


class EndpointRefused(WebhookDeliveryError):
    """We do not call this address (not https, private, credentials in it). Permanent: no retry helps."""


class EndpointGone(WebhookDeliveryError):
    """410: the receiver asks us to stop. Permanent; the subscription is switched off."""


class DeliveryInFlight(WebhookDeliveryError):
    """Somebody else is posting this very event to this very endpoint; ask again in `retry_after` seconds."""
