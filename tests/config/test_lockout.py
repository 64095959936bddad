"""The admin's login counts failures: passwords cannot be tried one after the other."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from tests.config.test_env import read_settings

pytestmark = pytest.mark.django_db

LOGIN = "/admin/login/"


@pytest.fixture(autouse=True)
def admin() -> User:
    return User.objects.create_superuser("root", password="right")


def login(password: str, *, address: str = "192.0.2.1", name: str = "root") -> int:
    return Client(REMOTE_ADDR=address).post(LOGIN, {"username": name, "password": password}).status_code


def test_after_five_failures_even_the_right_password_is_a_429() -> None:
    """The answer says when to try again."""
    assert [login("wrong") for _ in range(settings.AXES_FAILURE_LIMIT - 1)] == [200] * 4
    assert login("wrong") == 429
    answer = Client(REMOTE_ADDR="192.0.2.1").post(LOGIN, {"username": "root", "password": "right"})
    assert (answer.status_code, answer["Retry-After"]) == (429, "900")


def test_others_are_not_locked_out_with_it() -> None:
    for _ in range(settings.AXES_FAILURE_LIMIT):
        login("wrong")
    assert login("right", address="192.0.2.2") == 302
    User.objects.create_superuser("other", password="right")
    assert login("right", name="other") == 302


def test_a_login_that_succeeds_forgets_the_failures_before_it() -> None:
    for _ in range(3):
        assert [login("wrong") for _ in range(settings.AXES_FAILURE_LIMIT - 1)] == [200] * 4
        assert login("right") == 302


@pytest.mark.parametrize(
    ("proxies", "forwarded"),
    [
        # What each proxy appends is the address that connected to it; what stands before that is the client's own claim.
        (1, "{client}"),
        (1, "{claim}, {client}"),
        (1, "no address, {client}"),
        (2, "{claim}, {client}, 10.0.0.2"),
        (0, "{claim}"),
    ],
)
def test_an_address_that_a_client_claims_gives_it_no_more_tries(
    proxies: int, forwarded: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROXY_COUNT", str(proxies))
    for name, value in read_settings().items():
        if name.startswith(("AXES_IPWARE", "IPWARE")):
            setattr(settings, name, value)
    form = {"username": "root", "password": "wrong"}

    def fail(client: str, claim: str) -> int:
        headers = {"X-Forwarded-For": forwarded.format(client=client, claim=claim)}
        connected = "10.0.0.1" if proxies else client
        return Client(REMOTE_ADDR=connected).post(LOGIN, form, headers=headers).status_code

    answers = [fail("203.0.113.7", f"198.51.100.{n}") for n in range(settings.AXES_FAILURE_LIMIT)]
    assert answers[-1] == 429
    assert fail("203.0.113.8", "198.51.100.0") == 200
