"""An operator's night, in a browser, on what `make up` runs: an outage is seen, understood and mended, and nothing is sent twice.

What issue 13 wants to be seen, and by which test:

- the outage of the gateway is seen on the control room and fires its alert within 2 minutes; dead letters appear; the operator
  finds the group, reads the cause, heals the sandbox, replays with a canary, watches progress, and the dead letters resolve:
  `test_an_outage_is_seen_understood_and_mended`;
- 10 dead letters that arrive after the question are not sent: the same, and by statement in `tests/dlq/test_operations.py`,
  `tests/dlq/test_admin.py`;
- another user lacks the permission and sees why: the same, and for each verb in `tests/dlq/test_admin.py`,
  `tests/dlq/test_groups_page.py`, `tests/dlq/test_detail.py`, `tests/dlq/test_edit.py`, `tests/monitoring/test_control_room.py`;
- edit-and-replay keeps the original: the same, and `tests/dlq/test_edit.py`;
- a frozen relay fires: the same, and `tests/outbox/test_signs_of_life.py`;
- the journey shows a failed attempt and links both ways: the same, and `tests/browser/test_journey.py`;
- every alert rule is fired and resolved by its condition: `tests/monitoring/test_alert_rules.py`; its rules for Prometheus:
  `tests/monitoring/test_prometheus.py`;
- 100,000 dead letters in 500 groups, 10,000 replays: `tests/dlq/test_large.py`;
- axe-core finds nothing serious: here on the pages of the desk, and `tests/browser/test_control_room.py`,
  `tests/browser/test_journey.py`;
- a secret put into every input is on no page, log, metric, dead letter or export: `tests/proof/test_secrets.py`;
- screenshots by a command: `lab/screenshots.py`, `tests/docs/test_screenshots.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import requests
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from lab.shoppers import Shoppers
from tests.browser.conftest import serious
from tests.support.checkout import Up, copied, up
from tests.support.processes import await_

pytestmark = [pytest.mark.slow, pytest.mark.proof]

#: What the issue gives an outage to be seen.
TWO_MINUTES_MS = 120_000
PATIENCE_MS = 60_000
#: Around it is Django's own, with links that are told by their colour alone.
OURS = "#content"
GROUPS = "/admin/dlq/deadletter/groups/"
#: Chosen by the operator, and those that die after the question.
CHOSEN, LATE = 12, 10
NO_ORDER = 1_000_000_000
VIEWER = """
from django.contrib.auth.models import Permission, User
viewer = User.objects.create_user("viewer", password="only-looks-at-it", is_staff=True)
viewer.user_permissions.set(Permission.objects.filter(codename="view_deadletter"))
"""
WRONG = f"from orders.tasks import process_order; process_order.delay(order_id={NO_ORDER})"


@pytest.fixture(scope="module")
def shop() -> Iterator[Up]:
    """Delays of retries, and of the circuit's next probe, are a hundredth: else the last attempt is after half an hour."""
    with copied() as checkout, up(checkout, RETRY_SCALE="0.01") as running:
        yield running


@pytest.fixture
def operator(browser: Browser, shop: Up) -> Iterator[BrowserContext]:
    context = browser.new_context(base_url=shop.url, viewport={"width": 1280, "height": 800})
    context.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    yield context
    expect.set_options(timeout=None)
    context.close()


def log_in(page: Page, user: str, password: str) -> None:
    page.get_by_label("Username:").fill(user)
    page.get_by_label("Password:").fill(password)
    page.get_by_role("button", name="Log in").click()


def place(shop: Up, orders: int) -> list[int]:
    shoppers = Shoppers(shop.url, shop.api_key, orders, threads=2)
    shoppers.start()
    await_(lambda: shoppers.finished, "the orders are accepted", 60)
    shoppers.stop()
    assert shoppers.refused == []
    return sorted(shoppers.accepted)


def status(shop: Up, order: int) -> str:
    headers = {"Authorization": f"Bearer {shop.api_key}"}
    answer = requests.get(f"{shop.url}/api/orders/{order}", headers=headers, timeout=10)
    return str(answer.json()["status"])


def group(page: Page, problem: str, number: int, timeout_s: float = 100) -> Locator:
    """The row of this problem, once so many dead letters have it."""
    row = page.get_by_role("row").filter(has_text=problem)
    count = row.locator("[data-label=Open]")
    deadline = time.monotonic() + timeout_s
    while True:
        page.goto(GROUPS)
        if count.count() and count.inner_text() == str(number):
            return row
        assert time.monotonic() < deadline, page.locator("#content").inner_text()
        page.wait_for_timeout(500)


def press(page: Page, control: str, said: str) -> None:
    """A button of the lab, at the end of the control room."""
    page.goto("/")
    page.get_by_role("button", name=control, exact=True).click()
    expect(page.get_by_text(said)).to_be_visible()


@pytest.mark.promise(
    "P8",
    "the gateway is down, and an operator is woken",
    "the control room shows it within 2 minutes; its dead letters are found, understood, replayed with a canary and resolved",
)
def test_an_outage_is_seen_understood_and_mended(
    operator: BrowserContext, browser: Browser, shop: Up
) -> None:
    page = operator.new_page()
    page.goto("/")
    log_in(page, "admin", shop.admin_password)
    expect(page.locator("#verdict")).to_have_text("All is well")
    page.set_viewport_size({"width": 390, "height": 800})
    # With the fault dials, too, and the charts that follow the width.
    page.wait_for_function("document.documentElement.scrollWidth <= 390")
    page.set_viewport_size({"width": 1280, "height": 800})
    press(page, "Break the gateway", "The gateway fails every call.")
    chosen = place(shop, CHOSEN)

    # Without a reload: the page polls.
    alert = page.locator("#alerts").get_by_role("listitem").filter(has_text="circuit_open")
    expect(alert).to_contain_text("calls to payment-gateway", timeout=TWO_MINUTES_MS)
    expect(page.locator("#verdict")).to_contain_text("alert")
    answer = requests.get(f"{shop.url}/alerts.json", timeout=10).json()
    assert "circuit_open" in [each["name"] for each in answer["alerts"]]

    row = group(page, "orders.tasks.process_order", CHOSEN)
    assert serious(page, OURS) == []
    row.get_by_role("rowheader").get_by_role("link").click()
    page.locator("#result_list tbody").get_by_role("link").first.click()
    expect(page.locator(".field-shown_traceback")).to_contain_text("GatewayUnavailable")
    expect(page.locator(".field-call")).to_contain_text("order_id")
    assert serious(page, OURS) == []
    dead_letter = page.url.partition("?")[0]
    it_shows_a_failed_attempt_and_leads_back(page)
    assert page.url == dead_letter

    group(page, "orders.tasks.process_order", CHOSEN).get_by_role("button", name="Canary of 10").click()
    expect(page.locator("#content")).to_contain_text(f"Chosen: {CHOSEN}")
    expect(page.get_by_role("row").filter(has_text="circuit open: payment-gateway")).to_be_visible()
    assert serious(page, OURS) == []
    late = place(shop, LATE)
    other = operator.new_page()
    group(other, "orders.tasks.process_order", CHOSEN + LATE)
    press(other, "Heal", "All dials are at zero.")

    page.get_by_label("Canary").fill("3")
    page.get_by_label("Reason").fill("the gateway is back")
    page.get_by_role("button", name=f"Replay {CHOSEN}").click()
    progress = page.locator("#progress")
    expect(progress.get_by_role("progressbar")).to_be_visible()
    page.evaluate("window.loadedOnce = true")
    expect(progress).to_contain_text("done: everything was sent")
    expect(progress).to_contain_text(f"{CHOSEN} sent ({CHOSEN} succeeded), 0 refused, 0 not sent")
    assert page.evaluate("window.loadedOnce"), "the page was loaded again"
    assert serious(page, OURS) == []
    group(other, "orders.tasks.process_order", LATE)
    assert [status(shop, order) for order in chosen] == ["completed"] * CHOSEN
    assert "completed" not in {status(shop, order) for order in late}
    charged = {int(charge["order_id"]) for charge in shop.sandbox.ledger("charges")}
    assert charged == set(chosen)

    an_edited_copy_runs_and_the_original_stays(page, shop, late[0])
    press(page, "Freeze the relay", "Frozen: 1 relay.")
    who_may_only_look_is_told_what_is_lacking(browser, shop)
    page.bring_to_front()
    lost = page.locator("#alerts").get_by_role("listitem").filter(has_text="relay_lost")
    expect(lost).to_contain_text("No relay gives a sign of life", timeout=TWO_MINUTES_MS)
    page.get_by_role("button", name="Thaw the relay").click()
    expect(page.get_by_text("Thawed: 1 relay.")).to_be_visible()
    expect(page.locator("#alerts")).not_to_contain_text("Not read yet.")
    expect(lost).to_have_count(0)


def it_shows_a_failed_attempt_and_leads_back(page: Page) -> None:
    """From the dead letter that the page shows to the journey of its order, and back."""
    page.locator(".field-links").get_by_role("link").first.click()
    expect(page.get_by_text("1 dead message")).to_be_visible()
    attempt = page.get_by_role("listitem").filter(has_text="process_order failed").last
    expect(attempt).to_contain_text("GatewayUnavailable")
    attempt.get_by_role("link", name="its message").click()
    expect(page.locator("li:target")).to_contain_text("process_order(")
    page.get_by_role("link", name="in the dead letters").first.click()


def an_edited_copy_runs_and_the_original_stays(page: Page, shop: Up, order: int) -> None:
    shop.checkout.manage("shell", "-v", "0", "-c", WRONG)
    group(page, "DoesNotExist", 1).get_by_role("rowheader").get_by_role("link").click()
    page.locator("#result_list tbody").get_by_role("link").first.click()
    original = page.url
    page.get_by_role("link", name="Edit and replay").click()
    assert serious(page, OURS) == []
    page.get_by_label("order_id").fill(str(order))
    page.get_by_role("button", name="Send the edited copy").click()
    expect(page.locator("#progress")).to_contain_text("1 sent (1 succeeded)")
    assert status(shop, order) == "completed"
    page.goto(original)
    expect(page.locator(".field-badge")).to_contain_text("resolved")
    expect(page.locator(".field-call")).to_contain_text(f'"order_id": {NO_ORDER}')
    expect(page.locator(".field-lineage")).to_contain_text("edited as")


def who_may_only_look_is_told_what_is_lacking(browser: Browser, shop: Up) -> None:
    shop.checkout.manage("shell", "-v", "0", "-c", VIEWER)
    context = browser.new_context(base_url=shop.url)
    page = context.new_page()
    page.goto(GROUPS)
    log_in(page, "viewer", "only-looks-at-it")
    expect(page.locator("#content")).to_contain_text("You lack the permission “Can replay dead letters”")
    expect(page.get_by_role("row").filter(has_text="process_order")).to_be_visible()
    expect(page.get_by_role("button", name="Replay")).to_have_count(0)
    page.goto("/")
    expect(page.get_by_role("main")).to_contain_text("needs the permission monitoring.view_control_room")
    context.close()
