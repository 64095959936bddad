"""The desk: shows everything but secrets, and lets each operator do what they may."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from pytest_mock import MockerFixture

from dlq.message import RawMessage
from dlq.models import DeadLetter, Operation, State
from dlq.operations import control
from dlq.queue import DeadLetterQueue
from outbox.testing import drain
from tests.dlq.test_record import die, receive

pytestmark = pytest.mark.django_db
LIST = "admin:dlq_deadletter_changelist"


def client(*permissions: str) -> Client:
    user = User.objects.create_user(f"operator-{len(permissions)}", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def operator() -> Client:
    return client("view_deadletter", "replay_deadletter", "discard_deadletter")


def act(operator: Client, action: str, *dead_letters: DeadLetter, **values: Any) -> str:
    data = {"action": action, "_selected_action": [dead_letter.pk for dead_letter in dead_letters], **values}
    return operator.post(reverse(LIST), data, follow=True).content.decode()


def test_the_list_and_every_filter_and_the_search_open(operator: Client) -> None:
    die()
    for query in (
        "?all=",
        "?state=open",
        "?cause=failed",
        "?queue=critical",
        "?q=no",
        "?fingerprint=x",
        "?failed_at__gte=2026-01-01T00:00:00Z",
    ):
        assert operator.get(reverse(LIST) + query).status_code == 200, query


def test_the_detail_shows_traceback_call_headers_and_timeline(operator: Client) -> None:
    dead_letter = receive(
        traceback='  File "/srv/app/orders/tasks.py", line 1, in place\nValueError: no', args=["WIDGET"]
    )
    page = operator.get(reverse("admin:dlq_deadletter_change", args=[dead_letter.pk])).content.decode()
    for expected in ("in place", "WIDGET", "kept whole: 15 bytes", "failed"):
        assert expected in page


def test_secrets_are_shown_on_no_page(operator: Client) -> None:
    secret = "hunter2"
    dead_letter = die(
        kwargs={"password": secret},
        headers={"authorization": secret, "kwargsrepr": secret},
        error=f"login failed: password={secret}",
        traceback=f"ValueError: token={secret}",
    )
    for url in (
        reverse(LIST),
        reverse("admin:dlq_deadletter_change", args=[dead_letter.pk]),
        reverse("admin:dlq_deadletter_groups"),
    ):
        page = operator.get(url).content.decode()
        assert secret not in page, url
    dead_letter.refresh_from_db()
    assert dead_letter.kwargs == {"password": secret}, "a replay needs it"


@pytest.mark.parametrize(
    "query",
    [
        "kwargs__password__startswith=h",
        "args__0__startswith=h",
        "headers__authorization__startswith=h",
        "error__contains=hunter",
        "traceback__contains=hunter",
        "raw__startswith=h",
        "events__note__contains=hunter",
        "discard_reason__contains=hunter",
    ],
)
def test_no_filter_of_the_list_tells_a_secret(operator: Client, query: str) -> None:
    die(kwargs={"password": "hunter2"}, error="login failed: password=hunter2")
    assert operator.get(f"{reverse(LIST)}?{query}").status_code == 400


def test_no_search_of_the_list_tells_a_secret(operator: Client) -> None:
    die(error="login failed: password=hunter2")
    page = operator.get(f"{reverse(LIST)}?q=hunter").content.decode()
    assert "0 dead letters" in page


def test_what_a_message_says_is_not_executed_in_the_operators_browser(operator: Client) -> None:
    dead_letter = die(
        args=["<script>alert(1)</script>"],
        error="<script>alert(2)</script>",
        task="<script>alert(3)</script>",
    )
    for url in (
        reverse(LIST),
        reverse("admin:dlq_deadletter_change", args=[dead_letter.pk]),
        reverse("admin:dlq_deadletter_groups"),
    ):
        assert "<script>alert" not in operator.get(url).content.decode(), url


def operation() -> str:
    """The page of the operation that was asked for last."""
    return reverse("admin:dlq_operation_change", args=[Operation.objects.latest("pk").pk])


def press(operator: Client, verb: str, **values: Any) -> str:
    """Press a button of the operation's page, and have the workers do what it says."""
    page = operator.post(operation(), {"verb": verb, **values}, follow=True).content.decode()
    drain("dlq.operations.driver.advance")
    return page


REPLAY = {"canary": 0, "rate": 0, "stop_above": 50}


def test_replay_selected_sends_what_it_can_and_says_why_not(operator: Client, mocker: MockerFixture) -> None:
    process = mocker.patch("orders.services.OrderService.process")
    DeadLetterQueue.add(job_id="good", queue="orders", payload={"order_id": 1}, error="x")
    DeadLetterQueue.add(job_id="homeless", queue="nowhere", payload={}, error="x")
    page = act(operator, "replay_selected", *DeadLetter.objects.all())
    assert "Replay 2" in page
    assert "its queue has no handler" in page
    process.assert_not_called()
    press(operator, "start", **REPLAY)
    process.assert_called_once_with(order_id=1)
    page = operator.get(operation()).content.decode()
    assert "1 sent (1 succeeded), 1 refused" in page
    assert "names no handler" in page
    assert (
        "operator-3"
        in operator.get(
            reverse("admin:dlq_deadletter_change", args=[DeadLetter.objects.get(message_id="good").pk])
        ).content.decode()
    )


def test_discard_asks_for_a_reason_first(operator: Client) -> None:
    dead_letter = die()
    assert "Discard 1" in act(operator, "discard_selected", dead_letter)
    assert "needs a reason" in press(operator, "start", reason=" ")
    dead_letter.refresh_from_db()
    assert dead_letter.state == State.OPEN
    press(operator, "start", reason="customer left")
    assert "1 discarded" in operator.get(operation()).content.decode()
    dead_letter.refresh_from_db()
    assert (dead_letter.state, dead_letter.discard_reason) == (State.DISCARDED, "customer left")


@pytest.mark.parametrize("action", ["replay_selected", "discard_selected"])
def test_what_came_after_the_question_is_not_meant_by_all_that_match(
    operator: Client, mocker: MockerFixture, action: str
) -> None:
    mocker.patch("orders.services.OrderService.process")
    DeadLetterQueue.add(job_id="shown", queue="orders", payload={"order_id": 1}, error="x")
    shown, failed_again = DeadLetter.objects.get(), die("again")
    page = act(operator, action, shown, select_across="1")
    assert "2 (all that match no filter)" in page.replace("Chosen: ", "")
    came = die("new")
    failed_again = die("again", generation=2)
    press(operator, "start", **REPLAY, reason="a flood")
    assert "1 refused" in operator.get(operation()).content.decode()
    open_ones = DeadLetter.objects.filter(state=State.OPEN).order_by("pk")
    assert list(open_ones) == [failed_again, came]


def test_an_operation_is_paused_resumed_and_cancelled_on_its_page(operator: Client) -> None:
    for number in range(3):
        die(f"m-{number}")
    act(operator, "discard_selected", *DeadLetter.objects.all())
    started = Operation.objects.get()
    control.start(started, actor="somebody", reason="r", drive=False)
    for verb, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        page = operator.post(operation(), {"verb": verb}, follow=True).content.decode()
        assert state in page
    assert "Cancelled: 0 sent, 0 refused, 3 not sent." in page
    assert "cancelled by operator-3" in page
    page = operator.post(operation(), {"verb": "resume"}, follow=True).content.decode()
    assert f"Operation {started.pk} is cancelled: it cannot be resumed" in page


def test_who_lacks_a_permission_is_told_which_and_starts_nothing() -> None:
    dead_letter = die()
    act(client("view_deadletter", "replay_deadletter"), "replay_selected", dead_letter)
    onlooker = client("view_deadletter")
    page = onlooker.get(operation()).content.decode()
    assert "You lack the permission “Can replay dead letters” (dlq.replay_deadletter)." in page
    assert 'value="start"' not in page
    assert onlooker.post(operation(), {"verb": "start", **REPLAY}).status_code == 403
    assert client().get(operation()).status_code == 403
    assert Operation.objects.get().state == "drafted"


def test_who_may_only_look_is_offered_and_allowed_nothing_else(mocker: MockerFixture) -> None:
    onlooker = client("view_deadletter")
    dead_letter = die()
    page = onlooker.get(reverse(LIST)).content.decode()
    assert "replay_selected" not in page
    assert "discard_selected" not in page
    act(onlooker, "replay_selected", dead_letter)
    act(onlooker, "discard_selected", dead_letter, reason="because")
    dead_letter.refresh_from_db()
    assert dead_letter.state == State.OPEN


def test_who_may_not_look_sees_nothing() -> None:
    dead_letter = die()
    stranger = client()
    for url in (
        reverse(LIST),
        reverse("admin:dlq_deadletter_change", args=[dead_letter.pk]),
        reverse("admin:dlq_deadletter_groups"),
    ):
        assert stranger.get(url).status_code == 403, url


def test_no_one_adds_changes_or_deletes_a_dead_letter() -> None:
    root = User.objects.create_superuser("root", password="x")
    operator = Client()
    operator.force_login(root)
    dead_letter = die()
    assert operator.get(reverse("admin:dlq_deadletter_add")).status_code == 403
    assert operator.post(reverse("admin:dlq_deadletter_delete", args=[dead_letter.pk])).status_code == 403
    assert (
        operator.post(
            reverse("admin:dlq_deadletter_change", args=[dead_letter.pk]), {"state": "resolved"}
        ).status_code
        == 403
    )


RAW = b"<script>\xff\xfe\x00 password=canary"


def test_the_bytes_of_a_message_are_shown_and_downloaded_by_permission_alone() -> None:
    dead_letter = receive()
    dead_letter.raw = RawMessage(
        RAW, content_type="application/octet-stream", content_encoding="binary"
    ).dump()
    dead_letter.save()
    page, download = (
        reverse("admin:dlq_deadletter_change", args=[dead_letter.pk]),
        reverse("admin:dlq_deadletter_bytes", args=[dead_letter.pk]),
    )
    allowed = client("view_deadletter", "view_raw_deadletter")
    shown = allowed.get(page).content.decode()
    assert "&lt;script&gt;\\xff\\xfe\\x00 password=canary" in shown
    assert download in shown
    answer = allowed.get(download)
    assert answer.content == RAW
    assert answer["Content-Type"] == "application/octet-stream"
    assert answer["Content-Disposition"].startswith("attachment")
    assert answer["X-Content-Type-Options"] == "nosniff"
    on_record = Operation.objects.get()
    assert (on_record.kind, on_record.actor) == ("export", "operator-2")
    assert on_record.history[0]["what"] == f"exported the bytes of dead letter {dead_letter.pk}"

    other = client("view_deadletter")
    assert "canary" not in other.get(page).content.decode()
    assert other.get(download).status_code == 403


def test_a_message_that_only_its_journal_has_has_no_bytes_to_download() -> None:
    die()
    url = reverse("admin:dlq_deadletter_bytes", args=[DeadLetter.objects.get().pk])
    assert client("view_deadletter", "view_raw_deadletter").get(url).status_code == 404
