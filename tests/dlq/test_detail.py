"""The page of one dead letter: what is done about it, what it is about, and every attempt's error. And the exports."""

from __future__ import annotations

import csv
import io
import json

import pytest
from django.test import Client
from django.urls import reverse

from dlq.models import DeadLetter, Operation
from tests.dlq.test_admin import client
from tests.dlq.test_record import die

pytestmark = pytest.mark.django_db
LIST = "admin:dlq_deadletter_changelist"


@pytest.fixture
def operator() -> Client:
    return client("view_deadletter", "replay_deadletter", "discard_deadletter", "export_deadletter")


def page_of(operator: Client, dead_letter: DeadLetter) -> str:
    return operator.get(reverse("admin:dlq_deadletter_change", args=[dead_letter.pk])).content.decode()


@pytest.mark.parametrize("verb", ["replay", "discard"])
def test_a_button_on_its_page_asks_about_this_dead_letter_alone(operator: Client, verb: str) -> None:
    dead_letter, _ = die("m-1"), die("m-2")
    assert f'name="verb" value="{verb}"' in page_of(operator, dead_letter)
    act = reverse("admin:dlq_deadletter_act", args=[dead_letter.pk])
    answer = operator.post(act, {"verb": verb}, follow=True).content.decode()
    assert f"{verb.capitalize()} 1" in answer
    operation = Operation.objects.get()
    assert list(operation.items.values_list("dead_letter", flat=True)) == [dead_letter.pk]


def test_who_may_only_look_sees_which_permissions_are_lacking() -> None:
    dead_letter = die()
    onlooker = client("view_deadletter")
    page = page_of(onlooker, dead_letter)
    for name in ("Can replay dead letters", "Can discard dead letters", "Can see and download messages"):
        assert f"You lack the permission “{name}" in page
    act = reverse("admin:dlq_deadletter_act", args=[dead_letter.pk])
    for verb in ("replay", "discard", "other"):
        assert onlooker.post(act, {"verb": verb}).status_code == 403
    assert onlooker.post(reverse(LIST), {"action": "export_csv", "_selected_action": [dead_letter.pk]})[
        "Content-Type"
    ].startswith("text/html")
    assert not Operation.objects.exists()


def test_every_attempts_error_is_on_the_page_with_secrets_masked(operator: Client) -> None:
    die(traceback="ValueError: the first", error="first token=hunter2")
    dead_letter = die(generation=2, traceback="KeyError: the second password=hunter2", error="second")
    page = page_of(operator, dead_letter)
    for expected in ("ValueError: the first", "KeyError: the second", "first token=", "second"):
        assert expected in page
    assert "hunter2" not in page


def test_it_links_to_order_message_cause_and_consequences(operator: Client) -> None:
    headers = {"correlation_id": "c-1", "causation_id": "cause"}
    dead_letter = die("m-1", args=[999], headers=headers)
    child = die("m-2", args=[1], headers={"correlation_id": "c-1", "causation_id": "m-1"})
    page = page_of(operator, dead_letter)
    for address in (
        "/orders/999/",
        "/admin/outbox/outboxmessage/?q=m-1",
        "/admin/outbox/outboxmessage/?q=cause",
        "/admin/outbox/outboxmessage/?q=c-1",
        reverse("admin:dlq_deadletter_change", args=[child.pk]),
    ):
        assert f'href="{address}"' in page


def test_a_search_for_a_number_matches_no_part_of_an_id(operator: Client) -> None:
    """It finds the dead letters whose arguments have that number."""
    die("m-999-x", args=[1])
    DeadLetter.objects.update(fingerprint="999", place="place999")
    wanted = die("m-2", args=[999])
    die("m-3", args=[9999])
    page = operator.get(f"{reverse(LIST)}?q=999").content.decode()
    assert "1 dead letter" in page
    assert reverse("admin:dlq_deadletter_change", args=[wanted.pk]) in page


def test_an_export_has_what_was_chosen_without_secrets_and_without_formulas(operator: Client) -> None:
    first = die("m-1", kwargs={"password": "hunter2"}, error="=cmd|' /C calc'!A0 password=hunter2")
    die("m-2")
    answers = {
        action: operator.post(reverse(LIST), {"action": action, "_selected_action": [first.pk]})
        for action in ("export_csv", "export_json_lines")
    }
    contents = {
        action: b"".join(answer.streaming_content).decode()  # type: ignore[attr-defined]
        for action, answer in answers.items()
    }
    assert all("hunter2" not in content for content in contents.values())
    (row,) = csv.DictReader(io.StringIO(contents["export_csv"]))
    assert (row["message_id"], row["error"][:6]) == ("m-1", "'=cmd|")
    (line,) = contents["export_json_lines"].splitlines()
    assert json.loads(line)["message_id"] == "m-1"
    assert "attachment" in answers["export_csv"]["Content-Disposition"]
    on_record = Operation.objects.order_by("pk").values_list(
        "kind", "state", "actor", "chosen_by", "selected"
    )
    assert set(on_record) == {("export", "done", "operator-4", "selected one by one", 1)}
    assert [each.history[0]["what"] for each in Operation.objects.order_by("pk")] == [
        "exported as CSV",
        "exported as JSON lines",
    ]
    for each in Operation.objects.all():
        page = reverse("admin:dlq_operation_change", args=[each.pk])
        assert "exported as" in operator.get(page).content.decode()
        assert operator.post(page, {"verb": "cancel"}).status_code == 403
