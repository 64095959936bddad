"""send_webhook: one event reaches one endpoint once, however many workers send it and however often."""

import threading
from datetime import timedelta
from unittest.mock import MagicMock

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from tests.lab.sandbox_fixture import RunningSandbox
from tests.support.database import lose_connection
from tests.support.locks import wait_until_blocked
from webhooks.delivery import (
    DeliveryInFlight,
    EndpointGone,
    EndpointRefused,
    EndpointUnreachable,
    WebhookDeliveryError,
    send_webhook,
)
from webhooks.models import DELIVERY_LEASE, Delivery, new_secret
from webhooks.transport import Response

URL = "https://example.com/hook"


def nested(depth: int) -> list[object]:
    found: list[object] = []
    for _ in range(depth):
        found = [found]
    return found


@pytest.mark.django_db
class TestWithoutANetwork:
    @pytest.mark.described("`send_webhook`, called twice for one event and endpoint, makes one request")
    def test_the_idempotency_key_prevents_duplicates(self, mocker):
        post = mocker.patch("webhooks.transport.post", return_value=MagicMock(status_code=200))

        first = send_webhook(URL, "order.created", {}, "evt_abc123")
        second = send_webhook(URL, "order.created", {}, "evt_abc123")

        assert post.call_count == 1
        key = f"webhook:evt_abc123:{URL}"
        assert first == {"status": "sent", "http_status": 200, "idempotency_key": key}
        assert second == {"status": "already_sent", "idempotency_key": key}

    @pytest.mark.parametrize("status", [200, 201, 202, 204])
    def test_any_2xx_counts_as_delivered(self, mocker, status):
        mocker.patch("webhooks.transport.post", return_value=Response(status))
        assert send_webhook(URL, "order.created", {}, "evt_1")["http_status"] == status

    def test_another_event_and_another_endpoint_are_other_deliveries(self, mocker):
        post = mocker.patch("webhooks.transport.post", return_value=Response(200))
        send_webhook(URL, "order.created", {}, "evt_1")
        send_webhook(URL, "order.created", {}, "evt_2")
        send_webhook(f"{URL}/2", "order.created", {}, "evt_1")
        assert post.call_count == 3

    @pytest.mark.described("a status that is no success is a `WebhookDeliveryError`")
    @pytest.mark.parametrize("status", [301, 302, 400, 404, 500, 503])
    def test_every_other_status_is_an_error_and_the_next_try_posts_again(self, mocker, status):
        post = mocker.patch("webhooks.transport.post", return_value=Response(status, text="no such luck"))
        with pytest.raises(WebhookDeliveryError, match=f"HTTP {status}: no such luck") as caught:
            send_webhook(URL, "order.created", {}, "evt_1")
        assert caught.value.status == status
        post.return_value = Response(200)

        assert send_webhook(URL, "order.created", {}, "evt_1")["status"] == "sent"
        delivery = Delivery.objects.get()
        assert (delivery.attempts, delivery.http_status, delivery.last_error) == (2, 200, "")

    def test_410_says_that_the_endpoint_is_gone(self, mocker):
        mocker.patch("webhooks.transport.post", return_value=Response(410))
        with pytest.raises(EndpointGone):
            send_webhook(URL, "order.created", {}, "evt_1")

    @pytest.mark.parametrize(("header", "seconds"), [("17", 17), ("999999", 3600), ("soon", 60), (None, 60)])
    def test_429_carries_the_wait_that_it_asks_for_up_to_an_hour(self, mocker, header, seconds):
        headers = {"Retry-After": header} if header else {}
        mocker.patch("webhooks.transport.post", return_value=Response(429, headers))
        with pytest.raises(WebhookDeliveryError) as caught:
            send_webhook(URL, "order.created", {}, "evt_1")
        assert caught.value.retry_after == seconds

    @pytest.mark.parametrize("error", [ConnectionResetError("reset"), TimeoutError("timed out")])
    def test_a_lost_connection_is_a_delivery_error_and_releases_the_claim(self, mocker, error):
        mocker.patch("webhooks.transport.post", side_effect=error)
        with pytest.raises(EndpointUnreachable, match=str(error)):
            send_webhook(URL, "order.created", {}, "evt_1")
        delivery = Delivery.objects.get()
        assert delivery.lease_until is None
        assert str(error) in delivery.last_error

    def test_a_killed_senders_claim_lasts_until_its_lease_ends(self, mocker):
        post = mocker.patch("webhooks.transport.post", return_value=Response(200))
        Delivery.claim(event_id="evt_1", endpoint=URL, event_type="order.created")  # and then: kill -9

        with pytest.raises(DeliveryInFlight) as caught:
            send_webhook(URL, "order.created", {}, "evt_1")
        assert 0 < caught.value.retry_after <= DELIVERY_LEASE.total_seconds()

        Delivery.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        assert send_webhook(URL, "order.created", {}, "evt_1")["status"] == "sent"
        assert post.call_count == 1

    def test_a_sender_frozen_past_its_lease_does_not_release_its_successors_claim(self):
        frozen = Delivery.claim(event_id="evt_1", endpoint=URL, event_type="order.created")
        Delivery.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        successor = Delivery.claim(event_id="evt_1", endpoint=URL, event_type="order.created")

        frozen.release(error="woke up", http_status=None)

        assert Delivery.objects.get().lease_token == successor.lease_token

    def test_a_2xx_that_comes_late_still_counts(self):
        late = Delivery.claim(event_id="evt_1", endpoint=URL, event_type="order.created")
        Delivery.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        Delivery.claim(event_id="evt_1", endpoint=URL, event_type="order.created")

        late.mark_sent(http_status=200)

        assert Delivery.objects.get().status == "sent"

    @pytest.mark.parametrize("event_id", ["", "evt.1", "evt 1", "evt\r\nX-Admin: 1", "é", "x" * 256])
    def test_an_event_id_unfit_for_a_header_is_refused(self, event_id):
        """Before anything is stored."""
        with pytest.raises(ValueError, match="event_id"):
            send_webhook(URL, "order.created", {}, event_id)
        assert not Delivery.objects.exists()

    @pytest.mark.parametrize("event_type", ["e" * 101, "e\0", "e\r\nX-Admin: 1", "\ud800"])
    def test_an_event_type_that_cannot_be_stored_is_refused_before_anything_is(self, event_type):
        with pytest.raises(ValueError, match="event_type"):
            send_webhook(URL, event_type, {}, "evt_1")
        assert not Delivery.objects.exists()

    @pytest.mark.parametrize(
        "payload", [{1}, {"at": timezone.now()}, b"x", {(1, 2): 3}, float("nan"), nested(2_000)], ids=type
    )
    def test_a_payload_that_is_no_json_is_refused_before_anything_is_stored(self, payload):
        with pytest.raises(ValueError):
            send_webhook(URL, "order.created", payload, "evt_1")
        assert not Delivery.objects.exists()

    @pytest.mark.parametrize("secret", ["whsec_", "whsec_!!!", "whsec_A", "whsec_é"])
    def test_a_secret_that_signs_nothing_is_refused_before_anything_is_stored(self, secret):
        with pytest.raises(ValueError, match=r"^secret must be whsec_ and base64$"):
            send_webhook(URL, "order.created", {}, "evt_1", secret=secret)
        assert not Delivery.objects.exists()

    @pytest.mark.parametrize("url", ["ftp://example.com", "https://a..b/", "https://.example.com/"])
    def test_an_address_that_we_do_not_call_is_refused(self, url):
        """Before anything is stored."""
        with pytest.raises(EndpointRefused, match=r"scheme|not a host name"):
            send_webhook(url, "order.created", {}, "evt_1")
        assert not Delivery.objects.exists()

    def test_the_database_refuses_a_second_row_of_an_event(self):
        """And a lease on what was sent."""
        Delivery.objects.create(event_id="evt_1", endpoint=URL, event_type="order.created")
        with pytest.raises(IntegrityError), transaction.atomic():
            Delivery.objects.create(event_id="evt_1", endpoint=URL, event_type="order.created")
        with pytest.raises(IntegrityError), transaction.atomic():
            Delivery.objects.update(status="sent")


@pytest.mark.django_db(transaction=True)
def test_an_accepted_event_is_posted_once_despite_a_database_restart(mocker):
    """The database restarts before the delivery is marked as sent."""

    def taken(*args: object, **kwargs: object) -> Response:
        lose_connection()
        return Response(200)

    post = mocker.patch("webhooks.transport.post", side_effect=taken)
    assert send_webhook(URL, "order.created", {}, "evt_1")["status"] == "sent"
    assert Delivery.objects.get().status == "sent"
    assert send_webhook(URL, "order.created", {}, "evt_1")["status"] == "already_sent"
    assert post.call_count == 1


@pytest.mark.django_db(transaction=True)
class TestAgainstARealReceiver:
    def test_a_signed_delivery_is_verified_by_the_receiver(self, sandbox: RunningSandbox, hook: str):
        secret = new_secret()
        sandbox.register_merchant(7, secret)

        send_webhook(hook, "order.completed", {"order_id": 42}, "evt_1", secret=secret)

        (received,) = sandbox.ledger("webhooks")
        assert received["verified"]
        assert received["webhook_id"] == "evt_1"
        assert received["payload"] == {"id": "evt_1", "event": "order.completed", "data": {"order_id": 42}}

    def test_a_wrong_secret_is_refused_by_the_receiver(self, sandbox: RunningSandbox, hook: str):
        sandbox.register_merchant(7, new_secret())
        with pytest.raises(WebhookDeliveryError, match="401"):
            send_webhook(hook, "order.completed", {}, "evt_1", secret=new_secret())

    def test_five_senders_at_once_post_once(self, sandbox: RunningSandbox, hook: str):
        sandbox.faults(merchants={"latency_ms": 300})  # so that they really overlap
        barrier, outcomes = threading.Barrier(5), []

        def send() -> None:
            try:
                barrier.wait()
                outcomes.append(send_webhook(hook, "order.completed", {}, "evt_1")["status"])
            except DeliveryInFlight:
                outcomes.append("in flight")
            finally:
                connection.close()

        threads = [threading.Thread(target=send) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sorted(outcomes) == ["in flight"] * 4 + ["sent"]
        assert sandbox.summary("webhooks")["deliveries"] == 1

    def test_claims_of_a_delivery_that_was_staged_before_take_turns(self):
        staged = Delivery.objects.create(event_id="evt_1", endpoint=URL, event_type="order.completed")
        outcomes: list[str] = []

        def claim() -> None:
            try:
                Delivery.claim(event_id="evt_1", endpoint=URL, event_type="order.completed")
                outcomes.append("claimed")
            except DeliveryInFlight:
                outcomes.append("in flight")
            finally:
                connection.close()

        threads = [threading.Thread(target=claim) for _ in range(3)]
        with transaction.atomic():
            Delivery.objects.select_for_update().get(pk=staged.pk)
            for thread in threads:
                thread.start()
            wait_until_blocked(3)  # all three have come as far as they can
        for thread in threads:
            thread.join()

        assert sorted(outcomes) == ["claimed", "in flight", "in flight"]

    def test_a_lost_reply_repeats_the_event_under_the_same_id(self, sandbox: RunningSandbox, hook: str):
        """The reply is lost after the receiver has taken the event."""
        sandbox.faults(merchants={"drop_reply_rate": 1})
        with pytest.raises(EndpointUnreachable):
            send_webhook(hook, "order.completed", {}, "evt_1")
        assert sandbox.bitten("merchants", "drop_reply_rate") == 1
        sandbox.faults()

        assert send_webhook(hook, "order.completed", {}, "evt_1")["status"] == "sent"

        # The window that is left: two copies, one id. The receiver's ledger shows one event.
        (received,) = sandbox.ledger("webhooks")
        assert received["deliveries"] == 2

    def test_a_claim_cannot_be_taken_inside_a_transaction(self, hook: str):
        with transaction.atomic(), pytest.raises(RuntimeError, match="durable"):
            send_webhook(hook, "order.completed", {}, "evt_1")
