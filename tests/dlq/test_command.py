"""`manage.py dlq` does in a terminal what the desk does in a browser."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_mock import MockerFixture

from dlq.models import DeadLetter, State
from dlq.queue import DeadLetterQueue
from tests.dlq.test_capture import die

pytestmark = pytest.mark.django_db


def dlq(*arguments: str) -> str:
    out = StringIO()
    call_command("dlq", *arguments, stdout=out, stderr=out)
    return out.getvalue()


def test_list_shows_open_letters_and_obeys_its_filters() -> None:
    die("m-1", error="password=hunter2")
    die("m-2", queue="low")
    DeadLetterQueue.purge(reason="r")
    die("m-3", queue="low")
    die("m-4", task="other.task")
    assert [line for line in dlq("list").splitlines() if "m-3" in line or "m-4" in line]
    assert "m-1" not in dlq("list")
    assert "m-1" in dlq("list", "--state", "discarded")
    assert "m-3" not in dlq("list", "--task", "other.task")
    assert "1 letters" in dlq("list", "--queue", "low")
    assert "hunter2" not in dlq("list", "--state", "discarded")


def test_show_and_export_hold_everything_but_secrets() -> None:
    die(kwargs={"password": "hunter2", "order_id": 42}, traceback="ValueError: token=hunter2")
    shown = json.loads(dlq("show", "m-1"))
    (exported,) = [json.loads(line) for line in dlq("export").splitlines()]
    assert shown == exported
    assert shown["kwargs"]["order_id"] == 42
    assert "hunter2" not in json.dumps(shown)
    assert [event["what"] for event in shown["events"]] == ["failed"]


def test_an_unknown_letter_is_named_and_nothing_is_done(mocker: MockerFixture) -> None:
    process = mocker.patch("orders.services.OrderService.process")
    DeadLetterQueue.add(job_id="a", queue="orders", payload={}, error="x")
    for arguments in (("show", "nobody"), ("replay", "a", "nobody"), ("discard", "nobody", "--reason", "r")):
        with pytest.raises(CommandError, match="no letter nobody"):
            dlq(*arguments)
    process.assert_not_called()


def test_replay_and_discard_ask_for_a_selection() -> None:
    die()
    with pytest.raises(CommandError, match="--all"):
        dlq("replay")
    with pytest.raises(CommandError, match="--all"):
        dlq("discard", "--reason", "r")
    assert DeadLetter.objects.get().state == State.OPEN


def test_replay_all_obeys_the_filters(mocker: MockerFixture) -> None:
    process = mocker.patch("orders.services.OrderService.process")
    DeadLetterQueue.add(job_id="a", queue="orders", payload={}, error="x")
    DeadLetterQueue.add(job_id="b", queue="nowhere", payload={}, error="x")
    assert "1 sent again, 0 refused" in dlq("replay", "--all", "--queue", "orders")
    process.assert_called_once()


def test_what_could_not_be_sent_is_said_and_is_an_error() -> None:
    DeadLetterQueue.add(job_id="b", queue="nowhere", payload={}, error="x")
    with pytest.raises(CommandError, match="1 of 1 were not sent again"):
        dlq("replay", "--all")


def test_discard_closes_with_the_reason() -> None:
    die()
    assert "1 discarded, 0 refused" in dlq("discard", "m-1", "--reason", "paid by hand")
    assert DeadLetter.objects.get().discard_reason == "paid by hand"


def test_purge_deletes_what_was_closed_long_ago_and_nothing_else(mocker: MockerFixture) -> None:
    mocker.patch("dlq.management.commands.dlq.PRUNE_BATCH", 2)
    for number in range(5):
        die(f"old-{number}")
    DeadLetterQueue.purge(reason="r")
    DeadLetter.objects.update(closed_at=timezone.now() - timedelta(days=91))
    die("open")
    die("fresh")
    dlq("discard", "fresh", "--reason", "r")
    assert "5 letters deleted" in dlq("purge", "--closed-before-days", "90")
    assert set(DeadLetter.objects.values_list("message_id", flat=True)) == {"open", "fresh"}
