"""Requests that are cut off: by a killed web process, or a lost connection. The client, who got no answer, repeats."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import stripe
from django.conf import settings
from django.test import Client

from lab.faultpoints.environment import Environment, model
from lab.faultpoints.scenario import Scenario, State, drop_fan_out, place, processed, waived_without
from outbox.heartbeat import SignOfLife
from outbox.status import Role

_BODY = {
    "customer_id": 1,
    "currency": "usd",
    "payment_method": "pm_card_visa",
    "items": [{"sku": "WIDGET", "quantity": 2}],
    "receipt_email": "ada@example.com",
}
_EVENT = {
    "id": "evt_posted",
    "type": "payment_intent.created",
    "data": {"object": {"id": "pi_of_somebody_else"}},
}


def _no_state(environment: Environment) -> State:
    return {}


def _post(environment: Environment, path: str, body: Any, **headers: str) -> Any:
    return environment.client().post(path, data=body, content_type="application/json", headers=headers)


def _place(environment: Environment, state: State, body: Any = _BODY) -> None:
    answer = _post(environment, "/api/orders", body, **{"Idempotency-Key": "the-clients"})
    if answer.status_code == 202:
        state.setdefault("told", []).append(answer.json()["id"])
        state["accepted"] = sorted(set(state["told"]))


def _place_until_answered(environment: Environment, state: State) -> None:
    for _ in range(2):  # Once more than needed: an answer may be lost, too.
        _place(environment, state)


def _one_order(environment: Environment, state: State) -> str:
    ids = list(model("orders.Order").objects.values_list("id", flat=True))
    # The last two are the client's repetitions; both are told of the one order that there is.
    told = state.get("told", [])[-2:]
    return "" if told == ids * 2 else f"orders {ids}, the client was told of {told}"


#: For the stock of two at once; what follows from an order that is paid is explored with the one.
_DECLINED = _BODY | {"payment_method": "pm_card_visa_chargeDeclined"}


def _place_one(environment: Environment, state: State) -> None:
    _place(environment, state, _DECLINED)


def _place_another(environment: Environment, state: State) -> None:
    answer = _post(environment, "/api/orders", _DECLINED, **{"Idempotency-Key": "another-clients"})
    assert answer.status_code == 202, answer.content
    state["accepted"] = [answer.json()["id"]]


def _cancel(environment: Environment, state: State) -> None:
    state["answer"] = _post(
        environment, f"/api/orders/{state['order_id']}/cancel", {"reason": "changed my mind"}
    ).status_code


def _is_cancelled(environment: Environment, state: State) -> str:
    order = model("orders.Order").objects.get()
    # Without a cancellation that came through, the order may end as it likes.
    return (
        "" if order.status == "cancelled" and state["answer"] == 200 else f"{order}, answer {state['answer']}"
    )


def _event(environment: Environment, state: State) -> None:
    body = json.dumps(_EVENT)
    signature = stripe.WebhookSignature.generate_signature_header(
        body, settings.STRIPE_WEBHOOK_SECRET, int(time.time())
    )
    state["answer"] = _post(
        environment, "/webhooks/gateway", body, **{"Stripe-Signature": signature}
    ).status_code


def _is_stored(environment: Environment, state: State) -> str:
    stored = model("webhooks_incoming.IncomingEvent").objects.filter(event_id=_EVENT["id"]).count()
    return "" if stored == 1 and state["answer"] == 200 else f"{stored} rows, answer {state['answer']}"


def _placed(environment: Environment) -> State:
    return {"order_id": place().pk}


def _completed(environment: Environment) -> State:
    order = processed(environment)
    drop_fan_out()
    return {"order_id": order.pk}


def _settled(environment: Environment) -> State:
    """An order of which all is done: a reading request has nothing to do with what would still follow."""
    order_id = place().pk
    environment.processes.until_quiet(copies=1)
    return {"order_id": order_id}


def _read(path: str) -> Callable[[Environment, State], None]:
    def get(environment: Environment, state: State) -> None:
        state["answer"] = environment.client().get(path.format(**state)).status_code

    return get


def _is_answered(environment: Environment, state: State) -> str:
    return "" if state["answer"] == 200 else f"answer {state['answer']}"


def _reading(name: str, pattern: str, path: str) -> Scenario:
    """A reading request: cut off, it leaves nothing behind, and the next one is answered."""
    get = _read(path)
    return Scenario(name, f"GET {pattern}", _settled, get, again=get, duplicate=get, proves=_is_answered)


def _ask(environment: Environment, state: State) -> None:
    """Whether it is ready, with a relay that has just given a sign of life: the explorer's own gives none."""
    SignOfLife(Role.RELAY).give()
    _read("/readyz")(environment, state)


def _seen_by_staff(environment: Environment) -> State:
    # Users outlive the reset between two strikes.
    user, _ = model("auth.User").objects.get_or_create(
        username="operator", defaults={"is_staff": True, "is_superuser": True}
    )
    client = Client(raise_request_exception=False)
    client.force_login(user)
    return {**_settled(environment), "cookies": dict(client.cookies)}


def _open_journey(environment: Environment, state: State) -> None:
    client = Client(raise_request_exception=False)
    client.cookies.update(state["cookies"])
    state["answer"] = client.get(f"/orders/{state['order_id']}/").status_code


_CANCEL_PATH = "POST /api/orders/<int:order_id>/cancel"

ENDPOINTS: tuple[Scenario, ...] = (
    Scenario(
        "post_order", "POST /api/orders", _no_state, _place, again=_place_until_answered, duplicate=_place, proves=_one_order
    ),
    # Another client places another order of the same goods at the same moment.
    Scenario(
        "post_two_orders", "POST /api/orders", _no_state, _place_one, again=_place_one, duplicate=_place_another
    ),
    Scenario("cancel_pending", _CANCEL_PATH, _placed, _cancel, again=_cancel, duplicate=_cancel, proves=_is_cancelled),
    Scenario("cancel_completed", _CANCEL_PATH, _completed, _cancel, again=_cancel, duplicate=_cancel, proves=_is_cancelled,
             waived=waived_without()),
    Scenario(
        "post_event", "POST /webhooks/gateway", _no_state, _event, again=_event, duplicate=_event, proves=_is_stored
    ),
    _reading("get_orders", "/api/orders", "/api/orders"),
    _reading("get_order", "/api/orders/<int:order_id>", "/api/orders/{order_id}"),
    _reading("get_journey", "/api/orders/<int:order_id>/journey", "/api/orders/{order_id}/journey"),
    Scenario("staff_journey", "GET /orders/<int:order_id>/", _seen_by_staff, _open_journey, again=_open_journey,
             duplicate=_open_journey, proves=_is_answered),
    _reading("get_healthz", "/healthz", "/healthz"),
    Scenario("get_readyz", "GET /readyz", _settled, _ask, again=_ask, duplicate=_ask, proves=_is_answered),
    _reading("get_metrics", "/metrics", "/metrics"),
    _reading("get_alerts", "/alerts.json", "/alerts.json"),
)  # fmt: skip
