"""The page and the command that edit a dead letter: they show no secret, send once, and say what is wrong where it is."""

from __future__ import annotations

import json

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse

from dlq import replay
from dlq.masking import MASK
from dlq.models import DeadLetter, Operation
from dlq.operations.models import Progress
from outbox.testing import drain
from tests.dlq.editing import KEY, copies, dead
from tests.dlq.test_admin import client
from tests.support import tasks

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_effects")]


def page(dead_letter: DeadLetter) -> str:
    return reverse("admin:dlq_deadletter_edit", args=[dead_letter.pk])


def typed(**changes: str) -> dict[str, str]:
    """What the form sends, as it is shown, and these fields otherwise."""
    shown = {
        "argument:order_id": "0",
        "argument:key_of_it": json.dumps(MASK, ensure_ascii=False),
        "argument:options": "",
    }
    return {
        **shown,
        "failures": "1",
        "retries": "",
        "reason": "a typo",
        **{f"argument:{k}": v for k, v in changes.items()},
    }


def test_the_page_shows_no_secret_and_sends_what_is_typed_once() -> None:
    """However often it is submitted."""
    editor = client("view_deadletter", "edit_deadletter")
    dead_letter = dead()
    form = editor.get(page(dead_letter)).content.decode()
    assert KEY not in form
    assert MASK in form
    for _ in range(2):
        answer = editor.post(page(dead_letter), typed(order_id="7"), follow=True).content.decode()
    assert "is replaying, not open" in answer
    (copy,) = copies()
    assert copy.args == [7, KEY]
    operation = Operation.objects.get()
    assert (operation.actor, operation.reason, operation.state) == ("operator-2", "a typo", Progress.RUNNING)


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("order_id", "seven", "this is not JSON"),
        ("order_id", '"7"', "it must be int"),
        ("order_id", "", "missing a"),
    ],
)
def test_the_page_shows_what_is_wrong_at_the_argument(field: str, value: str, why: str) -> None:
    editor = client("view_deadletter", "edit_deadletter")
    answer = editor.post(page(dead()), typed(**{field: value})).content.decode()
    assert f"{field}: {why}" in answer
    assert not copies()


def test_another_user_lacks_the_permission_and_sees_why() -> None:
    other = client("view_deadletter", "replay_deadletter", "discard_deadletter")
    dead_letter = dead()
    shown = other.get(reverse("admin:dlq_deadletter_change", args=[dead_letter.pk])).content.decode()
    assert "You lack the permission “Can edit and replay dead letters”" in shown
    assert page(dead_letter) not in shown
    for answer in (other.get(page(dead_letter)), other.post(page(dead_letter), typed(order_id="7"))):
        assert answer.status_code == 403
    assert not copies()
    editor = client("view_deadletter", "edit_deadletter")
    assert (
        page(dead_letter)
        in editor.get(reverse("admin:dlq_deadletter_change", args=[dead_letter.pk])).content.decode()
    )


def test_what_failed_again_since_the_page_was_opened_is_not_sent() -> None:
    editor = client("view_deadletter", "edit_deadletter")
    dead_letter = dead()
    replay.replay(dead_letter.pk)
    drain(tasks.pays.name)
    assert (
        "has failed again since it was chosen"
        in editor.post(page(dead_letter), typed(order_id="7")).content.decode()
    )
    assert len(copies()) == 1, "the replay"


def test_the_terminal_has_the_same_verb(capsys: pytest.CaptureFixture[str]) -> None:
    dead_letter = dead()
    for wrong, why in (
        ("order_id=x", "order_id: this is not JSON"),
        ("amount=5", "amount: got an unexpected"),
    ):
        with pytest.raises(CommandError, match=why):
            call_command("dlq", "edit", dead_letter.message_id, "--set", wrong)
    call_command("dlq", "edit", dead_letter.message_id, "--set", "order_id=7", "--reason", "a typo")
    (copy,) = copies()
    assert str(copy.message_id) in capsys.readouterr().out
    assert Operation.objects.get().reason == "a typo"
