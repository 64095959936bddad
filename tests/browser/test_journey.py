"""The journey of an order in a browser: a failed attempt is seen, each row is one click away, and so is the way back."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect
from pytest_mock import MockerFixture

from notifications.errors import MailNotSent, MailRefused
from orders.models import Order
from orders.seed import seed_demo
from outbox.testing import drain
from tests.browser.conftest import serious
from tests.orders.conftest import place, quiet
from webhooks.models import Delivery, Subscription

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def order(page: Page, mocker: MockerFixture) -> Order:
    """Completed, with a webhook that was delivered and a receipt that failed twice and is a dead letter."""
    quiet(mocker)
    mocker.patch("payments.gateway.PaymentGateway.charge", return_value=mocker.Mock(id="txn_123"))
    mocker.patch("webhooks.transport.post", return_value=mocker.Mock(status_code=200))
    mocker.patch(
        "notifications.services.EmailService.send_receipt",
        side_effect=[MailNotSent("the mail server is down"), MailRefused("no such mailbox")],
    )
    seed_demo()
    Subscription.objects.create(customer_id=1, url=f"https://shop.example/{'a-long-path' * 8}")
    order = place()
    drain()
    return order


def test_it_shows_a_failed_attempt_and_links_both_ways(page: Page, order: Order) -> None:
    page.goto("/admin/orders/order/?trouble=dead")
    page.get_by_role("link", name=f"order {order.pk}").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Order {order.pk}")
    expect(page.get_by_text("1 dead message")).to_be_visible()
    attempt = page.get_by_role("listitem").filter(has_text="send_receipt failed").first
    expect(attempt).to_contain_text("the mail server is down")
    attempt.get_by_role("link", name="its message").click()
    message = page.locator("li:target")
    expect(message).to_contain_text("send_receipt(")
    message.get_by_role("link", name="in the admin").click()
    expect(page.locator("#content")).to_contain_text("no such mailbox")
    page.get_by_role("link", name=f"order-{order.pk}").click()
    page.get_by_role("link", name="in the dead letters").first.click()
    expect(page.locator("#content")).to_contain_text("no such mailbox")
    page.get_by_role("link", name=f"order_id={order.pk}").last.click()
    delivery = Delivery.objects.get()
    sent = page.get_by_role("listitem").filter(has_text=f"{delivery.endpoint}: sent")
    sent.get_by_role("link", name="in the admin").click()
    expect(page.locator("#content")).to_contain_text(delivery.event_id)
    page.get_by_role("link", name=f"order {order.pk}").click()
    expect(page).to_have_title(f"Order {order.pk}: its journey")


def test_it_fits_phone_and_desk_in_light_and_dark_and_is_accessible(page: Page, order: Order) -> None:
    """axe finds nothing serious."""
    for scheme, width in (("light", 390), ("dark", 1280)):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.set_viewport_size({"width": width, "height": 800})
        page.goto(f"/orders/{order.pk}/")
        # By keyboard: what the webhook carried is closed at first.
        page.get_by_text("Payload").first.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_text('"total_cents"').first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert serious(page) == []
