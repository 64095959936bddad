"""POST /webhooks/gateway: what is answered 200 is stored, once; what is not genuine changes nothing."""

import json
import threading
import time
from typing import Any

import pytest
import stripe
from django.db import connection
from django.test import Client

from outbox.testing import staged
from webhooks.incoming.models import IncomingEvent
from webhooks.incoming.selectors import get_incoming_event

SECRET = "whsec_of_this_test"
PATH = "/webhooks/gateway"
TASK = "payments.tasks.apply_gateway_event"
EVENT = {"id": "evt_1", "type": "payment_intent.succeeded", "data": {"object": {"id": "pi_1"}}}

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _secret(settings: Any) -> None:
    settings.STRIPE_WEBHOOK_SECRET = SECRET


def signature(body: str, *, secret: str = SECRET, age_s: int = 0) -> str:
    return stripe.WebhookSignature.generate_signature_header(body, secret, int(time.time()) - age_s)


def post(body: str, header: str | None = None) -> Any:
    # Checked like a browser's request: the view must be exempt from CSRF by itself.
    client = Client(enforce_csrf_checks=True)
    headers = {"Stripe-Signature": signature(body) if header is None else header}
    return client.post(PATH, body, content_type="application/json", headers=headers)


def test_a_genuine_event_is_stored_and_its_processing_staged_together():
    answer = post(json.dumps(EVENT))

    assert (answer.status_code, answer.json()) == (200, {"received": True, "duplicate": False})
    assert get_incoming_event("evt_1").payload == EVENT
    (message,) = staged(TASK)
    assert message.kwargs == {"event_id": "evt_1"}


def test_a_duplicate_is_answered_200_and_does_nothing():
    body = json.dumps(EVENT)
    post(body)
    answer = post(body)

    assert (answer.status_code, answer.json()["duplicate"]) == (200, True)
    assert IncomingEvent.objects.count() == len(staged(TASK)) == 1


@pytest.mark.promise(
    "P3", "a provider sends an event four times at once", "one row and one message; each copy is answered 200"
)
@pytest.mark.django_db(transaction=True)
def test_two_copies_at_once_are_stored_once():
    body, barrier, statuses = json.dumps(EVENT), threading.Barrier(4), []

    def send() -> None:
        try:
            barrier.wait()
            statuses.append(post(body).status_code)
        finally:
            connection.close()

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert statuses == [200] * 4
    assert IncomingEvent.objects.count() == len(staged(TASK)) == 1


@pytest.mark.promise(
    "P2",
    "what follows from an incoming event cannot be written",
    "the event is not stored either, and its provider sends it again",
)
def test_when_the_message_cannot_be_staged_the_event_is_not_stored_either(mocker):
    mocker.patch("outbox.emit", side_effect=RuntimeError("no outbox"))
    with pytest.raises(RuntimeError):
        post(json.dumps(EVENT))
    assert not IncomingEvent.objects.exists()


@pytest.mark.parametrize(
    "header",
    ["", "garbage", "t=1", "v1=abc", "t=abc,v1=abc", "t=99999999999,v1=é", "t=" + "9" * 5000 + ",v1=a"],
)
def test_a_signature_that_makes_no_sense_is_a_400_problem(header):
    answer = post(json.dumps(EVENT), header)
    assert answer.status_code == 400
    assert answer["Content-Type"] == "application/problem+json"
    document = answer.json()
    assert set(document) == {"type", "title", "status", "detail", "instance", "code"}, "the format of the API"
    assert (document["status"], document["code"]) == (400, "bad_request")
    assert "Stripe-Signature" in document["detail"]
    assert not IncomingEvent.objects.exists()


def test_another_secret_an_old_signature_and_a_changed_body_are_refused():
    body = json.dumps(EVENT)
    assert post(body, signature(body, secret="whsec_other")).status_code == 400
    assert post(body, signature(body, age_s=301)).status_code == 400
    assert post(body.replace("pi_1", "pi_2"), signature(body)).status_code == 400
    assert post(body, signature(body, age_s=290)).status_code == 200


def test_without_a_configured_secret_nothing_is_accepted(settings):
    settings.STRIPE_WEBHOOK_SECRET = ""
    body = json.dumps(EVENT)
    assert post(body, signature(body, secret="")).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "null",
        "[]",
        '"text"',
        "{}",
        '{"id": "evt_1"}',
        '{"id": 5, "type": "x"}',
        '{"id": "", "type": "x"}',
        '{"id": "' + "x" * 256 + '", "type": "x"}',
        '{"id": "evt_\\u0000", "type": "x"}',
        '{"id": "evt_\\ud800", "type": "x"}',
        '{"id": "evt_1", "type": "x", "data": "\\u0000"}',
        '{"id": "evt_1", "type": "x", "data": "\\ud800"}',
        '{"id": "evt_1", "type": "x", "data": NaN}',
        "[" * 50_000,
        '{"id": "evt_1", "type": "x", "n": ' + "9" * 5000 + "}",
    ],
)
def test_a_signed_body_that_is_no_event_is_a_400(body):
    """Nothing is stored."""
    answer = post(body)
    assert answer.status_code == 400
    assert answer.json()["detail"]
    assert not IncomingEvent.objects.exists()


@pytest.mark.parametrize("depth", range(200, 1_400, 100))
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_a_signed_body_however_deep_is_stored_or_a_400_problem(depth, opening, closing):
    answer = post('{"id": "evt_1", "type": "x", "data": ' + opening * depth + "1" + closing * depth + "}")
    assert (answer.status_code, IncomingEvent.objects.count()) in ((200, 1), (400, 0))


@pytest.mark.parametrize("length", ["abc", "-5", "1.5", "²"])
def test_a_content_length_that_is_no_number_is_a_400_problem(length):
    answer = Client().post(PATH, "{}", content_type="application/json", CONTENT_LENGTH=length)
    assert answer.status_code == 400
    assert answer["Content-Type"] == "application/problem+json"


def test_a_body_that_is_not_utf8_is_refused():
    answer = Client().post(
        PATH, b"\xff\xfe", content_type="application/json", headers={"Stripe-Signature": "t=1,v1=a"}
    )
    assert answer.status_code == 400


def test_a_body_over_the_limit_is_413():
    answer = post(json.dumps(EVENT | {"padding": "x" * 300_000}))
    assert answer.status_code == 413
    assert not IncomingEvent.objects.exists()


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_another_method_than_post_is_a_problem_document_that_says_so(method):
    answer = Client().generic(method, PATH)
    assert (answer.status_code, answer["Allow"]) == (405, "POST")
    assert answer["Content-Type"] == "application/problem+json"
    if method != "HEAD":
        assert answer.json()["status"] == 405
