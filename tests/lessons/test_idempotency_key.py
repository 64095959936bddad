"""Lesson "Idempotency-Key": the process is killed when the view has returned, and the client repeats its request."""

from __future__ import annotations

import uuid

import pytest
from django.contrib.auth.models import Group
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from pytest_mock import MockerFixture

from idempotency.decorator import idempotent
from lab.lessons import idempotency_key

pytestmark = pytest.mark.django_db


class Killed(BaseException):
    """What no `except Exception` catches, as little as it does SIGKILL."""


@pytest.fixture
def request_() -> HttpRequest:
    return RequestFactory().post("/groups", headers={"Idempotency-Key": f"key-{uuid.uuid4()}"})


def create(request: HttpRequest) -> HttpResponse:
    """The view: one effect for each run."""
    Group.objects.create(name=f"group {Group.objects.count() + 1}")
    return HttpResponse(status=201)


def test_wrong_an_answer_that_is_kept_afterwards_repeats_the_effect(
    request_: HttpRequest, mocker: MockerFixture
) -> None:
    killed = mocker.patch("lab.lessons.idempotency_key.cache.set", side_effect=Killed)

    with pytest.raises(Killed):
        idempotency_key.answer_once(request_, create)
    mocker.stop(killed)
    idempotency_key.answer_once(request_, create)

    assert Group.objects.count() == 2


def test_right_an_answer_that_is_committed_with_the_effect_repeats_nothing(
    request_: HttpRequest, mocker: MockerFixture
) -> None:
    view = idempotent(scope=lambda request: "ada")(create)
    killed = mocker.patch("idempotency.answers._keep", side_effect=Killed)

    with pytest.raises(Killed):
        view(request_)
    assert Group.objects.count() == 0

    mocker.stop(killed)
    assert [view(request_).status_code for _ in range(3)] == [201] * 3
    assert Group.objects.count() == 1
