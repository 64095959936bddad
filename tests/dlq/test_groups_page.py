"""The landing page: one row a problem, and what is done about it in the row."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from dlq import groups, record, replay
from dlq.models import DeadLetter, GroupNote, Operation
from tests.dlq.test_admin import client
from tests.dlq.test_record import die, receive

pytestmark = pytest.mark.django_db
GROUPS, LIST = "admin:dlq_deadletter_groups", "admin:dlq_deadletter_changelist"


@pytest.fixture
def operator() -> Client:
    return client("view_deadletter", "replay_deadletter", "discard_deadletter")


def page_of(operator: Client, query: str = "") -> str:
    return operator.get(reverse(GROUPS) + query).content.decode()


def problems() -> None:
    for number in range(3):
        die(f"a-{number}", error=f"order {number} not found")
    die("b", exception=KeyError("x"), error="other", task="webhooks.tasks.deliver")


def test_who_asks_for_no_list_in_particular_lands_on_the_groups(operator: Client) -> None:
    bare = reverse(LIST)
    assert operator.get(bare)["Location"] == reverse(GROUPS)
    assert operator.get(bare, headers={"Referer": f"http://testserver{bare}?state=open"}).status_code == 200


def test_groups_count_problems_and_not_messages(operator: Client) -> None:
    problems()
    record.on_resolved("a-0")
    page = page_of(operator)
    assert page.count('<th scope="row">') == 2
    assert "ValueError: order 1 not found" in page or "ValueError: order 2 not found" in page
    assert "style=" not in page.partition('id="content-main"')[2].partition("</table>")[0]


def test_only_open_ones_are_shown_unless_those_under_replay_are_asked_for(operator: Client) -> None:
    receive("b", task="webhooks.tasks.deliver")
    DeadLetter.objects.update(state="replaying", replayed_at=timezone.now())
    assert "No open dead letters" in page_of(operator)
    assert page_of(operator, "?replaying=1").count('<th scope="row">') == 1


@pytest.mark.parametrize("sort", [*groups.SORTED, "nothing", ""])
def test_it_is_sorted_by_each_of_its_columns(operator: Client, sort: str) -> None:
    problems()
    page = page_of(operator, f"?sort={sort}")
    titles = re.findall(r"(ValueError|KeyError): ", page)
    first = {"problem": "KeyError", "last": "KeyError", "replay": "KeyError", "task": "ValueError"}.get(
        sort, "ValueError"
    )
    assert titles[0] == first


def test_the_trend_says_how_many_failed_in_each_hour() -> None:
    problems()
    DeadLetter.objects.filter(message_id="a-0").update(failed_at=timezone.now() - timedelta(hours=5))
    DeadLetter.objects.filter(message_id="a-1").update(failed_at=timezone.now() - timedelta(days=3))
    first, _ = groups.shown(groups.open_groups())
    assert (sum(first.hours), first.hours[-1], first.hours[-6]) == (2, 1, 1)
    assert first.points.startswith("0.0,19.0 ")
    assert first.points.endswith(" 96.0,1.0")


@pytest.mark.parametrize(
    ("button", "kind", "canary"),
    [("replay", "replay", 0), ("canary", "replay", 10), ("discard", "discard", None)],
)
def test_a_rows_button_asks_about_the_problems_open_dead_letters(
    operator: Client, button: str, kind: str, canary: int | None
) -> None:
    problems()
    replay.discard(DeadLetter.objects.get(message_id="a-0").pk, reason="r")
    fingerprint = DeadLetter.objects.get(message_id="a-1").fingerprint
    answer = operator.post(reverse(GROUPS), {button: fingerprint}, follow=True).content.decode()
    operation = Operation.objects.get()
    assert (operation.kind, operation.selected, operation.state) == (kind, 2, "drafted")
    if canary is not None:
        assert f'name="canary" value="{canary}"' in answer


def test_a_note_is_kept_for_the_next_operator_and_removed_when_empty(operator: Client) -> None:
    fingerprint = die().fingerprint
    said = {"note": fingerprint, f"note:{fingerprint}": "<b>see #42"}
    page = operator.post(reverse(GROUPS), said, follow=True).content.decode()
    assert "&lt;b&gt;see #42 (operator-3" in page
    operator.post(reverse(GROUPS), {"note": fingerprint, f"note:{fingerprint}": " "})
    assert not GroupNote.objects.exists()
    on_record = Operation.objects.order_by("pk").values_list("kind", "actor", "reason", "chosen_by")
    about = f"problem {fingerprint}"
    assert list(on_record) == [
        ("note", "operator-3", "<b>see #42", about),
        ("note", "operator-3", "", about),
    ]


def test_who_may_not_is_told_which_permission_it_takes() -> None:
    fingerprint = die().fingerprint
    onlooker = client("view_deadletter")
    page = page_of(onlooker)
    assert "You lack the permission “Can replay dead letters” (dlq.replay_deadletter)." in page
    assert "<button" not in page.partition('id="content-main"')[2]
    for button in ("replay", "canary", "discard", "note"):
        assert onlooker.post(reverse(GROUPS), {button: fingerprint}).status_code == 403
    assert not Operation.objects.exists()


def test_the_page_costs_the_same_for_every_number_of_groups(
    operator: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    DeadLetter.objects.bulk_create(
        DeadLetter(message_id=f"m-{n}", cause="failed", fingerprint=str(n % 120), generation=1)
        for n in range(1_000)
    )
    with django_assert_max_num_queries(8):
        page = page_of(operator, "?p=2")
    assert page.count('<th scope="row">') == 50
    assert "Page 2 of 3" in page


@pytest.mark.parametrize("button", ["replay", "canary", "discard", "note", "nothing"])
def test_what_is_asked_of_no_problem_is_refused_and_no_operation(operator: Client, button: str) -> None:
    die()
    form = {button: "no-such-problem", "note:no-such-problem": "why"}
    page = operator.post(reverse(GROUPS), form, follow=True).content.decode()
    assert 'class="error">There is no' in page
    assert not Operation.objects.exists()
    assert not GroupNote.objects.exists()


def test_a_button_of_a_dead_letter_that_is_gone_is_no_operation(operator: Client) -> None:
    act = reverse("admin:dlq_deadletter_act", args=[17])
    assert operator.post(act, {"verb": "replay"}).status_code == 404
    assert not Operation.objects.exists()
