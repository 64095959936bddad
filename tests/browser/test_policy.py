"""Pages under the Content-Security-Policy, in a browser, which says on its console what the policy refused."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

import outbox
from dlq.models import DeadLetter
from orders.seed import seed_demo
from outbox.testing import drain
from tests.orders.conftest import place
from tests.support.tasks import permanently_wrong

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


def test_nothing_on_our_pages_is_refused_by_the_policy(page: Page) -> None:
    outbox.enqueue(permanently_wrong.s("a"), queue="low")
    drain()
    seed_demo()
    order = place()
    letter = DeadLetter.objects.get()
    for path in (
        "/admin/",
        "/admin/dlq/deadletter/",
        "/admin/dlq/deadletter/?state__exact=open",
        "/admin/outbox/outboxmessage/",
        f"/admin/orders/order/{order.pk}/change/",
    ):
        page.goto(path)
        expect(page.locator("#content")).to_be_visible()
    page.goto(f"/admin/dlq/deadletter/{letter.pk}/change/")
    expect(page.locator("pre.dlq-text").first).to_have_css("white-space-collapse", "preserve")
    expect(page.locator("b.dlq-open")).to_have_css("color", "rgb(180, 35, 24)")
    page.goto("/api/docs")
    expect(page.locator(".opblock").first).to_be_visible(timeout=15_000)
