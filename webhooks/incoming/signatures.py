"""Proof that a request comes from its provider: a function of the request that raises BadEvent."""

import stripe
from django.http import HttpRequest

from . import conf
from .errors import BadEvent

#: Seconds. An older signature is a replay; Stripe signs each of its own retries anew.
TOLERANCE_SECONDS = 300


def stripe_signature(request: HttpRequest) -> None:
    """Raise BadEvent unless the `Stripe-Signature` header matches the body, by one of the secrets, and is recent."""
    secrets = conf.secrets()
    if not secrets:
        raise BadEvent("this receiver has no secret by which to verify an event")
    for secret in secrets:
        try:
            stripe.WebhookSignature.verify_header(
                request.body.decode(), request.headers.get("Stripe-Signature"), secret, TOLERANCE_SECONDS
            )
            return
        except (stripe.SignatureVerificationError, UnicodeDecodeError, TypeError):
            # TypeError: the comparison refuses a signature that is not ASCII.
            continue
    raise BadEvent("the Stripe-Signature header does not match the body or is too old")
