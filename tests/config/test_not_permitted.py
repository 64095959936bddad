"""A 403 of the admin names the permission that the user lacks."""

from __future__ import annotations

import html

import pytest
from django.contrib import admin
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.core.exceptions import PermissionDenied
from django.test import Client, RequestFactory
from django.urls import path, resolve, reverse

from config.not_permitted import not_permitted
from dlq.models import DeadLetter
from dlq.operations.models import Operation
from tests.dlq.test_record import die

pytestmark = pytest.mark.django_db

#: A site of Django's admin and nothing else.
urlpatterns = [path("admin/", admin.site.urls)]

VIEW = "You lack the permission “Can view dead letter” (dlq.view_deadletter)."


def client(*permissions: str) -> Client:
    user = User.objects.create_user(f"staff-{len(permissions)}", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def reason(answer: object) -> str:
    """The reason on the page, which is a 403 in the admin's look."""
    page = html.unescape(answer.content.decode())  # type: ignore[attr-defined]
    assert answer.status_code == 403  # type: ignore[attr-defined]
    assert 'id="content-main"' in page
    return page.partition('<p class="errornote">')[2].partition("</p>")[0]


@pytest.mark.parametrize("model", list(admin.site._registry), ids=lambda model: model._meta.label_lower)
def test_each_list_page_and_form_says_what_is_lacking(model: type) -> None:
    label, name = model._meta.app_label, model._meta.model_name  # type: ignore[attr-defined]
    stranger, codename = client(), f"{label}.view_{name}"
    if model is Operation:
        codename = "dlq.view_deadletter"
    said = reason(stranger.get(reverse(f"admin:{label}_{name}_changelist")))
    assert said.startswith("You lack the permission “Can view ")
    assert said.endswith(f"” ({codename}).")
    for page, does in (("add", "added"), ("delete", "deleted")):
        args = [] if page == "add" else ["1"]
        url = reverse(f"admin:{label}_{name}_{page}", args=args)
        said = reason(stranger.get(url))
        names = said.startswith("You lack the permission “Can ") and f"({label}.{page}_{name})" in said
        assert names or said.endswith(f" cannot be {does} here, by any user."), said


def test_every_page_of_the_desk_names_the_permission_to_view() -> None:
    pk = die().pk
    operation = Operation.objects.create(kind="export")
    stranger = client()
    for url in (
        reverse("admin:dlq_deadletter_changelist"),
        reverse("admin:dlq_deadletter_groups"),
        reverse("admin:dlq_operation_changelist"),
        reverse("admin:dlq_operation_change", args=[operation.pk]),
        *(
            reverse(f"admin:dlq_deadletter_{page}", args=[pk])
            for page in ("change", "edit", "bytes", "history")
        ),
    ):
        assert reason(stranger.get(url)) == VIEW, url
    act = reverse("admin:dlq_deadletter_act", args=[pk])
    assert reason(stranger.post(act, {"verb": "replay"})) == VIEW


def test_a_viewer_is_told_the_permission_of_each_button() -> None:
    dead_letter, viewer = die(), client("view_deadletter")
    replay, discard = "“Can replay dead letters” (dlq.replay_deadletter)", "(dlq.discard_deadletter)"
    groups = reverse("admin:dlq_deadletter_groups")
    act = reverse("admin:dlq_deadletter_act", args=[dead_letter.pk])
    operation = Operation.objects.create(kind="discard")
    page = reverse("admin:dlq_operation_change", args=[operation.pk])
    for button in ("replay", "canary", "note"):
        assert replay in reason(viewer.post(groups, {button: dead_letter.fingerprint}))
    assert discard in reason(viewer.post(groups, {"discard": dead_letter.fingerprint}))
    assert replay in reason(viewer.post(act, {"verb": "replay"}))
    assert discard in reason(viewer.post(page, {"verb": "cancel"}))
    assert "(dlq.edit_deadletter)" in reason(
        viewer.get(reverse("admin:dlq_deadletter_edit", args=[dead_letter.pk]))
    )
    assert "(dlq.view_raw_deadletter)" in reason(
        viewer.get(reverse("admin:dlq_deadletter_bytes", args=[dead_letter.pk]))
    )


def test_a_form_that_is_sent_names_the_permission_to_change() -> None:
    viewer = client("view_user")
    url = reverse("admin:auth_user_change", args=[User.objects.get().pk])
    assert viewer.get(url).status_code == 200
    assert reason(viewer.post(url, {})) == "You lack the permission “Can change user” (auth.change_user)."


def test_what_no_permission_allows_is_not_said_to_be_lacking(admin_client: Client) -> None:
    url = reverse("admin:dlq_deadletter_change", args=[die().pk])
    assert (
        reason(admin_client.post(url, {"state": "resolved"}))
        == "Dead letters cannot be changed here, by any user."
    )
    assert DeadLetter.objects.get().state == "open"


@pytest.mark.urls(__name__)
def test_the_desk_says_it_without_the_handler_of_the_site() -> None:
    assert reason(client().get("/admin/dlq/deadletter/groups/")) == VIEW


def test_a_reason_is_escaped() -> None:
    request = RequestFactory().get("/admin/auth/user/")
    request.user, request.resolver_match = AnonymousUser(), resolve("/admin/auth/user/")
    page = not_permitted(request, PermissionDenied("<script>")).render().content.decode()  # type: ignore[attr-defined]
    assert "&lt;script&gt;" in page
    assert "<script>" not in page.partition("content-main")[2]


def test_other_pages_answer_as_django_does() -> None:
    request = RequestFactory().get("/")
    request.resolver_match = resolve("/")
    answer = not_permitted(request, PermissionDenied("x"))
    assert (answer.status_code, b"403 Forbidden" in answer.content) == (403, True)
    page = reverse("admin:dlq_deadletter_changelist")
    assert Client().get(page)["Location"].startswith("/admin/login/")
