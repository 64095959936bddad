"""Lesson "webhook receiver": the first try to apply an event fails, and its provider sends it again."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import MagicMock

import pytest
from django.http import HttpRequest
from django.test import RequestFactory

from lab.lessons import webhook_receiver
from webhooks.incoming.models import IncomingEvent
from webhooks.incoming.views import receiver

pytestmark = pytest.mark.django_db
EVENT = {"id": "evt_1", "type": "payment_intent.succeeded"}
follow = MagicMock()


@pytest.fixture
def follower(settings: Any) -> MagicMock:
    """What each new event is given to; it fails once."""
    settings.INCOMING_ON_EVENT = f"{__name__}.follow"
    follow.reset_mock()
    follow.side_effect = [OSError("down"), None]
    return follow


def request() -> HttpRequest:
    return RequestFactory().post("/", json.dumps(EVENT), content_type="application/json")


def test_wrong_an_event_that_was_noted_and_not_applied_is_never_applied() -> None:
    apply = MagicMock(side_effect=[OSError("down"), None])

    with pytest.raises(OSError, match="down"):
        webhook_receiver.receive(request(), apply)

    assert webhook_receiver.receive(request(), apply).status_code == 200
    assert apply.call_count == 1


def test_right_an_event_and_what_follows_are_stored_together(follower: MagicMock) -> None:
    """Or neither of them is."""
    receive = receiver(provider="acme", verify=lambda request: None)

    with pytest.raises(OSError, match="down"):
        receive(request())
    assert not IncomingEvent.objects.exists()

    answers = [json.loads(receive(request()).content) for _ in range(3)]
    assert [answer["duplicate"] for answer in answers] == [False, True, True]
    assert follower.call_count == 2
    assert IncomingEvent.objects.count() == 1
