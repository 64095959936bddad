"""The journey of an order for staff: all of it on one page, for those who may see it, and linked both ways."""

from __future__ import annotations

import re
import uuid
from unittest.mock import MagicMock

import pytest
from django.contrib.auth.models import Permission, User
from django.db.models import F
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_mock import MockerFixture

from dlq.models import DeadLetter
from notifications.errors import MailNotSent, MailRefused
from notifications.models import EmailLog
from orders.journey.causes import DEEPEST, Node, tree_of
from orders.models import Order, SyncErrorLog
from orders.services import cancel_order
from outbox import pausing
from outbox.models import OutboxMessage
from outbox.testing import drain
from payments.models import Dispute, Refund
from tests.orders.conftest import Caller, place, quiet
from webhooks.models import Delivery, Event, Subscription

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator(shop: None) -> Client:
    user = User.objects.create_user("olga", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_journey"))
    client = Client()
    client.force_login(user)
    return client


def page_of(client: Client, order: Order) -> str:
    answer = client.get(f"/orders/{order.pk}/")
    assert answer.status_code == 200
    return answer.content.decode()


@pytest.mark.parametrize(
    ("is_staff", "missing"), [(False, "staff status"), (True, "the permission orders.view_journey")]
)
def test_it_is_for_staff_with_the_permission_alone(shop: None, is_staff: bool, missing: str) -> None:
    path = f"/orders/{place().pk}/"
    client = Client()
    assert client.get(path)["Location"].startswith("/admin/login/?next=/")
    user = User.objects.create_user("eve", is_staff=is_staff)
    user.user_permissions.add(Permission.objects.get(codename="view_order"))
    client.force_login(user)
    answer = client.get(path)
    assert answer.status_code == 403
    assert missing in answer.content.decode()


def test_it_is_only_read_and_never_kept(operator: Client) -> None:
    path = f"/orders/{place().pk}/"
    assert "no-store" in operator.get(path)["Cache-Control"]
    assert operator.post(path)["Allow"] == "GET, HEAD"
    assert [operator.get(f"/orders/{each}/").status_code for each in ("999999", "9" * 30)] == [404, 404]


def test_an_order_without_any_message_has_a_page(operator: Client, pending_order: Order) -> None:
    page = page_of(operator, pending_order)
    assert "Nothing is dead or late" in page
    assert "It has no messages." in page


@pytest.fixture
def eventful(shop: None, charge: MagicMock, mocker: MockerFixture) -> Order:
    """An order whose receipt failed once and then for good, and of which everything else went well."""
    quiet(mocker)
    Subscription.objects.create(customer_id=1, url="https://shop.example/hook")
    mocker.patch("webhooks.transport.post", return_value=MagicMock(status_code=200))
    mocker.patch(
        "notifications.services.EmailService.send_receipt",
        side_effect=[MailNotSent("first: token=hunter2"), MailRefused("second: no such mailbox")],
    )
    order = place(receipt_email="ada@example.com")
    drain()
    OutboxMessage.objects.filter(task="orders.tasks.process_order").update(worker="here:17")
    return Order.objects.get(pk=order.pk)


def test_it_tells_everything_that_happened(operator: Client, eventful: Order) -> None:
    order = eventful
    now = timezone.now()
    EmailLog.objects.create(
        key=f"receipt-order-{order.pk}",
        message_id="<r>",
        template_name="receipt",
        to="ada@example.com",
        last_error="550",
    )
    SyncErrorLog.objects.create(entity_type="order", entity_id=order.pk, error="a name is missing")
    Dispute.objects.create(
        dispute_id="dp_1",
        order=order,
        amount_cents=2500,
        currency="usd",
        opened_at=now,
        told_at=now,
        reason="fraudulent",
    )
    cancel_order(order_id=order.pk, reason="the customer asked")
    Refund.objects.create(order=order, currency="usd", amount_cents=order.total_cents, status="pending")
    page = page_of(operator, order)
    for told in (
        "new → pending", "pending → processing", "processing → completed", "completed → cancelled", "the customer asked",
        f"process_order(order_id={order.pk})", "worker: here:17", "charged", "txn_123",
        "send_receipt failed", "first: ", "second: no such mailbox", "1 dead message",
        "refund requested", "pending", "dispute over 25.00 USD opened", "fraudulent", "INV-",
        "receipt to ada@example.com: open", "550", "goods taken from the stock", "a name is missing",
        "order.completed published", "&quot;total_cents&quot;", "order.completed to https://shop.example/hook: sent",
        "deliver is done", "publish_event(event=&#x27;order.completed&#x27;",
    ):  # fmt: skip
        assert told in page, told
    assert "hunter2" not in page
    times = re.findall(r'<time datetime="[^"]+">(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+)</time>', page)
    assert times == sorted(times)
    assert len(times) > 25


def test_it_links_to_each_row_and_each_row_links_back(operator: Client, eventful: Order) -> None:
    root = Client()
    root.force_login(User.objects.create_superuser("root"))
    page = page_of(operator, eventful)
    back = f'href="/orders/{eventful.pk}/"'
    delivery = Delivery.objects.get()
    rows = {
        "orders_order": eventful.pk,
        "outbox_outboxmessage": OutboxMessage.objects.filter(task="webhooks.tasks.deliver").get().pk,
        "dlq_deadletter": DeadLetter.objects.get().pk,
        "webhooks_delivery": delivery.pk,
    }
    for model, pk in rows.items():
        address = reverse(f"admin:{model}_change", args=[pk])
        assert f'href="{address}"' in page
        assert back in root.get(address).content.decode(), model
        listed = reverse(f"admin:{model}_changelist") + "?o=1"
        if model != "dlq_deadletter":  # whose list links to its own pages alone
            assert back in root.get(listed).content.decode(), listed
    for link in re.findall(r'href="(#[^"]+)"', page):
        assert f'id="{link[1:]}"' in page, link
    assert f'href="{reverse("admin:webhooks_event_change", args=[Event.objects.get().pk])}"' in page


def test_a_number_finds_all_dead_letters_of_its_order(operator: Client, eventful: Order) -> None:
    """Whatever their tasks were called with."""
    root = Client()
    root.force_login(User.objects.create_superuser("root"))
    DeadLetter.objects.update(about=["delivery_id=77777", "77777"])
    other = {"cause": "failed", "fingerprint": "f", "correlation_id": f"order-{eventful.pk}0"}
    DeadLetter.objects.create(message_id="other", **other)
    found = root.get(reverse("admin:dlq_deadletter_changelist"), {"q": str(eventful.pk)}).content.decode()
    assert "1 dead letter" in found
    wanted = DeadLetter.objects.exclude(message_id="other").get()
    assert reverse("admin:dlq_deadletter_change", args=[wanted.pk]) in found


def test_what_ran_and_is_open_for_long_is_late(
    operator: Client,
) -> None:
    """What waits for its time is not."""
    order = place()
    messages = OutboxMessage.objects.all()
    messages.update(status="scheduled", deliver_at=F("deliver_at") + timezone.timedelta(hours=1))
    messages.update(created_at=F("created_at") - timezone.timedelta(minutes=11))
    page = page_of(operator, order)
    assert "Nothing is dead or late" in page
    assert "process_order runs next" in page
    messages.filter(task="orders.tasks.process_order").update(generation=2)
    assert "1 late message<" in page_of(operator, order)


PROCESS = "orders.tasks.process_order"


def resumed_at(target: str) -> str:
    return f'href="/admin/outbox/operatoraction/add/?verb=resume&amp;target={target.replace(" ", "+")}"'


def test_what_waits_for_a_resume_says_why_and_links_to_it(operator: Client, api: Caller) -> None:
    """And shows no time that does not come, here or to the customer."""
    order = place()
    OutboxMessage.objects.exclude(task=PROCESS).delete()
    pausing.pause_task(PROCESS, actor="alice", reason="the gateway moves, password=hunter2")
    not_yet_set_aside = page_of(operator, order)
    assert drain() == 0
    page = page_of(operator, order)
    for each in (not_yet_set_aside, page):
        assert f"process_order waits until task {PROCESS} is resumed" in each
        assert each.count("paused by alice: the gateway moves, password=") == 2
        assert each.count(resumed_at(f"task {PROCESS}")) == 2
        assert "1 paused message<" in each
        assert "status: paused" in each
        assert "hunter2" not in each
        assert "late" not in re.findall(r'<span class="bad">([^<]*)', each)
    seen_by_the_customer = api.get(f"/api/orders/{order.pk}/journey").content.decode()
    assert '"waiting"' in seen_by_the_customer
    assert "9000-" not in page + seen_by_the_customer
    pausing.resume_task(PROCESS)
    assert "process_order runs next: its task is resumed" in page_of(operator, order)


def test_a_paused_queue_explains_its_messages_and_those_behind_them(operator: Client) -> None:
    order, behind, published = place(), place(), place()
    messages = OutboxMessage.objects.filter(task=PROCESS)
    OutboxMessage.objects.exclude(task=PROCESS).delete()
    messages.filter(correlation_id=f"order-{order.pk}").update(queue="low", ordering_key="g")
    messages.filter(correlation_id=f"order-{behind.pk}").update(status="blocked", ordering_key="g")
    messages.filter(correlation_id=f"order-{published.pk}").update(
        queue="low", status="published", published_at=timezone.now()
    )
    pausing.pause("low", actor="alice", reason="it moves")
    for each in (order, behind):
        page = page_of(operator, each)
        assert "process_order waits until queue low is resumed" in page
        assert resumed_at("queue low") in page
        assert ("behind: the head of its group" in page) == (each == behind)
    assert "resumed" not in page_of(operator, published), "the broker has it"
    # A retry has its time, and then waits all the same.
    in_an_hour = timezone.now() + timezone.timedelta(hours=1)
    messages.filter(queue="low").exclude(status="published").update(status="scheduled", deliver_at=in_an_hour)
    assert "not before: " in page_of(operator, order)


def test_a_tree_of_causes_has_no_circle_and_limited_depth() -> None:
    """No deeper than a page can show."""
    ids = [uuid.uuid4() for _ in range(30)]
    # Each is caused by the one before it, and the first, as its producer claims, by the last.
    causes = [ids[-1], *ids[:-1]]
    messages = [
        OutboxMessage(message_id=message_id, task="t", headers={"causation_id": str(cause)})
        for message_id, cause in zip(ids, causes, strict=True)
    ]

    def depth(nodes: list[Node]) -> int:
        return 1 + max(map(depth, (node.children for node in nodes)), default=0) if nodes else 0

    (root,) = tree_of(messages)
    assert root.cause == str(ids[-1])
    assert depth([root]) == DEEPEST
    assert sum(1 for _ in walk([root])) == 30


def walk(nodes: list[Node]):  # type: ignore[no-untyped-def]
    for node in nodes:
        yield node
        yield from walk(node.children)
