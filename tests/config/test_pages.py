"""What every address of the site has in common: which methods it takes, and what its pages may load."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from django.test import Client

from orders.seed import seed_demo
from tests.orders.conftest import place

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/docs", {"GET", "HEAD"}),
        ("/api/openapi.json", {"GET", "HEAD"}),
        ("/api/orders", {"GET", "HEAD", "POST"}),
        ("/api/orders/1", {"GET", "HEAD"}),
        ("/api/orders/1/journey", {"GET", "HEAD"}),
        ("/api/orders/1/cancel", {"POST"}),
        ("/webhooks/gateway", {"POST"}),
    ],
)
def test_every_other_method_is_a_405_problem_that_says_which_there_are(path: str, allowed: set[str]) -> None:
    # Checked like a browser's request: a 403 for lack of a token would hide the 405.
    client = Client(enforce_csrf_checks=True)
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE"} - allowed:
        answer = client.generic(method, path)
        assert (answer.status_code, set(answer["Allow"].split(", "))) == (405, allowed), method
        assert answer["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "TRACE"])
def test_where_nothing_is_every_method_is_a_404_problem(method: str) -> None:
    for path in ("/api/", "/api/nothing", "/webhooks/nothing"):
        answer = Client(enforce_csrf_checks=True).generic(method, path)
        assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json"), path


class Inline(HTMLParser):
    """Collects what a strict Content-Security-Policy keeps from running or from being applied."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        executes = given.get("type") in (None, "", "module", "text/javascript")
        if tag == "style" or (tag == "script" and executes and "src" not in given):
            self.found.append(self.get_starttag_text() or tag)
        for name, value in attrs:
            if (
                name == "style"
                or name.startswith("on")
                or (value or "").lstrip().lower().startswith("javascript:")
            ):
                self.found.append(f"{tag} {name}={value}")
            if name in ("src", "href") and tag != "a" and (value or "").startswith(("http", "//")):
                self.found.append(f"{tag} {name}={value}")


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/api/docs", "/admin/login/", "/admin/", "/admin/nothing/", "/admin/orders/apikey/add/"),
        *("/orders/{order}/", "/orders/999999/"),
        *("/admin/orders/order/", "/admin/orders/order/{order}/change/", "/admin/orders/product/WIDGET/"),
        *("/admin/dlq/deadletter/", "/admin/outbox/outboxmessage/", "/admin/webhooks/subscription/add/"),
        *("/admin/auth/user/", "/admin/password_change/", "/admin/orders/importfile/add/"),
        *("/admin/dlq/deadletter/add/", "/admin/outbox/outboxmessage/add/"),
    ],
)
def test_a_page_runs_under_a_policy_without_inline_scripts(path: str, admin_client: Client) -> None:
    seed_demo()
    answer = admin_client.get(path.format(order=place().pk), follow=True)
    policy = dict(each.strip().split(" ", 1) for each in answer["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert "unsafe" not in str(policy)
    assert "script-src" not in policy
    page = Inline()
    page.feed(answer.content.decode())
    assert page.found == []


def test_answers_of_the_api_and_refusals_have_the_policy_too() -> None:
    client = Client()
    for answer in (
        client.get("/api/orders"),
        client.get("/nothing"),
        client.get("/admin/", headers={"Host": "evil.example"}),
        client.post("/webhooks/gateway"),
    ):
        assert answer.status_code >= 300
        assert "frame-ancestors 'none'" in answer["Content-Security-Policy"]
