from typing import Any

import pytest
from django.test import Client

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/alerts.json"])
def test_an_operators_address_is_only_read(path: str) -> None:
    # Checked like a browser's request: a 403 for lack of a token would hide the 405.
    client = Client(enforce_csrf_checks=True)
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        answer = client.generic(method, path)
        assert (answer.status_code, answer["Allow"]) == (405, "GET, HEAD")
    assert client.get(path).status_code == client.head(path).status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/healthz/", "/readyz/", "/metrics/"])
@pytest.mark.parametrize("host", ["10.42.8.201:8000", "[fd00::1]:8000", "no host at all"])
def test_a_probe_is_answered_whatever_its_host(settings: Any, path: str, host: str) -> None:
    settings.ALLOWED_HOSTS = ["shop.example"]
    # As behind TLS: the redirect to https would count as success.
    settings.SECURE_SSL_REDIRECT = True
    answer = Client().get(path, headers={"host": host})
    assert answer.status_code == 200
    assert not answer.cookies


def test_metrics_ask_for_their_token_where_one_is_set(settings: Any) -> None:
    settings.MONITORING_METRICS_TOKEN = "right"
    for page in ("/metrics", "/alerts.json"):
        for given in ({}, {"authorization": "Bearer wrong"}, {"authorization": "right"}):
            answer = Client().get(page, headers=given)
            assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Bearer")
            assert b"outbox" not in answer.content
            assert b"unjudged" not in answer.content
        assert Client().get(page, headers={"authorization": "Bearer right"}).status_code == 200
    assert Client().get("/readyz").status_code == 200
