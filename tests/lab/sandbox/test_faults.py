"""Every dial bites, as often as it says, and before or after the act as it says."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import requests
import stripe

from lab.sandbox.faults import DIALS
from tests.lab.sandbox.conftest import gateway_at, order
from tests.lab.sandbox_fixture import API_KEY, RunningSandbox

HTTP_SERVICES = ("gateway", "warehouse", "crm", "merchants")
LEDGERS = {"gateway": "charges", "warehouse": "shipments", "crm": "crm", "merchants": "webhooks"}


def call(
    sandbox: RunningSandbox, service: str, *, timeout_s: float = 5, follow: bool = False
) -> requests.Response:
    """One call that has an effect."""
    path, sent = {
        "gateway": (
            "/v1/payment_intents",
            {"data": {"amount": 100, "currency": "eur", "payment_method": "pm_card_visa", "confirm": "true"}},
        ),
        "warehouse": (
            "/warehouse/shipments",
            {"json": {"order_id": 7, "items": [{"sku": "W", "quantity": 1}]}},
        ),
        "crm": ("/crm/orders", {"json": {"order_id": 7}}),
        "merchants": ("/merchants/1/webhooks", {"data": "{}"}),
    }[service]
    headers = {"Authorization": f"Bearer {API_KEY}", "webhook-id": "evt_1"}
    return requests.post(
        sandbox.url + path,
        headers=headers,
        timeout=timeout_s,
        allow_redirects=follow,
        **sent,  # type: ignore[arg-type]
    )


def effects(sandbox: RunningSandbox, service: str) -> int:
    count: int = sandbox.summary(LEDGERS[service])["count"]
    return count


@pytest.mark.parametrize("service", HTTP_SERVICES)
class TestOf:
    def test_error_rate_refuses_before_acting(self, sandbox: RunningSandbox, service: str) -> None:
        sandbox.faults(**{service: {"error_rate": 1}})
        answer = call(sandbox, service)
        assert answer.status_code == (503 if service in ("warehouse", "crm") else 500)
        assert "error" in answer.json()
        assert effects(sandbox, service) == 0
        assert sandbox.bitten(service, "error_rate") == 1

    def test_latency_ms_takes_that_long_and_then_succeeds(
        self, sandbox: RunningSandbox, service: str
    ) -> None:
        sandbox.faults(**{service: {"latency_ms": 150}})
        began = time.monotonic()
        assert call(sandbox, service).ok
        assert time.monotonic() - began >= 0.15
        assert effects(sandbox, service) == 1

    def test_hang_rate_answers_nothing_and_does_nothing(self, sandbox: RunningSandbox, service: str) -> None:
        sandbox.faults(**{service: {"hang_rate": 1}})
        with pytest.raises(requests.ReadTimeout):
            call(sandbox, service, timeout_s=0.3)
        assert effects(sandbox, service) == 0

    def test_hang_ms_bounds_the_hanging(self, sandbox: RunningSandbox, service: str) -> None:
        sandbox.faults(**{service: {"hang_rate": 1, "hang_ms": 100}})
        with pytest.raises(requests.ConnectionError):
            call(sandbox, service)

    def test_rate_limit_rate_answers_429_with_retry_after(
        self, sandbox: RunningSandbox, service: str
    ) -> None:
        sandbox.faults(**{service: {"rate_limit_rate": 1, "retry_after": 17}})
        answer = call(sandbox, service)
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "17")
        assert effects(sandbox, service) == 0

    def test_redirect_rate_leads_to_a_page_that_answers_200_without_the_effect(
        self, sandbox: RunningSandbox, service: str
    ) -> None:
        sandbox.faults(**{service: {"redirect_rate": 1}})
        assert call(sandbox, service).status_code == 302
        followed = call(sandbox, service, follow=True)
        assert (followed.status_code, followed.headers["Content-Type"]) == (200, "text/html")
        assert effects(sandbox, service) == 0

    def test_drop_reply_rate_acts_and_says_nothing(self, sandbox: RunningSandbox, service: str) -> None:
        sandbox.faults(**{service: {"drop_reply_rate": 1}})
        with pytest.raises(requests.ConnectionError):
            call(sandbox, service)
        assert effects(sandbox, service) == 1

    def test_wrong_json_rate_acts_and_answers_200_with_nonsense(
        self, sandbox: RunningSandbox, service: str
    ) -> None:
        sandbox.faults(**{service: {"wrong_json_rate": 1}})
        answer = call(sandbox, service)
        assert answer.status_code == 200
        with pytest.raises(requests.JSONDecodeError):
            answer.json()
        assert effects(sandbox, service) == 1

    def test_slow_drip_rate_outlasts_a_read_timeout_byte_by_byte(
        self, sandbox: RunningSandbox, service: str
    ) -> None:
        sandbox.faults(**{service: {"slow_drip_rate": 1, "slow_drip_ms": 600}})
        began = time.monotonic()
        # Each byte comes in time, so the timeout of 0.4 s never strikes though the answer takes longer.
        assert call(sandbox, service, timeout_s=0.4).ok
        assert time.monotonic() - began >= 0.6
        assert effects(sandbox, service) == 1


def test_the_clients_of_the_gateway_see_the_exceptions_that_stripe_causes(sandbox: RunningSandbox) -> None:
    client = gateway_at(sandbox.url, timeout_s=0.5)
    for dial, exception in (
        ("error_rate", stripe.APIError),
        ("cached_error_rate", stripe.APIError),
        ("rate_limit_rate", stripe.RateLimitError),
        ("hang_rate", stripe.APIConnectionError),
        ("drop_reply_rate", stripe.APIConnectionError),
        ("wrong_json_rate", stripe.APIError),
        ("redirect_rate", stripe.APIError),
    ):
        sandbox.faults(gateway={dial: 1})
        with pytest.raises(exception):
            client.v1.payment_intents.create(order())
        with pytest.raises(exception):  # looking is no safer than changing
            client.v1.payment_intents.list()
        assert sandbox.bitten("gateway", dial) == 2


def test_a_rate_is_graded(sandbox: RunningSandbox) -> None:
    sandbox.faults(crm={"error_rate": 0.3}, seed=1)
    failed = sum(call(sandbox, "crm").status_code == 503 for _ in range(200))
    assert 40 <= failed <= 80
    assert sandbox.bitten("crm", "error_rate") == failed


def test_the_star_turns_every_service_and_its_own_entry_wins(sandbox: RunningSandbox) -> None:
    sandbox.faults(**{"*": {"error_rate": 1}, "crm": {"error_rate": 0}})
    assert [call(sandbox, service).ok for service in HTTP_SERVICES] == [False, False, True, False]
    shown = requests.get(f"{sandbox.url}/faults", timeout=5).json()
    assert [shown[service]["error_rate"] for service in DIALS] == [1, 1, 0, 1, 1]


def test_a_new_setting_replaces_the_old_one(sandbox: RunningSandbox) -> None:
    sandbox.faults(crm={"error_rate": 1})
    sandbox.faults(warehouse={"error_rate": 1})
    assert call(sandbox, "crm").ok
    assert not call(sandbox, "warehouse").ok
    shown = requests.get(f"{sandbox.url}/faults", timeout=5).json()
    assert requests.put(f"{sandbox.url}/faults", json=shown, timeout=5).json() == shown


def test_a_seed_repeats_the_same_faults_whatever_other_services_meet(sandbox: RunningSandbox) -> None:
    def run(*, beside: int) -> list[int]:
        sandbox.faults(**{"*": {"error_rate": 0.5}}, seed=42)
        for _ in range(beside):
            call(sandbox, "warehouse")
        return [call(sandbox, "crm").status_code for _ in range(30)]

    call(sandbox, "crm")  # so that the CRM knows the order and only ever answers 200 or 503
    first = run(beside=0)
    assert set(first) == {200, 503}
    assert run(beside=7) == first


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"bank": {"error_rate": 1}}, "bank"),
        ({"crm": {"eror_rate": 1}}, "crm.eror_rate"),
        ({"crm": {"cached_error_rate": 1}}, "crm.cached_error_rate"),
        ({"*": {"eror_rate": 1}}, "*.eror_rate"),
        ({"crm": {"error_rate": 1.5}}, "crm.error_rate"),
        ({"crm": {"error_rate": -1}}, "crm.error_rate"),
        ({"crm": {"error_rate": "often"}}, "crm.error_rate"),
        ({"crm": {"error_rate": True}}, "crm.error_rate"),
        ({"crm": {"latency_ms": -1}}, "crm.latency_ms"),
        ({"crm": 1}, "crm"),
        ({"seed": "x"}, "seed"),
    ],
)
def test_an_unknown_dial_or_value_is_a_400_that_changes_nothing(
    sandbox: RunningSandbox, setting: dict[str, Any], named: str
) -> None:
    """The answer names it."""
    before = requests.get(f"{sandbox.url}/faults", timeout=5).json()
    answer = requests.put(f"{sandbox.url}/faults", json={"gateway": {"error_rate": 1}} | setting, timeout=5)
    assert (answer.status_code, answer.json()["field"]) == (400, named)
    assert requests.get(f"{sandbox.url}/faults", timeout=5).json() == before


def test_the_controls_have_no_faults(sandbox: RunningSandbox) -> None:
    sandbox.faults(**{"*": {"error_rate": 1, "hang_rate": 1}})
    for path in ("/healthz", "/faults", "/ledger/charges", "/"):
        assert requests.get(sandbox.url + path, timeout=5).status_code == 200


@pytest.mark.parametrize("dial", sorted({dial for dials in DIALS.values() for dial in dials}))
def test_every_dial_is_turned_in_a_test(dial: str) -> None:
    proofs = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert f'"{dial}": ' in proofs
