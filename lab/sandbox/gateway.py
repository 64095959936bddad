"""The payment gateway: Stripe's PaymentIntents wire format, so that production is only another address.

Form-encoded requests, a Bearer key, `Idempotency-Key`, error objects, lists and events as Stripe's, enough of
each for the official clients. Source: https://docs.stripe.com/api
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from lab.sandbox import disputes, intents, objects, refunds
from lab.sandbox.events import EventPosters
from lab.sandbox.expansion import expanded
from lab.sandbox.idempotency import IdempotencyKeys
from lab.sandbox.ledger import Ledger
from lab.sandbox.params import known_params
from lab.sandbox.stripe_errors import invalid, outage, stripe_error
from lab.sandbox.wire import Answer, Refused, Request, Route, Service, problem

GATEWAY = Service("gateway", error_status=500, refusal=outage)

_Execute = Callable[[sqlite3.Connection, Request], Answer]


class Gateway:
    """Its endpoints. `keys_ttl_s` is how long an idempotency key is remembered."""

    def __init__(self, ledger: Ledger, posters: EventPosters, *, keys_ttl_s: float) -> None:
        self._ledger = ledger
        self._posters = posters
        self._keys = IdempotencyKeys(ledger, ttl_s=keys_ttl_s)

    def routes(self) -> list[Route]:
        def post(pattern: str, execute: _Execute) -> Route:
            return Route("POST", pattern, lambda request: self._change(request, execute), GATEWAY)

        def get(pattern: str, execute: _Execute) -> Route:
            return Route("GET", pattern, lambda request: self._look(request, execute), GATEWAY)

        routes = [
            post("/v1/payment_intents", lambda db, asked: intents.create(db, asked.form())),
            post(
                "/v1/payment_intents/{id}/confirm",
                lambda db, asked: intents.confirm(db, asked.place["id"], asked.form()),
            ),
            post(
                "/v1/payment_intents/{id}/cancel",
                lambda db, asked: intents.cancel(db, asked.place["id"], asked.form()),
            ),
            post("/v1/refunds", lambda db, asked: refunds.create(db, asked.form())),
            post("/v1/disputes/{id}", lambda db, asked: disputes.submit(db, asked.place["id"], asked.form())),
            post(
                "/v1/disputes/{id}/close",
                lambda db, asked: disputes.close(db, asked.place["id"], asked.form()),
            ),
            # No endpoint of Stripe's: the bank's side, for a charge that was made with an ordinary card.
            Route("POST", "/disputes", self._dispute),
        ]
        for plural in ("payment_intents", "charges", "refunds", "disputes", "events"):
            routes.append(get(f"/v1/{plural}", _listed(plural)))
            routes.append(get(f"/v1/{plural}/{{id}}", _one(plural)))
        return [*routes, Route("*", "/v1/{rest...}", _unrecognized, GATEWAY)]

    def _dispute(self, request: Request) -> Answer:
        """`{"payment_intent": id, "reason": "fraudulent", "inquiry": false}`: the customer disputes it."""
        asked = request.json_object()
        with self._ledger.transaction() as db:
            charge = objects.charge_of(db, str(asked.get("payment_intent")))
            if charge is None:
                raise Refused(problem(404, "nothing was captured under this intent", "payment_intent"))
            reason = str(asked.get("reason") or "fraudulent")
            dispute = disputes.open_dispute(db, charge, reason=reason, inquiry=bool(asked.get("inquiry")))
        self._posters.wake()
        return Answer.of(200, dispute)

    def _change(self, request: Request, execute: _Execute) -> Answer:
        _authenticate(request)
        request_id = objects.new_id("req")
        answer = self._keys.once(
            request, request_id, lambda db: expanded(db, execute(db, request), request.form())
        )
        self._posters.wake()
        answer.headers["Request-Id"] = request_id
        return answer

    def _look(self, request: Request, execute: _Execute) -> Answer:
        _authenticate(request)
        request.work()
        if request.plan.cached_error:  # a GET has no key to save it under
            raise Refused(
                stripe_error(500, "api_error", "An error occurred while the request was carried out.")
            )
        with self._ledger.transaction() as db:
            answer = expanded(db, execute(db, request), request.asked())
        answer.headers["Request-Id"] = objects.new_id("req")
        return answer


def _listed(plural: str) -> _Execute:
    return lambda db, asked: objects.page(db, plural.removesuffix("s"), f"/v1/{plural}", asked.asked())


def _one(plural: str) -> _Execute:
    def look(db: sqlite3.Connection, asked: Request) -> Answer:
        known_params(asked.asked(), frozenset({"expand", "client_secret"}))
        document: dict[str, Any] = objects.get(db, plural.removesuffix("s"), asked.place["id"])
        return Answer.of(200, document)

    return look


def _unrecognized(request: Request) -> Answer:
    raise invalid(
        f"Unrecognized request URL ({request.method}: {request.path}). Please see https://stripe.com/docs.",
        status=404,
    )


def _authenticate(request: Request) -> None:
    scheme, _, key = request.header("Authorization").partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise invalid(
            "You did not provide an API key. You need to provide your API key in the Authorization header,"
            " using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
            status=401,
        )
    if not key.startswith(("sk_", "rk_")):
        raise invalid(f"Invalid API Key provided: {key[:3]}{'*' * 8}", status=401)
