"""Stripe's rules for idempotency keys."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
import stripe

from tests.lab.sandbox.conftest import gateway_at, key, order
from tests.lab.sandbox_fixture import API_KEY, RunningSandbox, run_sandbox


def post(sandbox: RunningSandbox, name: str, **form: Any) -> requests.Response:
    return requests.post(
        f"{sandbox.url}/v1/payment_intents",
        data={"amount": 100, "currency": "usd", **form},
        headers={"Authorization": f"Bearer {API_KEY}", "Idempotency-Key": name},
        timeout=10,
    )


def test_the_same_key_and_parameters_replay_the_saved_answer(sandbox: RunningSandbox) -> None:
    card = {"payment_method": "pm_card_visa", "confirm": "true"}
    first, again = post(sandbox, "k", **card), post(sandbox, "k", **card)

    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["Original-Request"] == first.headers["Request-Id"]
    assert sandbox.summary("charges")["count"] == 1


def test_a_declined_card_is_replayed_too(gateway: stripe.StripeClient) -> None:
    intents = []
    for _ in range(2):
        with pytest.raises(stripe.CardError) as declined:
            gateway.v1.payment_intents.create(
                order(card="pm_card_visa_chargeDeclined", confirm=True), options=key("k")
            )
        intents.append(declined.value.error.payment_intent["id"])
    assert intents[0] == intents[1]


def test_the_same_key_with_other_parameters_is_refused(gateway: stripe.StripeClient) -> None:
    intent = gateway.v1.payment_intents.create(order(1), options=key("k"))
    for other in (
        lambda: gateway.v1.payment_intents.create(order(2), options=key("k")),
        lambda: gateway.v1.payment_intents.confirm(intent.id, options=key("k")),
    ):
        with pytest.raises(stripe.IdempotencyError) as refused:
            other()
        assert refused.value.http_status == 400
    assert gateway.v1.payment_intents.retrieve(intent.id).status == "requires_confirmation"


def test_a_request_with_a_key_in_flight_is_a_409(
    gateway: stripe.StripeClient, sandbox: RunningSandbox
) -> None:
    """The work is done once."""
    sandbox.faults(gateway={"latency_ms": 300})
    with ThreadPoolExecutor(5) as threads:
        answers = list(
            threads.map(lambda _: post(sandbox, "k", payment_method="pm_card_visa", confirm="true"), range(5))
        )
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200, 409, 409, 409, 409]
    conflict = next(answer for answer in answers if answer.status_code == 409).json()["error"]
    assert conflict["code"] == "idempotency_key_in_use"
    assert sandbox.summary("charges")["count"] == 1
    assert post(sandbox, "k", payment_method="pm_card_visa", confirm="true").status_code == 200


def test_a_500_of_an_execution_that_began_is_saved_and_replayed(sandbox: RunningSandbox) -> None:
    sandbox.faults(gateway={"cached_error_rate": 1})
    assert post(sandbox, "k").status_code == 500
    sandbox.faults()
    replayed = post(sandbox, "k")
    assert (replayed.status_code, replayed.headers["Idempotent-Replayed"]) == (500, "true")
    assert post(sandbox, "another key").status_code == 200


def test_a_500_before_the_execution_is_not_saved(sandbox: RunningSandbox) -> None:
    sandbox.faults(gateway={"error_rate": 1})
    assert post(sandbox, "k").status_code == 500
    sandbox.faults()
    retried = post(sandbox, "k")
    assert (retried.status_code, retried.headers.get("Idempotent-Replayed")) == (200, None)


def test_without_a_key_every_request_is_a_new_one(
    sandbox: RunningSandbox, gateway: stripe.StripeClient
) -> None:
    first, second = (gateway.v1.payment_intents.create(order(confirm=True)) for _ in range(2))
    # The client makes up a key for each call of a POST that has none.
    assert first.id != second.id
    anonymous = [
        requests.post(
            f"{sandbox.url}/v1/payment_intents",
            data={"amount": 100, "currency": "usd"},
            headers={"Authorization": f"Bearer {API_KEY}"},
            timeout=5,
        ).json()["id"]
        for _ in range(2)
    ]
    assert anonymous[0] != anonymous[1]
    assert sandbox.summary("charges")["repeated"] == ["1"]


def test_a_key_longer_than_255_characters_is_refused(sandbox: RunningSandbox) -> None:
    assert post(sandbox, "k" * 255).status_code == 200
    assert post(sandbox, "k" * 256).status_code == 400


def test_a_key_expires(tmp_path: Path) -> None:
    with run_sandbox(tmp_path, "--keys-ttl", "0") as forgetful:
        client = gateway_at(forgetful.url)
        first, second = (client.v1.payment_intents.create(order(), options=key("k")) for _ in range(2))
        assert first.id != second.id


def test_a_key_outlives_the_death_of_the_gateway(tmp_path: Path) -> None:
    with run_sandbox(tmp_path) as before:
        first = post(before, "k", payment_method="pm_card_visa", confirm="true")
        before.process.kill()
        before.process.wait(timeout=10)
    with run_sandbox(tmp_path) as after:
        again = post(after, "k", payment_method="pm_card_visa", confirm="true")
        assert again.json() == first.json()
        assert after.summary("charges")["count"] == 1
