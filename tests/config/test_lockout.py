"""The admin's login counts failures: passwords cannot be tried one after the other."""

from __future__ import annotations

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

pytestmark = pytest.mark.django_db

LOGIN = "/admin/login/"


@pytest.fixture(autouse=True)
def admin() -> User:
    return User.objects.create_superuser("root", password="right")


def login(password: str, *, address: str = "192.0.2.1", name: str = "root") -> int:
    return Client(REMOTE_ADDR=address).post(LOGIN, {"username": name, "password": password}).status_code


def test_after_five_failures_even_the_right_password_is_a_429_that_says_when_to_come_back() -> None:
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


def test_behind_a_proxy_the_clients_own_address_counts(settings: pytest.FixtureRequest) -> None:
    settings.AXES_IPWARE_PROXY_COUNT = 1  # type: ignore[attr-defined]
    settings.AXES_IPWARE_META_PRECEDENCE_ORDER = ["HTTP_X_FORWARDED_FOR"]  # type: ignore[attr-defined]
    form = {"username": "root", "password": "wrong"}

    def behind(address: str) -> int:
        # The proxy appends: what a client claims of itself stands before it.
        forwarded = {"X-Forwarded-For": f"{address}, 10.0.0.1"}
        return Client(REMOTE_ADDR="10.0.0.1").post(LOGIN, form, headers=forwarded).status_code

    answers = [behind("192.0.2.7") for _ in range(settings.AXES_FAILURE_LIMIT)]  # type: ignore[attr-defined]
    assert answers[-1] == 429
    assert behind("192.0.2.8") == 200
