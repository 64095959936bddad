"""The control room in a browser: live, honest about old figures, and usable by everybody."""

from __future__ import annotations

import time
import uuid
from datetime import timedelta

import pytest
from django.db.models import F
from playwright.sync_api import Page, Route, expect

from monitoring import samples
from monitoring.models import Sample
from orders.models import Order
from orders.seed import seed_demo
from outbox.models import OutboxMessage, Worker
from tests.browser.conftest import serious
from tests.orders.conftest import place

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

#: The page polls every five seconds; its clock is moved.
A_POLL_MS = 5_500
PATIENCE_MS = 15_000
BROKEN = "Broken: Every open order has a message that will run, or a dead letter"


def some_figures() -> None:
    now = int(time.time()) // samples.EVERY_S * samples.EVERY_S
    for number in range(60):
        figures = {
            "messages_in_total": number * 30, "messages_done_total": number * 28, "orders_a_minute": number, "waiting": number,
            "pending": 1, "scheduled": 2, "latency_p50_s": 0.1, "latency_p95_s": 0.2, "latency_p99_s": 3, "dead_letters": 1,
            "dead_letters_in_a_minute": 1, "dead_letters_out_a_minute": 0,
        }  # fmt: skip
        Sample.objects.create(tick=now - number * samples.EVERY_S, figures=figures)


def some_workers() -> None:
    for queue in ("critical", "high", "default", "low"):
        Worker.objects.create(
            incarnation=uuid.uuid4(),
            hostname="a-rather-long-host-name.shop.example",
            pid=12345,
            received={queue: 0},
        )


def test_it_changes_without_a_reload_and_not_while_its_tab_is_hidden(page: Page) -> None:
    some_figures()
    page.clock.install()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto("/")
    expect(page.get_by_role("status")).to_have_text("All is well")
    expect(page.locator("#charts canvas")).to_have_count(5, timeout=PATIENCE_MS)
    page.evaluate("window.loadedOnce = true")

    seed_demo()
    place()
    Order.objects.update(created_at=F("created_at") - timedelta(seconds=90))
    OutboxMessage.objects.all().delete()
    page.clock.fast_forward(A_POLL_MS)
    expect(page.get_by_role("status")).to_have_text("1 broken invariant", timeout=PATIENCE_MS)
    expect(page.get_by_text(BROKEN)).to_be_visible()
    assert page.evaluate("window.loadedOnce")

    page.evaluate(HIDE, True)
    page.wait_for_load_state("networkidle")
    asked.clear()
    Order.objects.all().delete()
    page.clock.fast_forward(10 * A_POLL_MS)
    page.wait_for_timeout(200)  # a poll would have been sent
    assert asked == []
    expect(page.get_by_role("status")).to_have_text("1 broken invariant")
    page.evaluate(HIDE, False)
    expect(page.get_by_role("status")).to_have_text("All is well", timeout=PATIENCE_MS)


#: There is no other way to hide the only tab of a browser without a window.
HIDE = """hidden => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_it_says_that_its_figures_are_old_and_why(page: Page) -> None:
    page.clock.install()
    page.goto("/")
    expect(page.locator("#freshness")).to_contain_text("Figures of", timeout=PATIENCE_MS)

    def fail(route: Route) -> None:
        route.fulfill(status=500)

    page.route("**/state.json", fail)
    page.clock.fast_forward(A_POLL_MS)
    expect(page.locator("#freshness")).to_contain_text("the server answered 500", timeout=PATIENCE_MS)
    expect(page.get_by_role("status")).to_have_text("Unknown: the server answered 500")
    page.unroute("**/state.json")
    page.clock.fast_forward(A_POLL_MS)
    expect(page.get_by_role("status")).to_have_text("All is well", timeout=PATIENCE_MS)
    page.context.clear_cookies()
    page.clock.fast_forward(A_POLL_MS)
    expect(page.get_by_role("status")).to_contain_text("you are logged out", timeout=PATIENCE_MS)


def test_it_fits_phone_and_desk_in_light_and_dark_and_is_accessible(page: Page) -> None:
    """axe finds nothing serious."""
    some_figures()
    some_workers()
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto("/")
    expect(page.locator("#charts canvas")).to_have_count(5, timeout=PATIENCE_MS)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert serious(page) == []
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 1280, "height": 800})
    page.reload()
    expect(page.locator("#charts canvas")).to_have_count(5, timeout=PATIENCE_MS)
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert serious(page) == []


def test_the_numbers_of_a_chart_can_be_opened_by_keyboard(page: Page) -> None:
    some_figures()
    page.goto("/")
    page.get_by_text("Numbers of orders").focus()
    page.keyboard.press("Enter")
    rows = page.get_by_role("region", name="Numbers of orders").get_by_role("row")
    expect(rows).to_have_count(61)
    expect(rows.nth(0)).to_have_text("Timeplaced")
    page.get_by_label("1 h").focus()
    page.keyboard.press("Space")
    expect(page.get_by_role("img", name="Orders, a minute, over 1 h")).to_be_visible()
