"""The merchants' webhook endpoints: verify the signature, and write down every delivery, duplicates too.

The signature is checked by the official Standard Webhooks library, which the app need not use to sign.
Source: https://www.standardwebhooks.com
"""

from __future__ import annotations

import time

from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook, WebhookVerificationError

from lab.sandbox.ledger import Ledger
from lab.sandbox.wire import Answer, Refused, Request, Route, Service, problem

MERCHANTS = Service("merchants", error_status=500, refusal=problem)


class Merchants:
    """PUT /merchants/{id} registers a `whsec_...` secret; POST /merchants/{id}/webhooks is the endpoint."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def routes(self) -> list[Route]:
        return [
            Route("PUT", "/merchants/{id}", self._register),
            Route("POST", "/merchants/{id}/webhooks", self._receive, MERCHANTS),
        ]

    def _register(self, request: Request) -> Answer:
        secret = request.json_object().get("secret")
        if not isinstance(secret, str) or not secret:
            raise Refused(problem(422, "the signing secret is required", "secret"))
        try:
            Webhook(secret)
        except (ValueError, EmptyWebhookSecretError):
            raise Refused(
                problem(422, "the signing secret must be base64, after 'whsec_'", "secret")
            ) from None
        with self._ledger.transaction() as db:
            db.execute("REPLACE INTO merchant VALUES (?, ?)", (request.place["id"], secret))
        return Answer.of(200, {"id": request.place["id"]})

    def _receive(self, request: Request) -> Answer:
        merchant = request.place["id"]
        webhook_id = request.header("webhook-id")
        if not webhook_id:
            raise Refused(problem(400, "the header webhook-id is required", "webhook-id"))
        request.work()
        with self._ledger.transaction() as db:
            row = db.execute("SELECT secret FROM merchant WHERE id = ?", (merchant,)).fetchone()
            reason = _forged(request, row["secret"]) if row else None
            earlier = db.execute(
                "SELECT count(*) AS times FROM webhook_delivery"
                " WHERE merchant = ? AND webhook_id = ? AND accepted",
                (merchant, webhook_id),
            ).fetchone()["times"]
            db.execute(
                "INSERT INTO webhook_delivery (merchant, webhook_id, accepted, verified, body, received)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (
                    merchant,
                    webhook_id,
                    reason is None,
                    row is not None and reason is None,
                    request.body.decode("utf-8", "replace"),
                    time.time(),
                ),
            )
        if reason is not None:
            raise Refused(problem(401, f"signature refused: {reason}", "webhook-signature"))
        return Answer.of(200, {"received": True, "duplicate": earlier > 0})


def _forged(request: Request, secret: str) -> str | None:
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    try:
        Webhook(secret).verify(request.body, {name: request.header(name) for name in names}, json_parse=False)
    except (WebhookVerificationError, ValueError) as error:
        return str(error) or "invalid"
    return None
