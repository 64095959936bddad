"""Every list of the admin: what its page offers is shown, and the rest is refused and never a 500."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from tests.dlq.test_record import die
from webhooks.models import Subscription

pytestmark = pytest.mark.django_db

every_list = pytest.mark.parametrize(
    "model", list(admin.site._registry), ids=lambda model: model._meta.label_lower
)
#: What no page offers: a NUL, and lookups of a column that PostgreSQL or Python cannot carry out.
NUL = ("=%00", "__exact=%00", "__isnull=%00", "__isempty=%00", "__contains=%00")
UNOFFERED = (*NUL, "__contains=x", "__regex=(", "__range=1", "__week=99999999999999999999")


@pytest.fixture
def staff() -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(User.objects.create_superuser("root", password="x"))
    return client


def address(model: type[Model]) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def filters(model: type[Model]) -> Iterator[str]:
    """What the list is filtered by: names of columns and of parameters."""
    for entry in admin.site._registry[model].list_filter:
        found = entry[0] if isinstance(entry, tuple) else entry
        yield found if isinstance(found, str) else str(getattr(found, "parameter_name", ""))


@every_list
def test_what_no_page_offers_is_refused(staff: Client, model: type[Model]) -> None:
    columns = {*filters(model), model._meta.fields[-1].name}
    queries = [f"{column}{asked}" for column in columns for asked in UNOFFERED]
    queries += ["q=%00", "p=%00", "e=%00", "%00=1", "unknown=%00"]
    answers = {query: staff.get(f"{address(model)}?{query}").status_code for query in queries}
    assert {query: status for query, status in answers.items() if status != 400} == {}


@every_list
def test_what_a_list_links_to_of_itself_is_answered(staff: Client, model: type[Model]) -> None:
    die("a", queue="low", task="t", exception=KeyError("x"))
    die("b")
    from_itself = {"Referer": f"http://testserver{address(model)}"}
    page = staff.get(address(model), headers=from_itself).content.decode()
    # One for each parameter: a list of messages has a link for each task.
    links = {link.partition("=")[0]: html.unescape(link) for link in re.findall(r'href="(\?[^"]*)"', page)}
    assert links or not list(filters(model))
    for link in links.values():
        assert staff.get(address(model) + link, headers=from_itself).status_code == 200, link


@pytest.mark.parametrize(
    "value", ["0", "-1", "9999", "99999999999999999999", "x", "0001-01-01T00:00:00%2B14:00"]
)
def test_a_date_that_there_is_not_is_no_500(staff: Client, value: str) -> None:
    die()
    for model, column in (("orders_order", "created_at"), ("dlq_deadletter", "failed_at")):
        december = f"{column}__year=9999&{column}__month=12&"
        for part in ("year", "month", "day", "gte"):
            for query in (f"{column}__{part}={value}", f"{december}{column}__{part}={value}"):
                answer = staff.get(f"{reverse(f'admin:{model}_changelist')}?{query}")
                assert answer.status_code in (200, 302, 400), query
                assert answer.status_code != 302 or answer["Location"].endswith("?e=1")


def test_the_pages_of_dead_letters_link_to_their_list(staff: Client) -> None:
    dead_letter = die()
    for page in (
        reverse("admin:dlq_deadletter_groups"),
        reverse("admin:dlq_deadletter_change", args=[dead_letter.pk]),
    ):
        link = f"{reverse('admin:dlq_deadletter_changelist')}?fingerprint={dead_letter.fingerprint}"
        assert link in staff.get(page).content.decode()
        assert "1 dead letter" in staff.get(link).content.decode()


def test_no_filter_of_a_list_tells_what_the_list_does_not_show() -> None:
    onlooker = User.objects.create_user("onlooker", is_staff=True)
    onlooker.user_permissions.set(Permission.objects.filter(codename="view_subscription"))
    client = Client()
    client.force_login(onlooker)
    assert client.get(address(Subscription)).status_code == 200
    assert client.get(f"{address(Subscription)}?secret__startswith=whsec_").status_code == 400


def test_a_nul_in_the_path_is_refused(staff: Client) -> None:
    assert staff.get("/admin/outbox/schedule/%00/change/").status_code == 400
