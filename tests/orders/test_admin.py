"""The operator's pages: they open, and they change orders only through the services."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_mock import MockerFixture

from orders.models import ApiKey, Customer, ImportFile, Order, OrderTransition, Product, Report, SyncErrorLog
from outbox.testing import drain, staged
from tests.orders.conftest import Caller, place, units

HEADING = "customer_id,currency,payment_method,items,receipt_email\n"


@pytest.fixture
def operator(shop: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("operator", "operator@example.com", "pw"))
    return client


@pytest.mark.parametrize(
    "model", ["order", "product", "customer", "apikey", "importfile", "report", "syncerrorlog", "dailytotals"]
)
def test_list_opens(operator: Client, model: str) -> None:
    SyncErrorLog.objects.create(entity_type="order", entity_id=1, error="no")
    place()
    assert operator.get(reverse(f"admin:orders_{model}_changelist")).status_code == 200


def test_order_shows_its_lines_and_its_story_and_cannot_be_edited(operator: Client) -> None:
    order = place()
    page = operator.get(reverse("admin:orders_order_change", args=[order.pk])).content.decode()
    assert "WIDGET" in page
    assert "pending" in page
    assert 'name="_save"' not in page
    assert operator.get(reverse("admin:orders_order_add")).status_code == 403


def test_action_cancels_by_the_service(operator: Client) -> None:
    before = units()
    order = place()
    answer = operator.post(
        reverse("admin:orders_order_changelist"),
        {"action": "cancel_selected", "_selected_action": [order.pk]},
        follow=True,
    )
    assert "1 orders are cancelled" in answer.content.decode()
    assert Order.objects.get(pk=order.pk).status == "cancelled"
    assert units() == before
    assert OrderTransition.objects.latest("id").note == "cancelled by operator in the admin"


def test_viewer_is_not_offered_to_cancel(shop: None) -> None:
    viewer = User.objects.create_user("viewer", is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_order"))
    client = Client()
    client.force_login(viewer)
    order = place()
    url = reverse("admin:orders_order_changelist")
    assert "cancel_selected" not in client.get(url).content.decode()
    client.post(url, {"action": "cancel_selected", "_selected_action": [order.pk]})
    assert Order.objects.get(pk=order.pk).status == "pending"


def test_new_key_is_shown_once_and_works(operator: Client) -> None:
    answer = operator.post(
        reverse("admin:orders_apikey_add"), {"name": "shop", "customer": "", "is_active": "on"}
    )
    raw = answer.content.decode().split('<code id="secret">')[1].split("</code>")[0]
    assert "no-store" in answer["Cache-Control"]
    # Neither a cookie, which anybody at the browser can read, nor the session, which the database keeps.
    assert raw not in str(answer.cookies)
    assert "messages" not in operator.cookies
    assert raw not in str(dict(operator.session))
    assert Caller(raw).get().status_code == 200
    key = ApiKey.objects.get()
    again = operator.get(reverse("admin:orders_apikey_change", args=[key.pk])).content.decode()
    assert raw not in again
    assert key.key_hash not in again


def test_editing_a_key_keeps_it(operator: Client) -> None:
    key, raw = ApiKey.issue("shop")
    operator.post(
        reverse("admin:orders_apikey_change", args=[key.pk]), {"name": "renamed", "is_active": "on"}
    )
    key.refresh_from_db()
    assert key.name == "renamed"
    assert Caller(raw).get().status_code == 200


def test_a_stale_form_cannot_overwrite_the_units_on_sale(operator: Client) -> None:
    product = Product.objects.get(sku="WIDGET")
    url = reverse("admin:orders_product_change", args=[product.pk])
    form = operator.get(url).context["adminform"].form
    assert "stock" not in form.fields
    assert "reserved" not in form.fields


@pytest.mark.promise(
    "P5",
    "a row of an import is not a valid order",
    "rejected with its line and its reason, on the import's page",
    celery="nothing: it is no task",
)
def test_upload_is_imported_and_its_progress_is_shown(operator: Client, mocker: MockerFixture) -> None:
    text = HEADING + "1,usd,pm_card_visa,WIDGET:1,\n2,usd,pm_card_visa,NOTHING:1,\n"
    assert upload(operator, text.encode()).status_code == 302
    file = ImportFile.objects.get()
    (message,) = staged("orders.tasks.process_large_file")
    assert message.args == [file.pk]
    mocker.patch("orders.services.placing.announce")
    drain()
    page = operator.get(reverse("admin:orders_importfile_changelist")).content.decode()
    assert "2 staged, 1 imported, 1 rejected, 0 waiting" in page
    page = operator.get(reverse("admin:orders_importfile_change", args=[file.pk])).content.decode()
    assert "line 3: items[0].sku: There is no product NOTHING." in page


@pytest.mark.promise(
    "P3", "a file of orders is uploaded twice", "the second is refused, with the number of the first"
)
def test_file_that_was_uploaded_before_is_refused(operator: Client) -> None:
    content = (HEADING + "1,usd,pm_card_visa,WIDGET:1,\n").encode()
    upload(operator, content)
    file = ImportFile.objects.get()
    answer = upload(operator, content)
    assert f"was uploaded before, as import {file.pk}" in answer.content.decode()
    assert ImportFile.objects.count() == 1
    # What was rejected as a whole has ordered nothing.
    ImportFile.objects.update(status="rejected")
    assert upload(operator, content).status_code == 302


def test_file_that_is_uploaded_twice_at_once_is_taken_once(busy_shop: None) -> None:
    root = User.objects.create_superuser("root")
    content = (HEADING + "1,usd,pm_card_visa,WIDGET:1,\n").encode()
    together = threading.Barrier(4)

    def click(_: int) -> int:
        browser = Client()
        try:
            browser.force_login(root)
            together.wait(10)
            status: int = upload(browser, content).status_code
            return status
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(click, range(4))) == [200, 200, 200, 302]
    assert ImportFile.objects.count() == 1
    assert len(staged("orders.tasks.process_large_file")) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"\xff\xfe", "not UTF-8"), (b"a,b\n\x00", "NUL characters"), (b"", "empty")],
)
def test_upload_that_is_no_text_is_refused(operator: Client, content: bytes, reason: str) -> None:
    answer = upload(operator, content)
    assert answer.status_code == 200
    assert reason in answer.content.decode()
    assert not ImportFile.objects.exists()


def test_upload_over_the_limit_is_refused(operator: Client, mocker: MockerFixture) -> None:
    mocker.patch("orders.admin.MAX_UPLOAD_BYTES", 10)
    assert "the limit is 10" in upload(operator, HEADING.encode()).content.decode()
    assert not ImportFile.objects.exists()


def test_report_that_is_asked_for_is_enqueued(operator: Client) -> None:
    today = timezone.now().date().isoformat()
    operator.post(reverse("admin:orders_report_add"), {"first_day": today, "last_day": today})
    (message,) = staged("orders.tasks.generate_report")
    assert message.args == [Report.objects.get().pk]


def test_report_that_is_asked_for_again_while_it_waits_is_made_once(operator: Client) -> None:
    today = timezone.now().date().isoformat()
    operator.post(reverse("admin:orders_report_add"), {"first_day": today, "last_day": today})
    page = reverse("admin:orders_report_change", args=[Report.objects.get().pk])
    answer = operator.post(page, follow=True)
    assert "is already being made" in answer.content.decode()
    assert len(staged("orders.tasks.generate_report")) == 1
    drain()
    assert Report.objects.get().status == Report.Status.READY
    operator.post(page)
    assert len(staged("orders.tasks.generate_report")) == 1


def test_customer_can_be_added_after_the_demo_data(operator: Client) -> None:
    operator.post(reverse("admin:orders_customer_add"), {"name": "Ada", "email": "ada@example.com"})
    assert Customer.objects.get(name="Ada").pk > 20


def upload(client: Client, content: bytes) -> Any:
    return client.post(
        reverse("admin:orders_importfile_add"),
        {"upload": SimpleUploadedFile("orders.csv", content, "text/csv")},
    )
