"""A dead letter is edited by sending a copy: once, with arguments that its task takes, and with every secret in its place."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from pytest_mock import MockerFixture

import outbox
from dlq import replay
from dlq.arguments import InvalidArgument
from dlq.masking import MASK
from dlq.models import Cause, DeadLetter, Operation, State
from dlq.operations import driver, selection
from dlq.operations.edit import edit
from dlq.operations.models import Kind, Outcome
from dlq.operations.step import step
from dlq.queue import DeadLetterQueue
from dlq.replay import NotReplayable
from outbox.models import OutboxMessage
from outbox.testing import drain
from tests.dlq.concurrency import at_once
from tests.dlq.editing import KEY, copies, dead
from tests.dlq.test_record import receive
from tests.support import effects, tasks

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_effects")]


def frozen(dead_letter: DeadLetter) -> dict[str, Any]:
    """All that a dead letter says of what failed."""
    dead_letter.refresh_from_db()
    changing = {"state", "closed_at", "replayed_at", "edited_as", "_state"}
    return {name: value for name, value in vars(dead_letter).items() if name not in changing}


def test_the_copy_runs_with_the_edit_and_the_original_stays() -> None:
    """As it is, but for its state and the id of its copy."""
    dead_letter = dead(correlation_id="c-1", queue="critical")
    before = frozen(dead_letter)
    sent_as = DeadLetterQueue.edit(dead_letter.message_id, {"order_id": 7}, actor="alice", reason="a typo")
    assert frozen(dead_letter) == before
    assert (dead_letter.state, dead_letter.edited_as) == (State.REPLAYING, sent_as)
    (copy,) = copies()
    assert (str(copy.message_id), copy.args, copy.queue, copy.correlation_id) == (
        sent_as,
        [7, KEY],
        "critical",
        "c-1",
    )
    drain(tasks.pays.name)
    assert effects.count(f"7 {KEY}") == 1
    assert frozen(dead_letter) == before
    assert dead_letter.state == State.RESOLVED
    assert OutboxMessage.objects.get(message_id=dead_letter.message_id).status == "cancelled"
    said = dead_letter.events.get(what="replayed")
    assert (said.actor, said.note) == ("alice", f"edited order_id; runs as {sent_as}")


def test_who_edited_what_and_why_is_on_record_with_its_outcome() -> None:
    dead_letter = dead()
    operation = edit(dead_letter.pk, {"order_id": 7}, actor="alice", reason="a typo")
    assert OutboxMessage.objects.filter(task=driver.advance.name, args=[operation.pk, 0]).count() == 1
    drain(tasks.pays.name)
    step(operation.pk)
    operation.refresh_from_db()
    assert (operation.kind, operation.state, operation.actor, operation.reason) == (
        "edit",
        "done",
        "alice",
        "a typo",
    )
    assert operation.history[0]["what"] == "edited order_id"
    assert operation.items.get().outcome == Outcome.SUCCEEDED


def test_a_copy_that_fails_is_a_dead_letter_of_its_own() -> None:
    """And the only open one of the two."""
    dead_letter = dead()
    operation = edit(dead_letter.pk, {"key_of_it": "another"}, actor="alice")
    drain(tasks.pays.name)
    copy = DeadLetter.objects.get(state=State.OPEN)
    dead_letter.refresh_from_db()
    assert (copy.args, dead_letter.args) == ([0, "another"], [0, KEY])
    assert (copy.message_id, copy.origin) == (dead_letter.edited_as, dead_letter.message_id)
    assert dead_letter.state == State.RESOLVED
    step(operation.pk)
    assert operation.items.get().outcome == Outcome.FAILED
    desk = Client()
    desk.force_login(User.objects.create_superuser("root"))
    for one, other, said in ((copy, dead_letter, "sent again from"), (dead_letter, copy, "edited as")):
        page = desk.get(reverse("admin:dlq_deadletter_change", args=[one.pk])).content.decode()
        assert f'{said} <a href="{reverse("admin:dlq_deadletter_change", args=[other.pk])}"' in page


@pytest.mark.parametrize(
    ("changes", "without", "name", "why"),
    [
        ({"order_id": "7"}, (), "order_id", "it must be int, not str"),
        ({"order_id": True}, (), "order_id", "it must be int, not bool"),
        ({"amount": 5}, (), "amount", "unexpected keyword argument 'amount'"),
        ({}, ("order_id",), "order_id", "missing a required argument: 'order_id'"),
        ({}, ("amount",), "amount", "there is no such argument"),
        ({"key_of_it": f"x{MASK}"}, (), "key_of_it", "is a mask, not a value"),
        ({"options": {"key": MASK}}, (), "options", "is a mask, not a value"),
        ({"options": float("nan")}, (), "options", "cannot be sent as JSON"),
        ({}, (), "", "nothing is changed"),
        ({"order_id": 0, "key_of_it": MASK}, (), "", "nothing is changed"),
    ],
)
def test_a_call_that_the_task_does_not_take_names_the_argument(
    changes: dict[str, Any], without: tuple[str, ...], name: str, why: str
) -> None:
    """And nothing is sent."""
    dead_letter = dead()
    with pytest.raises(InvalidArgument, match=why) as refused:
        DeadLetterQueue.edit(dead_letter.message_id, changes, without=without)
    assert refused.value.name == name
    dead_letter.refresh_from_db()
    assert (dead_letter.state, dead_letter.edited_as) == (State.OPEN, "")
    assert not copies()
    assert not Operation.objects.exists()


def test_a_mask_keeps_the_secret_and_a_value_replaces_it() -> None:
    options = {"password": "hunter2", "url": "https://a.test/?token=abcdef", "list": [1, {"pin": "1234"}]}
    left = dead(0, KEY, options)
    shown = {"password": MASK, "url": f"https://a.test/?token={MASK}", "list": [2, {"pin": MASK}]}
    edit(left.pk, {"order_id": 7, "key_of_it": MASK, "options": shown}, actor="alice")
    (copy,) = copies()
    assert copy.args == [7, KEY, {**options, "list": [2, {"pin": "1234"}]}]
    replaced = dead(0, KEY, options)
    edit(replaced.pk, {"key_of_it": "new", "options": {"password": "new"}}, actor="alice")
    assert copies()[0].args == [0, "new", {"password": "new"}]


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ({"name": "password", "value": "hunter2"}, {"name": "remark", "value": MASK}),
        (["password", "hunter2"], ["remark", MASK]),
        ({"password": "hunter2"}, {"remark": MASK}),
    ],
)
def test_no_edit_moves_a_secret_to_where_it_would_be_shown(options: Any, given: Any) -> None:
    dead_letter = dead(0, KEY, options)
    with pytest.raises(InvalidArgument, match=r"^options: "):
        edit(dead_letter.pk, {"options": given}, actor="alice")
    assert not copies()


def test_what_is_behind_an_argument_left_out_becomes_a_keyword() -> None:
    dead_letter = dead(0, KEY, {"a": 1})
    edit(dead_letter.pk, {"order_id": 7}, without=["options"], actor="alice")
    assert (copies()[0].args, copies()[0].kwargs) == ([7, KEY], {})
    another = dead(0, KEY)
    OutboxMessage.objects.filter(message_id=another.message_id).update(args=[], kwargs={"amount": 5})
    DeadLetter.objects.filter(pk=another.pk).update(args=[0, KEY, 1, 2], kwargs={"amount": 5})
    with pytest.raises(InvalidArgument, match="too many positional arguments"):
        edit(another.pk, {}, without=["amount"], actor="alice")
    edit(another.pk, {}, without=["amount", "[3]"], actor="alice")
    assert copies()[0].args == [0, KEY, 1]


def test_what_json_says_in_celerys_way_stays_what_it_is() -> None:
    identity = uuid.uuid4()
    dead_letter = dead(0, KEY, identity)
    edit(dead_letter.pk, {"order_id": 7}, actor="alice")
    original = OutboxMessage.objects.get(message_id=dead_letter.message_id)
    assert copies()[0].args == [7, *original.args[1:]]
    drain(tasks.pays.name)
    assert effects.count(f"7 {KEY}") == 1


@pytest.mark.django_db(transaction=True)
def test_of_many_that_edit_or_replay_one_dead_letter_one_sends_it() -> None:
    dead_letter = dead()
    outcomes = at_once(
        6,
        lambda: edit(dead_letter.pk, {"order_id": 7}, actor="alice"),
        lambda: edit(dead_letter.pk, {"order_id": 8}, actor="bob"),
        lambda: replay.replay(dead_letter.pk, actor="carol"),
    )
    assert sum(isinstance(each, NotReplayable) for each in outcomes) == 5
    assert OutboxMessage.objects.filter(task=tasks.pays.name, status="pending").count() == 1


def test_the_copy_of_a_groups_dead_head_runs_before_the_others() -> None:
    dead_letter = dead(ordering_key="customer-1")
    for number in (8, 9):
        outbox.enqueue(tasks.pays.s(number, KEY), ordering_key="customer-1")
    drain(tasks.pays.name)
    edit(dead_letter.pk, {"order_id": 7}, actor="alice")
    drain(tasks.pays.name)
    assert effects.names() == [f"{number} {KEY}" for number in (7, 8, 9)]


def test_the_preflight_of_a_replay_says_that_it_was_edited() -> None:
    dead_letter = dead()
    operation = selection.draft(Kind.REPLAY, DeadLetter.objects.all(), actor="bob")
    edit(dead_letter.pk, {"order_id": 7}, actor="alice")
    assert selection.preflight(operation) == {selection.READY: 0, selection.EDITED: 1}
    drain(tasks.pays.name)
    assert selection.preflight(operation) == {selection.READY: 0, selection.EDITED: 1}


def test_an_outside_message_that_could_not_be_read_is_mended() -> None:
    message_id = str(uuid.uuid4())
    dead_letter = receive(
        message_id, b'{"not": "a call"}', task=tasks.pays.name, args=None, cause=Cause.MALFORMED
    )
    with pytest.raises(InvalidArgument, match="missing a required argument: 'order_id'"):
        edit(dead_letter.pk, {"key_of_it": KEY}, actor="alice")
    edit(dead_letter.pk, {"order_id": 7, "key_of_it": KEY}, actor="alice")
    (copy,) = copies()
    assert str(copy.message_id) != message_id
    drain(tasks.pays.name)
    dead_letter.refresh_from_db()
    assert (dead_letter.state, effects.count(f"7 {KEY}")) == (State.RESOLVED, 1)


def test_a_message_that_names_what_follows_it_is_not_copied_without_it() -> None:
    body = json.dumps([[0, KEY], {}, {"chain": [{"task": "t"}]}]).encode()
    dead_letter = receive(str(uuid.uuid4()), body, task=tasks.pays.name)
    with pytest.raises(NotReplayable, match="carries follow-up tasks"):
        edit(dead_letter.pk, {"order_id": 7}, actor="alice")
    assert not copies()


def test_a_handler_runs_the_edited_job_of_the_application(mocker: MockerFixture) -> None:
    process = mocker.patch("orders.services.OrderService.process", autospec=True, side_effect=KeyError("no"))
    DeadLetterQueue.add("job-1", "orders", {"order_id": 1}, "Timeout")
    with pytest.raises(InvalidArgument, match="got an unexpected keyword argument 'order_ids'"):
        DeadLetterQueue.edit("job-1", {"order_ids": 2})
    with pytest.raises(NotReplayable, match="failed: KeyError"):
        DeadLetterQueue.edit("job-1", {"order_id": 2}, retries=0)
    copy = DeadLetter.objects.get(state=State.OPEN)
    assert (copy.kwargs, copy.origin) == ({"order_id": 2}, "job-1")
    process.side_effect = None
    DeadLetterQueue.edit(copy.message_id, {"order_id": 3})
    assert [call.kwargs for call in process.call_args_list] == [{"order_id": 2}, {"order_id": 3}]
    assert set(DeadLetter.objects.values_list("state", flat=True)) == {State.RESOLVED}
