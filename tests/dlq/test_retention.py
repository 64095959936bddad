"""Dead letters are deleted; what was counted of them is not."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from dlq import record, replay, retention, stats
from dlq.models import DeadLetter, DeadLetterEvent, State
from dlq.queue import DeadLetterQueue
from tests.dlq.test_record import die
from tests.dlq.test_replay import publisher

pytestmark = pytest.mark.django_db

A_YEAR = timedelta(days=365)


def close_long_ago() -> None:
    DeadLetterQueue.purge(reason="r")
    DeadLetter.objects.filter(state=State.DISCARDED).update(closed_at=timezone.now() - A_YEAR)


def totals() -> tuple[dict[tuple[str, str, str], int], dict[str, int]]:
    found = stats.stats()
    died = {(row["queue"], row["task"], row["exception"]): row["count"] for row in found["dead_lettered"]}
    return died, found["replays"]


def died() -> dict[tuple[str, str, str], int]:
    return totals()[0]


def test_totals_do_not_fall_when_their_dead_letters_are_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outbox.dlq_hooks.republish", publisher)
    for number in range(5):
        die(f"m-{number}", task="t", exception=KeyError("x") if number % 2 else ValueError("x"))
    replay.replay(DeadLetter.objects.get(message_id="m-0").pk)
    die("m-0", task="t", generation=2)
    close_long_ago()
    before = totals()
    assert before == (
        {("critical", "t", "ValueError"): 4, ("critical", "t", "KeyError"): 2},
        {"sent": 1, "succeeded": 0, "failed": 1, "returned": 0},
    )
    assert retention.delete_closed(older_than=A_YEAR / 2, batch=2) == 5
    assert (DeadLetter.objects.count(), DeadLetterEvent.objects.count()) == (0, 0)
    assert totals() == before
    die("another", task="t")
    close_long_ago()
    retention.delete_closed(older_than=A_YEAR / 2)
    assert died() == {("critical", "t", "ValueError"): 5, ("critical", "t", "KeyError"): 2}


def test_a_dead_letter_with_two_errors_is_counted_under_both() -> None:
    """It dies of another error the second time.

    Counted by what it died of last, the first number would fall, which looks like a restart of the counter.
    """
    die("m", exception=ValueError("x"))
    die("m", exception=KeyError("x"), generation=2)
    assert {exception: count for (_, _, exception), count in died().items()} == {
        "ValueError": 1,
        "KeyError": 1,
    }


def test_no_total_falls_when_a_dead_letter_changes_its_queue() -> None:
    """Or its task.

    Counted under what its dead letter is about now, a death would move from one counter to another.
    """
    DeadLetterQueue.add("m", "orders", {"order_id": 1}, "x")
    die("m", queue="critical", task="t")
    put_aside = {("orders", "", ""): 1}
    assert died() == put_aside, "one death, however many report it"
    DeadLetterQueue.purge("r")
    die("m", queue="low", task="u", generation=2)
    again = put_aside | {("low", "u", "ValueError"): 1}
    assert died() == again
    DeadLetterQueue.purge("r")
    DeadLetterQueue.add("m", "orders", {"order_id": 1}, "x")
    assert died() == again | {("orders", "", ""): 2}
    close_long_ago()
    assert retention.delete_closed(older_than=A_YEAR / 2) == 1
    assert died() == again | {("orders", "", ""): 2}


@pytest.mark.django_db(transaction=True)
def test_what_was_counted_before_events_had_labels_is_counted_on() -> None:
    die("a", queue="low", task="t")
    die("b")
    before = died()
    try:
        call_command("migrate", "dlq", "0002", verbosity=0)
    finally:
        call_command("migrate", "dlq", verbosity=0)
    assert died() == before
    # A process of the release before goes on writing until it is replaced.
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO dlq_letterevent (letter_id, what, actor, note, exception, traceback)"
                       " SELECT id, 'reopened', '', '', 'KeyError', '' FROM dlq_deadletter LIMIT 1")  # fmt: skip
    assert died() == before | {("", "", "KeyError"): 1}


def test_what_is_unresolved_or_was_closed_lately_stays() -> None:
    for message_id in ("open", "lately", "resolved"):
        die(message_id)
    record.on_resolved("resolved")
    replay.discard(DeadLetter.objects.get(message_id="lately").pk, reason="r", actor="")
    assert retention.delete_closed(older_than=A_YEAR / 2) == 0
    assert DeadLetter.objects.count() == 3
