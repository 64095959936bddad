"""`check --deploy` names each environment variable that is wrong where money moves."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import run_checks

#: What a deployment sets.
RIGHT = {
    "ALLOWED_HOSTS": ["shop.example"],
    "STRIPE_API_BASE": "https://api.stripe.com",
    "STRIPE_API_KEY": "sk_live_1",
    "STRIPE_WEBHOOK_SECRET": "whsec_1",
    "WEBHOOKS_ALLOW_PRIVATE": False,
    "EMAIL_HOST_PASSWORD": "",
    "DEFAULT_FROM_EMAIL": "orders@shop.test",
    "PASSWORD_RESET_URL": "https://shop.example/{uid}/{token}",
    "MONITORING_METRICS_TOKEN": "token",
}


def found(settings: Any, **changes: Any) -> dict[str, str]:
    for name, value in (RIGHT | changes).items():
        setattr(settings, name, value)
    messages = run_checks(tags=["security"], include_deployment_checks=True)
    return {
        message.id or "": str(message.msg) for message in messages if (message.id or "").startswith("config.")
    }


def test_a_right_deployment_has_nothing_to_mend(settings: Any) -> None:
    assert found(settings) == {}


@pytest.mark.parametrize(
    ("changes", "variable"),
    [
        ({"ALLOWED_HOSTS": ["shop.example", "*"]}, "ALLOWED_HOSTS"),
        ({"STRIPE_API_BASE": "http://127.0.0.1:9"}, "STRIPE_API_BASE"),
        ({"STRIPE_API_KEY": "sk_test_1"}, "STRIPE_API_KEY"),
        ({"STRIPE_API_KEY": ""}, "STRIPE_API_KEY"),
        ({"STRIPE_WEBHOOK_SECRET": ""}, "STRIPE_WEBHOOK_SECRET"),
        ({"WEBHOOKS_ALLOW_PRIVATE": True}, "WEBHOOKS_ALLOW_PRIVATE"),
        ({"EMAIL_HOST_PASSWORD": "secret"}, "EMAIL_URL"),
        ({"DEFAULT_FROM_EMAIL": "orders@holdfast.example"}, "DEFAULT_FROM_EMAIL"),
        ({"PASSWORD_RESET_URL": "http://127.0.0.1:8000/{uid}/{token}"}, "PASSWORD_RESET_URL"),
        ({"MONITORING_METRICS_TOKEN": ""}, "METRICS_TOKEN"),
    ],
)
def test_what_is_wrong_is_named(settings: Any, changes: dict[str, Any], variable: str) -> None:
    [text] = found(settings, **changes).values()
    assert text.startswith(variable)
