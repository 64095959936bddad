"""`manage.py dlq` does in a terminal what the desk does in a browser."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction
from django.utils import timezone
from pytest_mock import MockerFixture

from dlq.management.commands.dlq import Command
from dlq.models import DeadLetter, DeadLetterEvent, State
from dlq.queue import DeadLetterQueue
from tests.dlq.concurrency import at_once
from tests.dlq.test_record import die
from tests.support.locks import wait_until_blocked

pytestmark = pytest.mark.django_db


def dlq(*arguments: str) -> str:
    out = StringIO()
    call_command("dlq", *arguments, stdout=out, stderr=out)
    return out.getvalue()


def test_list_shows_open_dead_letters_and_obeys_its_filters() -> None:
    die("m-1", error="password=hunter2")
    die("m-2", queue="low")
    DeadLetterQueue.purge(reason="r")
    die("m-3", queue="low")
    die("m-4", task="other.task")
    assert [line for line in dlq("list").splitlines() if "m-3" in line or "m-4" in line]
    assert "m-1" not in dlq("list")
    assert "m-1" in dlq("list", "--state", "discarded")
    assert "m-3" not in dlq("list", "--task", "other.task")
    assert "1 dead letter\n" in dlq("list", "--queue", "low")
    assert "hunter2" not in dlq("list", "--state", "discarded")


def test_a_terminal_is_shown_nothing_that_it_would_obey() -> None:
    """Task, queue, names of arguments, error and traceback are chosen by who writes to the broker."""
    evil = "evil\nm-9\x1b[31m\x9b31m\u2028"
    die(task=evil, queue=evil, kwargs={evil: 1}, error=evil, exception=None, traceback=evil)
    escaped = "evil\\nm-9\\u001b[31m\\u009b31m\\u2028"
    (line, _) = dlq("list").splitlines()
    assert line.count(escaped) == 3
    for shown in (dlq("show", "m-1"), dlq("export")):
        assert escaped in shown
        assert shown.replace("\n", "").isprintable()
        assert json.loads(shown)["task"] == evil
    assert on_a_terminal("show", "m-1").endswith("\nevil\nm-9\\u001b[31m\\u009b31m\\u2028\n")


@pytest.mark.parametrize("given", ["order_id", "order_id="])
def test_an_argument_without_its_value_is_refused(given: str) -> None:
    """One line says what is missing."""
    die(task="orders.tasks.process_order", args=[999], kwargs={})
    assert "m-1" in dlq("list", "--about", "order_id=999")
    with pytest.raises(CommandError, match=r"the value of order_id is missing: --about order_id=\.\.\."):
        dlq("list", "--about", given)


@pytest.mark.parametrize("option", ["--task", "--queue", "--exception", "--about"])
@pytest.mark.parametrize("verb", [("list",), ("discard", "--all", "--reason", "r")])
def test_an_empty_filter_is_refused_instead_of_letting_everything_pass(
    verb: tuple[str, ...], option: str
) -> None:
    die()
    with pytest.raises(CommandError, match=f"{option}: its value is empty"):
        dlq(*verb, option, "")
    assert DeadLetter.objects.get().state == State.OPEN


def test_show_and_export_hold_everything_but_secrets() -> None:
    die(kwargs={"password": "hunter2", "order_id": 42}, traceback="ValueError: token=hunter2")
    shown = json.loads(dlq("show", "m-1"))
    (exported,) = [json.loads(line) for line in dlq("export").splitlines()]
    assert shown == exported
    assert shown["kwargs"]["order_id"] == 42
    assert "hunter2" not in json.dumps(shown)
    assert [event["what"] for event in shown["events"]] == ["failed"]


def test_an_unknown_dead_letter_is_named_and_nothing_is_done(mocker: MockerFixture) -> None:
    process = mocker.patch("orders.services.OrderService.process")
    DeadLetterQueue.add(job_id="a", queue="orders", payload={}, error="x")
    for arguments in (("show", "nobody"), ("replay", "a", "nobody"), ("discard", "nobody", "--reason", "r")):
        with pytest.raises(CommandError, match="no dead letter nobody"):
            dlq(*arguments)
    process.assert_not_called()


def test_replay_and_discard_ask_for_a_selection() -> None:
    die()
    with pytest.raises(CommandError, match="--all"):
        dlq("replay")
    with pytest.raises(CommandError, match="--all"):
        dlq("discard", "--reason", "r")
    assert DeadLetter.objects.get().state == State.OPEN


@pytest.mark.parametrize("arguments", [("discard", "m-1"), ("purge",)], ids=["discard", "purge"])
def test_an_operator_without_a_passwd_entry_is_named_by_number(
    mocker: MockerFixture, arguments: tuple[str, ...]
) -> None:
    """As in a container."""
    mocker.patch(
        "dlq.management.commands.dlq.getpass.getuser", side_effect=KeyError("getpwuid(): uid not found")
    )
    mocker.patch("dlq.management.commands.dlq.os.getuid", return_value=12345)
    die()
    dlq(*arguments, "--reason", "r")
    assert DeadLetterEvent.objects.get(what="discarded").actor == "uid 12345"


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


def test_a_reason_that_many_share_is_said_once_with_their_number() -> None:
    for number in range(30):
        DeadLetterQueue.add(job_id=f"job-{number}", queue="nowhere", payload={}, error="x")
        die(f"m-{number}")
    DeadLetter.objects.filter(message_id__startswith="m-").update(
        state=State.REPLAYING, replayed_at=timezone.now()
    )
    everything = [dead_letter.message_id for dead_letter in DeadLetter.objects.all()]
    said = StringIO()
    with pytest.raises(CommandError, match="60 of 60 were not sent again"):
        call_command("dlq", "replay", *everything, stdout=StringIO(), stderr=said)
    lines = said.getvalue().splitlines()
    assert len(lines) == 2
    assert all(line.startswith("not sent again, 30: ") and "and 27 more" in line for line in lines)


def test_discard_closes_with_the_reason() -> None:
    die()
    assert "1 discarded, 0 refused" in dlq("discard", "m-1", "--reason", "paid by hand")
    assert DeadLetter.objects.get().discard_reason == "paid by hand"


def test_purge_deletes_what_was_closed_long_ago_and_nothing_else() -> None:
    for number in range(5):
        die(f"old-{number}")
    DeadLetterQueue.purge(reason="r")
    DeadLetter.objects.update(closed_at=timezone.now() - timedelta(days=91))
    die("open")
    die("fresh")
    dlq("discard", "fresh", "--reason", "r")
    assert "5 dead letters deleted" in dlq("purge", "--closed-before-days", "90")
    assert set(DeadLetter.objects.values_list("message_id", flat=True)) == {"open", "fresh"}


@pytest.mark.django_db(transaction=True)
def test_a_dead_letter_reopened_during_a_purge_is_not_deleted() -> None:
    dead_letter = die()
    DeadLetterQueue.purge(reason="r")
    DeadLetter.objects.update(closed_at=timezone.now() - timedelta(days=91))
    reopened, commit = threading.Event(), threading.Event()

    def die_again() -> None:
        with transaction.atomic():
            die(generation=2)
            reopened.set()
            assert commit.wait(20)

    def purge() -> None:
        assert reopened.wait(20)
        try:
            dlq("purge", "--closed-before-days", "90")
        finally:
            commit.set()

    def commit_when_the_purge_waits() -> None:
        """A purge that does not lock what it has found waits for the other's lock in the DELETE."""
        assert reopened.wait(20)
        with suppress(AssertionError):
            wait_until_blocked(1, timeout_s=2)
        commit.set()

    assert at_once(3, die_again, purge, commit_when_the_purge_waits) == [None] * 3
    dead_letter.refresh_from_db()
    assert dead_letter.state == State.OPEN


def test_purge_with_a_reason_discards_every_open_dead_letter() -> None:
    """As `DeadLetterQueue.purge` does."""
    die("m-1")
    die("m-2")
    assert "2 dead letters discarded" in dlq("purge", "--reason", "test system")
    assert set(DeadLetter.objects.values_list("state", "discard_reason")) == {("discarded", "test system")}


def test_purge_must_be_told_what_and_a_reason_must_say_something() -> None:
    die()
    for arguments in ((), ("--reason", "r", "--closed-before-days", "1"), ("--reason", " ")):
        with pytest.raises(CommandError, match=r"required|not allowed with|needs a reason"):
            dlq("purge", *arguments)
    assert DeadLetter.objects.get().state == State.OPEN


@pytest.mark.parametrize(
    "arguments",
    [
        *(("list", f"--limit={limit}") for limit in ("-1", "0", "many", "", "1e3", "9" * 30)),
        *(("replay", "m-1", f"--retries={retries}") for retries in ("-1", "few", "9" * 30)),
        *(("purge", f"--closed-before-days={days}") for days in ("-1", "nan", "inf", "1e300", "old")),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_in_one_line(arguments: tuple[str, ...]) -> None:
    die()
    with pytest.raises(CommandError, match=r"is not a (whole )?number") as caught:
        dlq(*arguments)
    assert "\n" not in str(caught.value)
    assert DeadLetter.objects.get().state == State.OPEN


@pytest.mark.parametrize("strange", ["\udcff", "a\x00b"])
def test_what_the_database_cannot_hold_is_merely_unknown(strange: str) -> None:
    for arguments in (("show", strange), ("replay", strange), ("discard", strange, "--reason", strange)):
        with pytest.raises(CommandError, match="there is no dead letter"):
            dlq(*arguments)
    for option in ("--task", "--queue", "--exception"):
        assert "0 dead letters" in dlq("list", option, strange)
        assert dlq("export", option, strange) == ""


class Terminal(StringIO):
    """Standard output and standard error of a shell, which Django writes to in colour."""

    def isatty(self) -> bool:
        return True


def on_a_terminal(*arguments: str) -> str:
    screen = Terminal()
    call_command(Command(stdout=screen, stderr=screen, force_color=True), *arguments)
    return screen.getvalue()


def test_the_number_below_a_list_is_not_styled_as_an_error() -> None:
    die()
    assert on_a_terminal("list").splitlines()[-1] == "1 dead letter"


def test_the_traceback_is_text_on_a_terminal_and_json_elsewhere() -> None:
    traceback = 'Traceback (most recent call last):\n  File "a.py", line 1\nValueError: no'
    die(traceback=f"{traceback} password=hunter2")
    shown = on_a_terminal("show", "m-1")
    assert f"}}\n\n{traceback} password=" in shown
    assert "hunter2" not in shown
    assert "traceback" not in json.loads(shown.partition("\n\n")[0])
    assert json.loads(dlq("show", "m-1"))["traceback"].startswith(traceback)
